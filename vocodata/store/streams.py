"""The streams of a chunk, compressed by zstd where they will lie.

Each is preceded by its length, and is as long as its plane where it is the plane itself.

Shape letters: V voxels of a block, as bytes or as bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from vocodata.compiling import compiled
from vocodata.store import native
from vocodata.store.bit_planes import (
    BITS,
    BLOCK_VOX,
    PLANE_BYTES,
    WORTHWHILE_SHARE,
    noisy_planes,
)
from vocodata.store.blosc_chunk import (
    FRAME_BYTES_FROM,
    FRAME_START,
    RAW_BLOCK_BYTES,
    ZstdContexts,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

STREAM_ROOM = 4 + BLOCK_VOX
"""Bytes of the longest stream with its length."""

_compress: Any = types.ExternalFunction(
    native.COMPRESS_SYMBOL,
    types.uintp(types.uintp, types.uintp, types.uintp, types.uintp, types.uintp),
)


@compiled
def put_bits(
    bits_V: NDArray[np.uint8], contexts: ZstdContexts, out: NDArray[np.uint8]
) -> tuple[int, int]:
    """Bits of low bytes as a stream, with its length; where it ends, and how many are noise."""
    raw_bytes = noisy_planes(bits_V) * PLANE_BYTES
    return _put_behind_noise(bits_V, raw_bytes, contexts.low, out), raw_bytes


@compiled
def _put_behind_noise(
    bits_V: NDArray[np.uint8], raw_bytes: int, context: int, out: NDArray[np.uint8]
) -> int:
    """Bits as a frame in which planes of noise lie as they are, with its length; where it ends."""
    if raw_bytes == 0:
        return put_stream(bits_V, context, out)
    if raw_bytes < BITS * PLANE_BYTES:
        # The frame of the rest is made where its blocks will lie; its start is overwritten.
        frame, tail = 4 + RAW_BLOCK_BYTES + raw_bytes, bits_V[raw_bytes:]
        most, size = np.uint64(tail.size - RAW_BLOCK_BYTES), np.uint64(tail.size)
        got = _compress(np.uint64(context), out.ctypes.data + frame, most, tail.ctypes.data, size)
        # Too little room is a fault to zstd, and faults are sizes beyond any room.
        if got <= most and _is_start(out[frame:]):
            stream_bytes = RAW_BLOCK_BYTES + raw_bytes + int(got)
            if stream_bytes < WORTHWHILE_SHARE * bits_V.size:
                _put_frame_start(bits_V, raw_bytes, out, 4)
                put_number(out, 0, stream_bytes)
                return 4 + stream_bytes
    return _put_raw(bits_V, out)


@compiled
def _put_frame_start(
    bits_V: NDArray[np.uint8], raw_bytes: int, out: NDArray[np.uint8], at: int
) -> None:
    """The start of a frame of all the bits, and its first block: those that are noise."""
    for byte in range(len(FRAME_START)):
        out[at + byte] = FRAME_START[byte]
    at += len(FRAME_START)
    whole_bytes = bits_V.size - FRAME_BYTES_FROM
    out[at], out[at + 1] = whole_bytes & 0xFF, whole_bytes >> 8
    at += 2
    for byte in range(RAW_BLOCK_BYTES):
        out[at + byte] = (raw_bytes << 3 >> (8 * byte)) & 0xFF
    at += RAW_BLOCK_BYTES
    out[at : at + raw_bytes] = bits_V[:raw_bytes]


@compiled
def _is_start(frame: NDArray[np.uint8]) -> bool:
    differing = 0
    for byte in range(len(FRAME_START)):
        differing += frame[byte] != FRAME_START[byte]
    return differing == 0


@compiled
def put_stream(plane_V: NDArray[np.uint8], context: int, out: NDArray[np.uint8]) -> int:
    """A stream and its length at the start of `out`, compressed or as it is; where it ends."""
    size = np.uint64(plane_V.size)
    got: int = _compress(np.uint64(context), out.ctypes.data + 4, size, plane_V.ctypes.data, size)
    # Too little room is a fault to zstd, and faults are sizes beyond any room.
    if got < WORTHWHILE_SHARE * plane_V.size:
        put_number(out, 0, got)
        return 4 + int(got)
    return _put_raw(plane_V, out)


@compiled
def _put_raw(plane_V: NDArray[np.uint8], out: NDArray[np.uint8]) -> int:
    """A stream that is the plane itself."""
    out[4 : 4 + plane_V.size] = plane_V
    put_number(out, 0, plane_V.size)
    return 4 + int(plane_V.size)


@compiled
def put_number(out: NDArray[np.uint8], at: int, number: int) -> None:
    """Four bytes, little-endian."""
    for byte in range(4):
        out[at + byte] = (number >> (8 * byte)) & 0xFF
