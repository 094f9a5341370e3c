"""Voxels of a decoded block into the box of a read, transposed: disk is Z, Y, X, memory X, Y, Z.

Eight by eight voxels at a time, in registers. LLVM makes vector code of no loop that transposes, so
that part is written as the instructions that it is.

Odd choice: eight rows are transposed by interleaving row n with row n + 4, three times. Each time
is eight shuffles of whole registers, and no index is ever computed.

Shape letters: X Y Z voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # ships no types
from numba import types
from numba.extending import intrinsic

from vocodata.compiling import compiled
from vocodata.store.shard import CHUNK_VOX

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_VOX = 8
_LAYER_VOX = CHUNK_VOX * CHUNK_VOX
_ROWS = 16
"""Rows along x that are turned before they are copied: what fits the first cache."""
TURNED_VOX = _ROWS * _LAYER_VOX
_ADDRESS = ir.IntType(64)


def _turning(
    _typing: types.Type,
    sources: types.UniTuple,
    _offset: types.Type,
    _layer_bytes: types.Type,
    _target: types.Type,
    _column_bytes: types.Type,
    like: Any,  # noqa: ANN401 (numba's)
) -> tuple[Any, Any]:
    planes, bits = sources.count, like.dtype.bitwidth

    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        sources, offset, layer_bytes, target, column_bytes, _like = values
        addresses = [builder.extract_value(sources, plane) for plane in range(planes)]
        rows = []
        for layer in range(TILE_VOX):
            at = builder.add(offset, builder.mul(layer_bytes, _ADDRESS(layer)))
            parts = [_load(builder, builder.add(a, at), bits // planes) for a in addresses]
            rows.append(parts[0] if planes == 1 else _joined(builder, *parts))
        for _round in range(3):
            rows = [
                _mixed(builder, rows[n], rows[n + 4], half) for n in range(4) for half in (0, 4)
            ]
        for number, column in enumerate(rows):
            at = builder.add(target, builder.mul(column_bytes, _ADDRESS(number)))
            _store(builder, column, at)
        return context.get_dummy_value()

    return types.void(sources, *[types.int64] * 4, like), emit


def _copying(
    _typing: types.Type,
    _source: types.Type,
    _target: types.Type,
    like: Any,  # noqa: ANN401 (numba's)
) -> tuple[Any, Any]:
    bits = like.dtype.bitwidth

    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        _store(builder, _load(builder, values[0], bits), values[1])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, like), emit


_turn_tile: Any = intrinsic(_turning)
"""`_turn_tile(sources, offset, layer_bytes, target, column_bytes, like)`: eight voxels side by side
in each of eight layers become eight columns of eight.

`sources` is a tuple of addresses: of the voxels, or of their low and of their high bytes. `offset`
is where the first layer's eight begin, `target` the address of the first column; the steps are from
a layer and from a column to the next. `like` is an array of such voxels, unsigned."""
_copy_tile: Any = intrinsic(_copying)
"""`_copy_tile(source, target, like)`: eight voxels, from address to address."""


def _load(builder: ir.IRBuilder, address: ir.Value, bits: int) -> ir.Value:
    kind = ir.VectorType(ir.IntType(bits), TILE_VOX)
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder: ir.IRBuilder, row: ir.Value, address: ir.Value) -> None:
    builder.store(row, builder.inttoptr(address, row.type.as_pointer()), align=1)


def _joined(builder: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    """Voxels of their lower and upper halves, as a little-endian machine lays them.

    Halves are bytes. For labels, of one byte, numba compiles this too and never runs it.
    """
    order = [n // 2 + n % 2 * TILE_VOX for n in range(2 * TILE_VOX)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), 2 * TILE_VOX), order)
    wide = ir.VectorType(ir.IntType(2 * low.type.element.width), TILE_VOX)
    return builder.bitcast(builder.shuffle_vector(low, high, mask), wide)


def _mixed(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, first: int) -> ir.Value:
    """One of `one`, one of `other`, and so on, from the given voxel of both."""
    order = [first + n // 2 + n % 2 * TILE_VOX for n in range(TILE_VOX)]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), TILE_VOX), order)
    return builder.shuffle_vector(one, other, mask)


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
                _turn_tile(sources, at, _LAYER_VOX * source_bytes, target, column_bytes, out_XYZ)


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
                _copy_tile(source + k * width, target + (z + k) * width, out_XYZ)
