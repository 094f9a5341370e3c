"""Voxels of a decoded block into the box of a read, transposed: disk is Z, Y, X, memory X, Y, Z.

Shape letters: X Y Z voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.compiling import compiled
from vocodata.store.shard import CHUNK_VOX
from vocodata.store.vectors import TILE_VOX, copy_tile, turn_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LAYER_VOX = CHUNK_VOX * CHUNK_VOX
_ROWS = 16
"""Rows along x that are turned before they are copied: what fits the first cache."""
TURNED_VOX = _ROWS * _LAYER_VOX


@compiled
def scatter(
    sources: tuple[np.int64, ...],
    depth: int,
    turned: NDArray[Any],
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
) -> None:
    """Copy the part of a block that lies in the box, transposed; (x, y, z) is its corner there.

    Some rows along x at a time: turned, all their layers, into a buffer that stays in the first
    cache, then copied as whole columns. Against a loop over four columns at once, reading a field
    takes 0.8 (LZ4) and 0.9 (zstd) of the time, decoders included.

    Args:
        sources: Address of the block's voxels, or of their low and of their high bytes.
        depth: Layers of the block, a multiple of eight.
        turned: Room for `TURNED_VOX` voxels.
        out_XYZ: The box.
        x: Of the block's corner in the box.
        y: The same.
        z: The same.
    """
    y_low, y_high = max(0, -y), min(CHUNK_VOX, out_XYZ.shape[1] - y)
    for first in range(y_low, y_high, _ROWS):
        last = min(first + _ROWS, y_high)
        _turn_rows(sources, depth, turned, out_XYZ, x, z, first, last)
        _copy_columns(depth, turned, out_XYZ, x, y, z, first, last)


@compiled
def _turn_rows(
    sources: tuple[np.int64, ...],
    depth: int,
    turned: NDArray[Any],
    out_XYZ: NDArray[Any],
    x: int,
    z: int,
    first: int,
    last: int,
) -> None:
    """Rows `first` to `last` along x into `turned` (Y, X, Z); whole tiles, so a bit more."""
    x_low, x_high = max(0, -x) // TILE_VOX * TILE_VOX, min(CHUNK_VOX, out_XYZ.shape[0] - x)
    z_low, z_high = max(0, -z) // TILE_VOX * TILE_VOX, min(depth, out_XYZ.shape[2] - z)
    width, source_bytes = out_XYZ.itemsize, out_XYZ.itemsize // len(sources)
    column_bytes = depth * width
    for k in range(z_low, z_high, TILE_VOX):
        for j in range(first, last):
            for i in range(x_low, x_high, TILE_VOX):
                at = ((k * CHUNK_VOX + j) * CHUNK_VOX + i) * source_bytes
                into = ((j - first) * CHUNK_VOX + i) * column_bytes + k * width
                target = np.int64(turned.ctypes.data) + into
                turn_tile(sources, at, _LAYER_VOX * source_bytes, target, column_bytes, out_XYZ)


@compiled
def _copy_columns(
    depth: int,
    turned: NDArray[Any],
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
    first: int,
    last: int,
) -> None:
    """What of `turned` lies in the box; the last tile of a column may overlap the one before."""
    x_low, x_high = max(0, -x), min(CHUNK_VOX, out_XYZ.shape[0] - x)
    z_low, z_high = max(0, -z), min(depth, out_XYZ.shape[2] - z)
    width, strides = out_XYZ.itemsize, out_XYZ.strides
    if z_high - z_low < TILE_VOX:
        for i in range(x_low, x_high):
            for j in range(first, last):
                for k in range(z_low, z_high):
                    column = ((j - first) * CHUNK_VOX + i) * depth
                    out_XYZ[x + i, y + j, z + k] = turned[column + k]
        return
    for i in range(x_low, x_high):
        for j in range(first, last):
            column = ((j - first) * CHUNK_VOX + i) * depth
            source = np.int64(turned.ctypes.data) + column * width
            target = np.int64(out_XYZ.ctypes.data) + (x + i) * strides[0] + (y + j) * strides[1]
            for tile in range(z_low, z_high, TILE_VOX):
                k = min(tile, z_high - TILE_VOX)
                copy_tile(source + k * width, target + (z + k) * width, out_XYZ)
