"""Fields a second of two processes at once, against one alone: nothing may be shared or locked.

What counts is what both read while both are reading. To wait until each has read as many as the
other would time the slower of the two, and on a shared machine one of them is always slowed by
something: then even processes that share nothing fall short of 2 (`Scaling.by_slower`). Such a pair
is measured beside the readers (`NOTHING_SHARED`), as what the machine itself gives.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.geometry import Size
from vocodata.store import open_store
from vocotrain.bench_loader.settings import CROPS
from vocotrain.bench_loader.volumes import CODECS, scan_id, store_path
from vocotrain.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

    Work = Callable[[], object]

NOTHING_SHARED = "copying in its own cache"
_OWN_CACHE_BYTES = 128 << 10
"""With its copy, a quarter of a core's second cache at most."""
_COPIES = 100
"""As long as a quick read, about."""
_TURNS = 5
_PAIRS = 5
"""Pairs of processes: where the pages of one happen to lie is a tenth of what it reads."""
_PATIENCE_S = 300


@dataclass(frozen=True)
class Scaling:
    """What two processes do at once over what one does alone.

    Attributes:
        together: Median of the turns.
        least: Of the turns.
        most: Of the turns.
        by_slower: Median of what it would be if each had to do as much as the other.
    """

    together: float
    least: float
    most: float
    by_slower: float


class Turn(NamedTuple):
    """The same in one turn."""

    together: float
    by_slower: float


def scaling(folder: Path, size: Size, volumes: int, *, window_s: float) -> dict[str, Scaling]:
    """How many times as much two processes do at once as one does alone, by what they do.

    In each turn of some pairs of processes the first works alone, then both at once, then the
    second alone, each time over the same boxes of a volume of its own.

    Args:
        folder: Where the stores are.
        size: Of their volumes.
        volumes: How many there are.
        window_s: How long they work each time.

    Returns:
        For each codec, and for `NOTHING_SHARED`.

    Raises:
        BenchmarkError: A process died or hangs.
    """
    pairs = [_turns(folder, size, volumes, window_s) for _ in range(_PAIRS)]
    return {
        work: _summed(list(itertools.chain.from_iterable(pair[work] for pair in pairs)))
        for work in (*CODECS, NOTHING_SHARED)
    }


def _summed(turns: list[Turn]) -> Scaling:
    together, by_slower = zip(*turns, strict=True)
    return Scaling(
        statistics.median(together), min(together), max(together), statistics.median(by_slower)
    )


def _turns(folder: Path, size: Size, volumes: int, window_s: float) -> dict[str, list[Turn]]:
    """The turns of one pair of processes."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for seed in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=_serve, args=(theirs, folder, size, volumes, seed))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    turns: dict[str, list[Turn]] = {work: [] for work in (*CODECS, NOTHING_SHARED)}
    try:
        for work in turns:
            _per_second(pipes, work, 0)
        for _, work in itertools.product(range(_TURNS), turns):
            turns[work].append(turn(pipes, work, window_s))
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(10)
            if child.is_alive():
                child.kill()
                child.join()
    return turns


def turn(pipes: list[Connection], work: str, window_s: float) -> Turn:
    """What two processes do at once, over what they do alone on average."""
    (first,) = _per_second(pipes[:1], work, window_s)
    both = _per_second(pipes, work, window_s)
    (second,) = _per_second(pipes[1:], work, window_s)
    return Turn(2 * sum(both) / (first + second), 4 * min(both) / (first + second))


def _per_second(pipes: list[Connection], work: str, window_s: float) -> list[float]:
    """What each of these processes does in a second, when all of them work for so long."""
    done = []
    try:
        for pipe in pipes:
            pipe.send((work, window_s))
        for pipe in pipes:
            if not pipe.poll(_PATIENCE_S):
                raise TimeoutError
            done.append(pipe.recv())
    except (EOFError, OSError) as error:
        msg = f"A process of two that are compared with one ({work}) died or hangs."
        raise BenchmarkError(msg) from error
    return done


def _serve(pipe: Connection, folder: Path, size: Size, volumes: int, seed: int) -> None:
    """Work for as long as asked for, and answer how often a second, until nobody asks any more."""
    scan = scan_id(seed % volumes)
    readers = {codec: _reader(folder, codec, scan, size, seed) for codec in CODECS}
    while True:
        try:
            name, window_s = pipe.recv()
        except EOFError:
            return
        work = readers[name]() if name in readers else _copier()
        done, began = 0, time.perf_counter()
        while True:
            work()
            done, passed = done + 1, time.perf_counter() - began
            if passed >= window_s:
                break
        pipe.send(done / passed)


def _reader(folder: Path, codec: str, scan: str, size: Size, seed: int) -> Callable[[], Work]:
    """What starts to read random fields, always the same ones, one at a call."""
    store, field = open_store(store_path(folder, codec)), CROPS["field"]
    spare = [n - c + 1 for n, c in zip(size, field, strict=True)]

    def started() -> Work:
        rng = np.random.default_rng(seed)

        def work() -> object:
            return store.read(scan, Size(*(int(rng.integers(n)) for n in spare)), field)

        return work

    return started


def _copier() -> Work:
    source, target = np.zeros((2, _OWN_CACHE_BYTES), np.uint8)

    def work() -> None:
        for _ in range(_COPIES):
            np.copyto(target, source)

    return work
