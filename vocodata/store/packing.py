"""The chunks of a shard of two-byte voxels, a row at a time: parted, compressed by zstd, sealed.

What `shard.encode_shard` does chunk by chunk and `blosc_chunk.buffer` stream by stream, with the
same bytes, compiled: streams are compressed where they will lie, mirrored scans are read as they
lie, and Python's lock is free for as long as it takes. A fifth of writing a shard is saved.

Shape letters: Z Y X voxels, B blocks, P planes, V voxels of a block, C chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import types

from vocodata.compiling import compiled
from vocodata.store import native
from vocodata.store.bit_planes import (
    DOUBTFUL_BYTES,
    HIGH_DOUBTFUL_BYTES,
    cost_of_bits,
    cost_of_bytes,
    cost_of_high_bits,
    cost_of_high_bytes,
    entropy_bytes,
    foretold_bytes,
    is_matchless,
    split_planes,
)
from vocodata.store.blosc_chunk import (
    BIT_SHUFFLED,
    BLOCKS,
    COPIED,
    FORMAT_SHIFT,
    HEADER_BYTES,
    SHUFFLED,
    VERSION,
    ZSTD_FORMAT,
    ZstdContexts,
    zstd_contexts,
)
from vocodata.store.parting import part_rows
from vocodata.store.streams import STREAM_ROOM, put_bits, put_number, put_stream
from vocodata.store.vectors import ROW_VOX

if TYPE_CHECKING:
    from numpy.typing import NDArray

CAN_PACK = native.HAS_ENCODER and native.HAS_CRC32C
"""Whether the libraries that this needs are there."""
_SIDE = ROW_VOX
_CHUNK_BYTES = 2 * _SIDE**3
_CRC_BYTES = 4
# The streams of a chunk that would not shrink, before it is copied instead.
_MOST_BYTES = HEADER_BYTES + BLOCKS * (4 + 2 * 4) + _CHUNK_BYTES + _CRC_BYTES

_crc32c: Any = types.ExternalFunction(native.CRC32C_SYMBOL, types.uint32(types.uintp, types.uintp))


class _Room(NamedTuple):
    """Where a chunk is worked on.

    Attributes:
        bits_BPV: Its bits.
        streams: For each block, way (in bytes, in bits) and plane, a stream with its length.
        ends: Their bytes; 0 of one that was not made.
        dearer: What a block's low bytes cost more in bits.
    """

    bits_BPV: NDArray[np.uint8]  # noqa: N815 (shape letters)
    streams: NDArray[np.uint8]
    ends: NDArray[np.int64]
    dearer: NDArray[np.int64]


def _room() -> _Room:
    return _Room(
        np.empty((BLOCKS, 2, _SIDE**3 // BLOCKS), np.uint8),
        np.empty((BLOCKS, 2, 2, STREAM_ROOM), np.uint8),
        np.empty((BLOCKS, 2, 2), np.int64),
        np.empty(BLOCKS, np.int64),
    )


def packed(data_ZYX: NDArray[Any], fill: int, index_C2: NDArray[np.uint64]) -> list[bytes]:
    """The chunks of a shard, one after the other, in pieces.

    Args:
        data_ZYX: int16 or uint16, any strides.
        fill: Value of voxels outside the array and of chunks that are left out.
        index_C2: Filled with first byte and bytes of each chunk that is there.
    """
    contexts = zstd_contexts()
    chunk = np.empty((_SIDE,) * 3, np.uint16)
    planes = np.empty((BLOCKS, 2, _SIDE**3 // BLOCKS), np.uint8)
    room = _room()
    # A row of chunks at a time: room for a whole shard that does not shrink would be a scan's.
    rows_ZY = [-(-side // _SIDE) for side in data_ZYX.shape[:2]]
    index_RC2 = index_C2.reshape(rows_ZY[0] * rows_ZY[1], -(-data_ZYX.shape[2] // _SIDE), 2)
    out = np.empty(index_RC2.shape[1] * _MOST_BYTES, np.uint8)
    parts: list[bytes] = []
    before = 0
    for (z, y), index in zip(np.ndindex(*rows_ZY), index_RC2, strict=True):
        row_ZYX = data_ZYX[z * _SIDE : (z + 1) * _SIDE, y * _SIDE : (y + 1) * _SIDE].view("<u2")
        end = _pack(row_ZYX, int(fill) & 0xFFFF, contexts, before, chunk, planes, room, index, out)
        parts.append(out[:end].tobytes())
        before += end
    return parts


@compiled
def _pack(
    row_ZYX: NDArray[np.uint16],
    fill: int,
    contexts: ZstdContexts,
    before: int,
    chunk_ZYX: NDArray[np.uint16],
    planes_BPV: NDArray[np.uint8],
    room: _Room,
    index_C2: NDArray[np.uint64],
    out: NDArray[np.uint8],
) -> int:
    """Fill `out` with a row of chunks along x, return its end.

    `before` is the bytes of the shard so far; `chunk_ZYX`, `planes_BPV` and `room` are there to
    work in.
    """
    end = 0
    for number in range(len(index_C2)):
        part_ZYX = row_ZYX[:, :, number * _SIDE : (number + 1) * _SIDE]
        if not _is_all(part_ZYX, fill):
            _part(part_ZYX, fill, chunk_ZYX, planes_BPV)
            size = _pack_chunk(planes_BPV, room, contexts, out[end:])
            index_C2[number, 0], index_C2[number, 1] = before + end, size
            end += size
    return end


@compiled
def _is_all(part_ZYX: NDArray[np.uint16], value: int) -> bool:
    for z in range(part_ZYX.shape[0]):
        for y in range(part_ZYX.shape[1]):
            for x in range(part_ZYX.shape[2]):
                if part_ZYX[z, y, x] != value:
                    return False
    return True


@compiled
def _part(
    part_ZYX: NDArray[np.uint16],
    fill: int,
    chunk_ZYX: NDArray[np.uint16],
    planes_BPV: NDArray[np.uint8],
) -> None:
    """The planes of a chunk, what lies outside the array filled."""
    depth, rows, side = part_ZYX.shape
    if depth < _SIDE or rows < _SIDE:
        planes_BPV[:, 0], planes_BPV[:, 1] = fill & 0xFF, fill >> 8
    if side == _SIDE and abs(part_ZYX.strides[2]) == part_ZYX.itemsize:
        part_rows(part_ZYX, planes_BPV)
        return
    for z in range(depth):
        for y in range(rows):
            for x in range(side):
                chunk_ZYX[z, y, x] = part_ZYX[z, y, x]
            for x in range(side, _SIDE):
                chunk_ZYX[z, y, x] = fill
    part_rows(chunk_ZYX[:depth, :rows], planes_BPV)


@compiled
def _pack_chunk(
    planes_BPV: NDArray[np.uint8],
    room: _Room,
    contexts: ZstdContexts,
    out: NDArray[np.uint8],
) -> int:
    """One chunk with its checksum at the start of `out`; its bytes."""
    is_in_bits = _are_low_bits_cheaper(planes_BPV, room, contexts)
    if is_in_bits:
        is_in_bits = _are_high_bits_no_dearer(planes_BPV, room, contexts)
    way = int(is_in_bits)
    end = HEADER_BYTES + 4 * BLOCKS
    for block in range(BLOCKS):
        put_number(out, HEADER_BYTES + 4 * block, end)
        if room.ends[block, way, 0] == 0:
            _try_low(planes_BPV, room, contexts, block, way)
        if room.ends[block, way, 1] == 0:
            _try_high(planes_BPV, room, contexts, block, way)
        for plane in range(2):
            size = room.ends[block, way, plane]
            out[end : end + size] = room.streams[block, way, plane, :size]
            end += size
    flags = ZSTD_FORMAT << FORMAT_SHIFT | (BIT_SHUFFLED if is_in_bits else SHUFFLED)
    if end > HEADER_BYTES + _CHUNK_BYTES:
        flags, end = COPIED, HEADER_BYTES + _CHUNK_BYTES
        for block in range(BLOCKS):
            at = HEADER_BYTES + block * (_CHUNK_BYTES // BLOCKS)
            for voxel in range(planes_BPV.shape[2]):
                out[at + 2 * voxel] = planes_BPV[block, 0, voxel]
                out[at + 2 * voxel + 1] = planes_BPV[block, 1, voxel]
    out[0], out[1], out[2], out[3] = VERSION, 1, flags, 2
    put_number(out, 4, _CHUNK_BYTES)
    put_number(out, 8, _CHUNK_BYTES // BLOCKS if flags != COPIED else _CHUNK_BYTES)
    put_number(out, 12, end)
    put_number(out, end, _crc32c(out.ctypes.data, np.uint64(end)))
    return end + _CRC_BYTES


@compiled
def _are_low_bits_cheaper(
    planes_BPV: NDArray[np.uint8], room: _Room, contexts: ZstdContexts
) -> bool:
    """Low bytes both ways, of the second block only if the first leaves a doubt."""
    room.ends[:] = 0
    more = 0
    for block in range(BLOCKS):
        split_planes(planes_BPV[block], room.bits_BPV[block])
        if abs(more) < DOUBTFUL_BYTES:
            more += _dearer_low(planes_BPV, room, contexts, block)
    return more < 0


@compiled
def _are_high_bits_no_dearer(
    planes_BPV: NDArray[np.uint8], room: _Room, contexts: ZstdContexts
) -> bool:
    """Whether bits are still cheaper if high bytes count; those are tried only if in doubt."""
    over = 0
    for block in range(BLOCKS):
        _try_high(planes_BPV, room, contexts, block, 1)
        over += room.ends[block, 1, 1] - 4 - entropy_bytes(planes_BPV[block, 1])
    if over < HIGH_DOUBTFUL_BYTES * BLOCKS:
        return True
    more = 0
    for block in range(BLOCKS):
        more += _dearer_low(planes_BPV, room, contexts, block)
        _try_high(planes_BPV, room, contexts, block, 0)
        more += cost_of_high_bits(room.ends[block, 1, 1] - 4)
        more -= cost_of_high_bytes(room.ends[block, 0, 1] - 4)
    return more < 0


@compiled
def _dearer_low(
    planes_BPV: NDArray[np.uint8], room: _Room, contexts: ZstdContexts, block: int
) -> int:
    """What a block's low bytes cost more in bits."""
    if room.ends[block, 1, 0] == 0:
        raw_bytes = _try_low(planes_BPV, room, contexts, block, 1)
        if is_matchless(room.bits_BPV[block, 0], raw_bytes):
            in_bytes = foretold_bytes(planes_BPV[block, 0])
        else:
            _try_low(planes_BPV, room, contexts, block, 0)
            in_bytes = room.ends[block, 0, 0] - 4
        in_bits = cost_of_bits(room.ends[block, 1, 0] - 4, raw_bytes)
        room.dearer[block] = in_bits - cost_of_bytes(in_bytes)
    return int(room.dearer[block])


@compiled
def _try_low(
    planes_BPV: NDArray[np.uint8], room: _Room, contexts: ZstdContexts, block: int, way: int
) -> int:
    """The stream of low bytes, in bytes (way 0) or in bits (way 1); how many of those are noise."""
    stream, raw_bytes = room.streams[block, way, 0], 0
    if way == 1:
        end, raw_bytes = put_bits(room.bits_BPV[block, 0], contexts, stream)
    else:
        end = put_stream(planes_BPV[block, 0], contexts.low, stream)
    room.ends[block, way, 0] = end
    return raw_bytes


@compiled
def _try_high(
    planes_BPV: NDArray[np.uint8], room: _Room, contexts: ZstdContexts, block: int, way: int
) -> None:
    """The stream of high bytes."""
    plane_V = room.bits_BPV[block, 1] if way == 1 else planes_BPV[block, 1]
    context = contexts.high_bits if way == 1 else contexts.high
    room.ends[block, way, 1] = put_stream(plane_V, context, room.streams[block, way, 1])
