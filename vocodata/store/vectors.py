"""Vector instructions for compiled code, where LLVM makes none of a loop.

Odd choice: eight rows are transposed by interleaving row n with row n + 4, three times. Each time
is eight shuffles of whole registers, and no index is ever computed.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]  # ships no types
from numba import types
from numba.extending import intrinsic

TILE_VOX = 8
ROW_VOX = 32
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


def _parting(
    _typing: types.Type,
    _source: types.Type,
    _is_mirrored: types.Type,
    _low: types.Type,
    _high: types.Type,
) -> tuple[Any, Any]:
    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        source, is_mirrored, low, high = values
        voxels = _load(builder, source, 16, ROW_VOX)
        order = ir.Constant(ir.VectorType(ir.IntType(32), ROW_VOX), list(reversed(range(ROW_VOX))))
        mirrored = builder.shuffle_vector(voxels, voxels, order)
        voxels = builder.select(is_mirrored, mirrored, voxels)
        bytes_type = ir.VectorType(ir.IntType(8), ROW_VOX)
        eight = ir.Constant(voxels.type, [8] * ROW_VOX)
        _store(builder, builder.trunc(voxels, bytes_type), low)
        _store(builder, builder.trunc(builder.lshr(voxels, eight), bytes_type), high)
        return context.get_dummy_value()

    return types.void(types.int64, types.boolean, types.int64, types.int64), emit


turn_tile: Any = intrinsic(_turning)
"""`turn_tile(sources, offset, layer_bytes, target, column_bytes, like)`: eight voxels side by side
in each of eight layers become eight columns of eight.

`sources` is a tuple of addresses: of the voxels, or of their low and of their high bytes. `offset`
is where the first layer's eight begin, `target` the address of the first column; the steps are from
a layer and from a column to the next. `like` is an array of such voxels, unsigned."""
copy_tile: Any = intrinsic(_copying)
"""`copy_tile(source, target, like)`: eight voxels, from address to address."""
part_row: Any = intrinsic(_parting)
"""`part_row(source, is_mirrored, low, high)`: the low and the high bytes of 32 voxels side by side,
the last one first if mirrored."""


def _load(builder: ir.IRBuilder, address: ir.Value, bits: int, count: int = TILE_VOX) -> ir.Value:
    kind = ir.VectorType(ir.IntType(bits), count)
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
