"""Shifted windows as boxes of the unpadded map.

Padding to whole windows, rolling by the shift, cutting into windows and hiding tokens of other
regions is, along each axis, nothing but cutting the axis into stretches that are contiguous in
the *original* map. Axis of 16, window 7:

    no shift    [0 .. 6] [7 .. 13] [14 15 + 5 pads]
    shift 3     [0 1 2] [3 .. 9] [10 .. 15 + 1 pad]

Attention lives inside the products of these stretches, the boxes. Boxes of equal make-up (same
extent, pads and place in the window) form a class, and lie side by side: a slab of the map.

The odd choice: a map axis shorter than the window makes the window shrink to the map, and
released weights then read the bias table as if the tokens were the *first ones of the full
window's flat order*, which is not where they are. That reading is kept (see `_codes`).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

Triple = tuple[int, int, int]


def as_triple(values: Sequence[int]) -> Triple:
    """Three numbers, as plain ones: operators and other people's models hand over lists."""
    x, y, z = values
    return int(x), int(y), int(z)


class Run(NamedTuple):
    """Equal stretches of one axis that follow each other."""

    start: int
    """First token."""
    repeats: int
    """Stretches."""
    real: int
    """Tokens in each."""
    pads: int
    """Pad tokens that follow in each."""
    offset: int
    """Place of the first token in its window."""


@dataclass(frozen=True, eq=False)
class BoxClass:
    """Boxes of one make-up: a slab of the map, cut in `count` boxes of `real` tokens.

    Entry (i, j) of the bias of two tokens is row `code[i] - code[j] + origin` of the table.
    """

    start: Triple
    count: Triple
    real: Triple
    code_n: Tensor
    """int64, a box's real tokens, x slowest."""
    code_p: Tensor
    """int64, a box's pad tokens; empty when it has none."""
    origin: int

    @property
    def tokens(self) -> int:
        """Real tokens of a box."""
        return self.code_n.numel()

    @property
    def boxes(self) -> int:
        """Boxes in one map."""
        return self.count[0] * self.count[1] * self.count[2]

    def table_rows(self) -> Tensor:
        """Row of the bias table for each query and key of a box, (n, n)."""
        return self.code_n[:, None] - self.code_n[None, :] + self.origin

    def pad_table_rows(self) -> Tensor:
        """Row of the bias table for each query and pad of a box, (n, p)."""
        return self.code_n[:, None] - self.code_p[None, :] + self.origin


def effective_window(map_xyz: Triple, window: Triple, shift: Triple) -> tuple[Triple, Triple]:
    """Window and shift as used: an axis no longer than the window is one window, unshifted."""
    fits = [length <= extent for length, extent in zip(map_xyz, window, strict=True)]
    used = tuple(m if f else w for m, w, f in zip(map_xyz, window, fits, strict=True))
    moved = tuple(0 if f else s for s, f in zip(shift, fits, strict=True))
    return (used[0], used[1], used[2]), (moved[0], moved[1], moved[2])


def axis_runs(length: int, window: int, shift: int) -> list[Run]:
    """Cut one axis into stretches, equal neighbours together.

    >>> axis_runs(16, 7, 3)
    [Run(start=0, repeats=1, real=3, pads=0, offset=4), Run(start=3, repeats=1, real=7, pads=0, \
offset=0), Run(start=10, repeats=1, real=6, pads=1, offset=0)]
    """
    if length <= window:
        return [Run(0, 1, length, 0, 0)]
    padded = -(-length // window) * window
    starts = [0, *range(shift, padded, window)] if shift else list(range(0, padded, window))
    stops = [*starts[1:], padded]
    runs: list[Run] = []
    for start, stop in zip(starts, stops, strict=True):
        real = min(stop, length) - start
        if real <= 0:
            # all pads: no token asks, so nobody sees them
            continue
        offset = window - shift if shift and start == 0 else 0
        run = Run(start, 1, real, stop - start - real, offset)
        if runs and run[2:] == runs[-1][2:]:
            runs[-1] = runs[-1]._replace(repeats=runs[-1].repeats + 1)
        else:
            runs.append(run)
    return runs


@lru_cache(maxsize=256)
def box_classes(map_xyz: Triple, window: Triple, shift: Triple) -> tuple[BoxClass, ...]:
    """All boxes of a map, by class; together they hold each token once.

    Args:
        map_xyz: Tokens along each axis of the unpadded map.
        window: Window of the bias table.
        shift: Shift of the windows, each less than its window.
    """
    used, moved = effective_window(map_xyz, window, shift)
    axes = [axis_runs(*axis) for axis in zip(map_xyz, used, moved, strict=True)]
    return tuple(_box_class(runs, used, window) for runs in itertools.product(*axes))


def bias_origin(window: Triple) -> int:
    """Row of the table for a token and itself."""
    x, y, z = window
    return ((x - 1) * (2 * y - 1) + y - 1) * (2 * z - 1) + z - 1


def table_length(window: Triple) -> int:
    """Rows of the bias table: one for each offset of two tokens of a window."""
    return (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)


def _box_class(runs: tuple[Run, ...], used: Triple, window: Triple) -> BoxClass:
    x, y, z = runs
    places = torch.cartesian_prod(
        *(torch.arange(run.offset, run.offset + run.real + run.pads, device="cpu") for run in runs)
    ).reshape(-1, 3)
    inside = torch.cartesian_prod(
        *(torch.arange(run.real + run.pads, device="cpu") < run.real for run in runs)
    ).reshape(-1, 3)
    code = _codes(places, used, window)
    is_real = inside.all(1)
    return BoxClass(
        start=(x.start, y.start, z.start),
        count=(x.repeats, y.repeats, z.repeats),
        real=(x.real, y.real, z.real),
        code_n=code[is_real],
        code_p=code[~is_real],
        origin=bias_origin(window),
    )


def _codes(places_n3: Tensor, used: Triple, window: Triple) -> Tensor:
    """Number of a place in a window such that differences count rows of the table."""
    if used != window:
        flat = (places_n3[:, 0] * used[1] + places_n3[:, 1]) * used[2] + places_n3[:, 2]
        plane = window[1] * window[2]
        places_n3 = torch.stack(
            [flat // plane, flat // window[2] % window[1], flat % window[2]], dim=1
        )
    return _flatten_offset(places_n3, window)


def _flatten_offset(offset_n3: Tensor, window: Triple) -> Tensor:
    wide_y, wide_z = 2 * window[1] - 1, 2 * window[2] - 1
    return (offset_n3[:, 0] * wide_y + offset_n3[:, 1]) * wide_z + offset_n3[:, 2]
