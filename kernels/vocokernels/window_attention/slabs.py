"""Boxes in and out of a map: a class of boxes is a slab, a part of a slab fits the cache.

Shapes: B maps, X Y Z tokens, W numbers of a token; N boxes of a part, n tokens of a box and m keys
(n, or n + 1 with a sink).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vocokernels.window_attention.boxes import BoxClass

# numbers of one of q, k, v gathered at once: larger buffers cost more in fresh memory than
# they save in calls
PART_NUMBERS = 2**18


class Part(NamedTuple):
    """Some boxes of a class: layers of boxes along x, of some maps."""

    maps: slice
    layers: slice
    boxes: int


def parts(kind: BoxClass, maps: int, channels: int, *, at_least: int = 1) -> Iterator[Part]:
    """Cut a class into parts of about PART_NUMBERS, and into some at least where it can be."""
    per_layer = kind.count[1] * kind.count[2]
    layers = kind.count[0]
    room = max(1, PART_NUMBERS // (per_layer * kind.tokens * channels))
    room = min(room, -(-maps * layers // at_least))
    if room >= layers:
        step = room // layers
        for start in range(0, maps, step):
            stop = min(start + step, maps)
            yield Part(slice(start, stop), slice(0, layers), (stop - start) * layers * per_layer)
        return
    for one in range(maps):
        for start in range(0, layers, room):
            stop = min(start + room, layers)
            yield Part(slice(one, one + 1), slice(start, stop), (stop - start) * per_layer)


def gather(
    map_BXYZW: Tensor,
    kind: BoxClass,
    part: Part,
    *,
    dtype: torch.dtype,
    sink_W: Tensor | None = None,
) -> Tensor:
    """Boxes of a map as rows, (N, m, W), the sink as the last token; always a copy."""
    width = map_BXYZW.shape[4]
    keys = kind.tokens if sink_W is None else kind.tokens + 1
    rows_NmW = map_BXYZW.new_empty(part.boxes, keys, width, dtype=dtype)
    if sink_W is not None:
        rows_NmW[:, -1] = sink_W
    _boxes(rows_NmW, kind, part).copy_(_slab(map_BXYZW, kind, part))
    return rows_NmW


def rows_of(
    map_BXYZW: Tensor,
    kind: BoxClass,
    part: Part,
    *,
    dtype: torch.dtype,
    sink_W: Tensor | None = None,
) -> Tensor:
    """As `gather`, to be read only: a view where a box is the whole map and has no sink."""
    is_whole = kind.count == (1, 1, 1) and kind.real == map_BXYZW.shape[1:4]
    is_usable = map_BXYZW.dtype == dtype and map_BXYZW.stride(4) == 1
    if is_whole and is_usable and sink_W is None:
        return map_BXYZW[part.maps].flatten(1, 3)
    return gather(map_BXYZW, kind, part, dtype=dtype, sink_W=sink_W)


def scatter(map_BXYZW: Tensor, kind: BoxClass, part: Part, rows_NmW: Tensor) -> None:
    """Write rows back into the map, without their sink."""
    _slab(map_BXYZW, kind, part).copy_(_boxes(rows_NmW, kind, part))


def _slab(map_BXYZW: Tensor, kind: BoxClass, part: Part) -> Tensor:
    """View of a part in a map: map, box along x, y, z, token along x, y, z, number."""
    view = map_BXYZW[part.maps]
    for axis in (2, 1, 0):
        start, count, real = kind.start[axis], kind.count[axis], kind.real[axis]
        view = view.narrow(axis + 1, start, count * real)
        view = torch.unflatten(view, axis + 1, (count, real))
    return view.permute(0, 1, 3, 5, 2, 4, 6, 7)[:, part.layers]


def _boxes(rows_NmW: Tensor, kind: BoxClass, part: Part) -> Tensor:
    """View of rows with the axes of a slab."""
    layers = part.layers.stop - part.layers.start
    view = torch.unflatten(rows_NmW[:, : kind.tokens], 1, kind.real)
    return torch.unflatten(view, 0, (-1, layers, kind.count[1], kind.count[2]))
