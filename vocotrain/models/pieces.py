"""Walking a large map in pieces that stay in the cache.

A pass over a map of gigabytes by one operation after the other reads and writes it each time. Here
a short chain of operations runs on a piece, then on the next, and threads take pieces of their own
(see `vocokernels.workers`). Results come in the order of the pieces, so that sums of them do not
depend on the number of threads. On an accelerator there is one piece, the whole.

Shape letters: B maps, M rows each (voxels or tokens), C channels.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from vocotrain.ops import run_shares, worker_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

PIECE_VALUES = 2**16
"""Values in a piece on a CPU: 256 KiB of float32, of which a core's cache holds a few. An operation
on a piece four times as large was measured to take fifteen times as long."""


class Piece(NamedTuple):
    """Some rows of one map, or all rows of some maps."""

    maps: slice
    rows: slice


def pieces(x_BMC: Tensor, *, channels: int) -> list[Piece]:
    """Pieces that cover a batch of maps.

    Args:
        x_BMC: The maps; their number, rows and device decide.
        channels: Of the widest result, intermediate ones included.
    """
    if x_BMC.device.type != "cpu":
        return [Piece(slice(None), slice(None))]
    maps, rows, _ = x_BMC.shape
    step = max(1, PIECE_VALUES // channels)
    together = max(1, step // rows)
    return [
        Piece(slice(b, b + together), slice(m, m + step))
        for b in range(0, maps, together)
        for m in range(0, rows, step)
    ]


def computing_type(x: Tensor) -> torch.dtype:
    """The type in which products of x are computed: autocast's where it is on, or x's own."""
    device = x.device.type
    # meta has no autocast
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return x.dtype


def for_each(task: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results of a task for each item, in order; neighbours go to the same thread.

    A single item is worked on right here.
    """
    workers = min(worker_count(), len(items))
    bounds = [len(items) * i // workers for i in range(workers + 1)]
    shares = [items[start:stop] for start, stop in itertools.pairwise(bounds)]
    found = run_shares(lambda share: [task(item) for item in share], shares)
    return [result for some in found for result in some]


def wide(x: Tensor) -> Tensor:
    """As float32 at least, the type to compute in; no copy if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
