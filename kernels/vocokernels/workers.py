"""A few threads that each compute alone.

PyTorch spreads every single operation over all threads and waits for the slowest. Where an
algorithm is many short operations in the cache, the waiting costs more than the work, above all
on a busy machine: a thread that lost its core stalls each of them. Here a thread takes a share of
the whole and computes it with operations of one thread; all meet once, at the end.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

Item = TypeVar("Item")
Share = TypeVar("Share")
Result = TypeVar("Result")

# beyond these the threads wait for the interpreter, which starts one operation at a time
MOST_WORKERS = 8

# while a pool is made, threads that ask for the first time are told a number that is not theirs
_making = threading.Lock()
if hasattr(os, "register_at_fork"):
    # a child would wait for ever for a thread that it does not have
    os.register_at_fork(
        before=_making.acquire,
        after_in_parent=_making.release,
        after_in_child=_making.release,
    )


def worker_count() -> int:
    """Threads to share work among: as many as PyTorch may use, within reason."""
    with _making:
        return min(torch.get_num_threads(), MOST_WORKERS)


def share_out(items: Sequence[Item], costs: Sequence[int], *, shares: int) -> list[list[Item]]:
    """Split items into shares of about equal cost, the same way each time; none is empty.

    >>> share_out(["a", "b", "c", "d"], [5, 1, 3, 2], shares=2)
    [['a', 'b'], ['c', 'd']]
    """
    load = [0] * shares
    members: list[list[int]] = [[] for _ in range(shares)]
    for place in sorted(range(len(items)), key=lambda i: -costs[i]):
        lightest = load.index(min(load))
        members[lightest].append(place)
        load[lightest] += costs[place]
    return [[items[i] for i in sorted(some)] for some in members if some]


def run_shares(task: Callable[[Share], Result], shares: Sequence[Share]) -> list[Result]:
    """Run a task on each share, each in a thread of its own, without gradients.

    One share is run right here. Under torch.inference_mode the threads are under it, too.
    """
    # a thread begins outside of inference mode, where tensors made inside cannot be written
    is_inference = torch.is_inference_mode_enabled()

    def run(share: Share) -> Result:
        with torch.inference_mode(is_inference), torch.no_grad():
            return task(share)

    if len(shares) == 1:
        return [run(shares[0])]
    return list(_pool(len(shares)).map(run, shares))


def _pool(workers: int) -> ThreadPoolExecutor:
    """So many threads of this process, made once."""
    with _making:
        return _made(os.getpid(), workers)


@lru_cache(maxsize=8)
def _made(process: int, workers: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a fork needs threads of its own
    # a thread takes the common number of torch threads when it first asks: all ask before one
    # changes its own, which changes the common one, too
    all_asked = threading.Barrier(workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="vocokernels")

    def settle(_: int) -> int:
        common = torch.get_num_threads()
        all_asked.wait()
        torch.set_num_threads(1)
        return common

    common = max(pool.map(settle, range(workers)))
    # by a thread that ends, as the number of the calling one may be another
    restoring = threading.Thread(target=torch.set_num_threads, args=(common,))
    restoring.start()
    restoring.join()
    return pool
