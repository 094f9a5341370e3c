"""Vector instructions for compiled code, where LLVM makes none of a loop.

Odd choice: eight rows are transposed by interleaving row n with row n + 4, three times. Each time
is eight shuffles of whole registers, and no index is ever computed.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]  # ships no types
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

TILE_VOX = 8
TALL_VOX = 16
ROW_VOX = 32
MERGED_VOX = 256


def has_bit_matrices() -> bool:
    """Whether this processor turns matrices of eight by eight bits, and numba compiles for it.

    Registers of 32 bytes are AVX's, which some that have the instruction lack (Intel's Tremont, and
    virtual machines that hide it). A variable that is set to nothing is set for numba, too.
    """
    of_numba = getattr(config, "CPU_NAME", ""), getattr(config, "CPU_FEATURES", "")
    has = llvmlite.binding.get_host_cpu_features()
    is_for_it = of_numba == (None, None) and bool(getattr(config, "ENABLE_AVX", False))
    return is_for_it and all(has.get(each, False) for each in ("gfni", "avx"))


HAS_BIT_MATRICES = has_bit_matrices()
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


def _turning_tall(
    _typing: types.Type,
    sources: types.UniTuple,
    _offset: types.Type,
    _layer_bytes: types.Type,
    _target: types.Type,
    _column_bytes: types.Type,
) -> tuple[Any, Any]:
    planes = sources.count

    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        sources, offset, layer_bytes, target, column_bytes = values
        if planes != 2:
            # numba compiles this for others too, and never runs it.
            return context.get_dummy_value()

        def layer(plane: int, number: int) -> ir.Value:
            at = builder.add(offset, builder.mul(layer_bytes, _ADDRESS(number)))
            address = builder.add(builder.extract_value(sources, plane), at)
            return _load(builder, address, 8, TALL_VOX)

        halves: tuple[list[ir.Value], list[ir.Value]] = ([], [])
        for number in range(TILE_VOX):
            # A register holds a layer and the one eight above it: what is done to the one half of
            # it is done to the other, and never crosses from half to half, which takes longest.
            low, high = (
                _chosen(
                    builder,
                    layer(plane, number),
                    layer(plane, number + TILE_VOX),
                    list(range(2 * TALL_VOX)),
                )
                for plane in range(2)
            )
            for half, rows in enumerate(halves):
                order = _interleaved(TALL_VOX, half * TILE_VOX)
                words = ir.VectorType(ir.IntType(16), TALL_VOX)
                rows.append(builder.bitcast(_chosen(builder, low, high, order), words))
        for half, rows in enumerate(halves):
            for number, column in enumerate(_transposed(builder, rows, TILE_VOX)):
                place = _ADDRESS(half * TILE_VOX + number)
                _store(builder, column, builder.add(target, builder.mul(column_bytes, place)))
        return context.get_dummy_value()

    return types.void(sources, *[types.int64] * 4), emit


def _transposed(builder: ir.IRBuilder, rows: list[ir.Value], lane: int) -> list[ir.Value]:
    """Eight registers, the n-th items of all side by side, in each half by itself."""
    for _round in range(3):
        pairs = [(n, first) for n in range(4) for first in (0, lane // 2)]
        rows = [
            _chosen(builder, rows[n], rows[n + 4], _interleaved(lane, first)) for n, first in pairs
        ]
    return rows


def _interleaved(lane: int, first: int) -> list[int]:
    """One of the one, one of the other, within both halves of registers of `lane` items a half."""
    half = lane // 2
    return [
        start + first + n // 2 + n % 2 * 2 * lane for start in (0, lane) for n in range(2 * half)
    ]


def _chosen(builder: ir.IRBuilder, one: ir.Value, other: ir.Value, order: list[int]) -> ir.Value:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    return builder.shuffle_vector(one, other, mask)


def _copying(
    _typing: types.Type,
    _source: types.Type,
    _source_step: types.Type,
    _target: types.Type,
    _target_step: types.Type,
    _columns: types.Type,
    like: Any,  # noqa: ANN401 (numba's)
    count: Any,  # noqa: ANN401 (numba's)
) -> tuple[Any, Any]:
    bits, voxels = like.dtype.bitwidth, count.literal_value

    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        source, source_step, target, target_step, columns, _like, _count = values
        with cgutils.for_range(builder, columns) as loop:
            at = builder.add(source, builder.mul(source_step, loop.index))
            into = builder.add(target, builder.mul(target_step, loop.index))
            _store(builder, _load(builder, at, bits, voxels), into)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, like, count), emit


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


def _splitting(
    _typing: types.Type,
    _source: types.Type,
    _target: types.Type,
    _plane_bytes: types.Type,
) -> tuple[Any, Any]:
    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        source, target, plane_bytes = values
        row = _load(builder, source, 8, ROW_VOX)
        for bit in range(8):
            to_sign = ir.Constant(row.type, [7 - bit] * ROW_VOX)
            is_set = builder.icmp_signed(
                "<", builder.shl(row, to_sign), ir.Constant(row.type, [0] * ROW_VOX)
            )
            at = builder.add(target, builder.mul(plane_bytes, _ADDRESS(bit)))
            _store(builder, builder.bitcast(is_set, ir.IntType(ROW_VOX)), at)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _merging(
    _typing: types.Type,
    _source: types.Type,
    _plane_bytes: types.Type,
    _target: types.Type,
) -> tuple[Any, Any]:
    def emit(context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        source, plane_bytes, target = values
        # From the highest bits to the lowest, as the instruction of `_bits_turned` wants them.
        rows = [
            _load(
                builder,
                builder.add(source, builder.mul(plane_bytes, _ADDRESS(bit))),
                8,
                MERGED_VOX // 8,
            )
            for bit in reversed(range(8))
        ]
        # Each holds eight bytes, one of each plane, four times: two of its lower half's voxels,
        # and two that are half of all voxels away.
        for number, row in enumerate(_transposed(builder, rows, TALL_VOX)):
            merged = _bits_turned(builder, row)
            for half in range(2):
                part = _chosen(
                    builder, merged, merged, [half * TALL_VOX + n for n in range(TALL_VOX)]
                )
                place = _ADDRESS(half * MERGED_VOX // 2 + number * TALL_VOX)
                _store(builder, part, builder.add(target, place))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), emit


def _bits_turned(builder: ir.IRBuilder, row: ir.Value) -> ir.Value:
    """Bit n of byte 7 - m of every eight bytes as bit m of byte n."""
    if HAS_BIT_MATRICES:
        signature = ir.FunctionType(row.type, [row.type, row.type, ir.IntType(8)])
        function = builder.module.declare_intrinsic(
            f"llvm.x86.vgf2p8affineqb.{8 * row.type.count}", (), signature
        )
        ones = ir.Constant(row.type, [1 << n % 8 for n in range(row.type.count)])
        return builder.call(function, [ones, row, ir.IntType(8)(0)])
    words = ir.VectorType(ir.IntType(64), row.type.count // 8)
    backwards = [n // 8 * 8 + 7 - n % 8 for n in range(row.type.count)]
    word = builder.bitcast(_chosen(builder, row, row, backwards), words)
    for step, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0xF0F0F0F0)):
        steps, masks = (ir.Constant(words, [n] * words.count) for n in (step, mask))
        moved = builder.and_(builder.xor(word, builder.lshr(word, steps)), masks)
        word = builder.xor(builder.xor(word, moved), builder.shl(moved, steps))
    return builder.bitcast(word, row.type)


def _counting(_typing: types.Type, word: types.Type) -> tuple[Any, Any]:
    def emit(_context: Any, builder: ir.IRBuilder, _: types.Type, values: list[ir.Value]) -> Any:  # noqa: ANN401 (numba's)
        return builder.ctpop(values[0])

    return word(word), emit


turn_tile: Any = intrinsic(_turning)
"""`turn_tile(sources, offset, layer_bytes, target, column_bytes, like)`: eight voxels side by side
in each of eight layers become eight columns of eight.

`sources` is a tuple of addresses: of the voxels, or of their low and of their high bytes. `offset`
is where the first layer's eight begin, `target` the address of the first column; the steps are from
a layer and from a column to the next. `like` is an array of such voxels, unsigned."""
turn_tall_tile: Any = intrinsic(_turning_tall)
"""`turn_tall_tile(sources, offset, layer_bytes, target, column_bytes)`: the same of 16 voxels side
by side in each of 16 layers, of two bytes, from their low and high ones; in 0.6 of the time."""
copy_columns: Any = intrinsic(prefer_literal=True)(_copying)
"""`copy_columns(source, source_step, target, target_step, columns, like, count)`: `count` voxels of
so many columns, from address to address; `count` is a number in the source."""
part_row: Any = intrinsic(_parting)
"""`part_row(source, is_mirrored, low, high)`: the low and the high bytes of 32 voxels side by side,
the last one first if mirrored."""
split_bits: Any = intrinsic(_splitting)
"""`split_bits(source, target, plane_bytes)`: 32 bytes side by side become four bytes in each of
eight planes, lowest bits first; `plane_bytes` is the step from plane to plane."""
merge_bits: Any = intrinsic(_merging)
"""`merge_bits(source, plane_bytes, target)`: what `split_bits` did, undone, of 256 bytes."""
count_bits: Any = intrinsic(_counting)
"""`count_bits(word)`: bits of an unsigned number that are set."""


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
