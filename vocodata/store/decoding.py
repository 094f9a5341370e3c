"""The compiled way from a chunk's bytes to voxels in their place.

Of a chunk made of streams (blosc_chunk.py) only the blocks that the box needs are decoded; any
other chunk is decoded whole by c-blosc2. Voxels are turned into place while they are warm
(turning.py).

Shape letters: X Y Z voxels, P bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from vocodata.compiling import compiled
from vocodata.store import native
from vocodata.store.bit_planes import merge_planes
from vocodata.store.blosc_chunk import (
    BIT_SHUFFLED,
    COPIED,
    FORMAT_SHIFT,
    HEADER_BYTES,
    LZ4_FORMAT,
    SHUFFLED,
    UNPARTED,
    VERSION,
    ZSTD_FORMAT,
)
from vocodata.store.shard import CHUNK_VOX
from vocodata.store.turning import scatter
from vocodata.store.vectors import TILE_VOX

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECODED_BYTES = 2 * 2 * CHUNK_VOX**3
"""Room for the streams of a chunk, and for the bytes of their bits."""
_LAYER_VOX = CHUNK_VOX * CHUNK_VOX

_decompress: Any = types.ExternalFunction(
    native.DECOMPRESS_SYMBOL,
    types.int32(types.uintp, types.uintp, types.int32, types.uintp, types.int32),
)
_zstd: Any = types.ExternalFunction(
    native.ZSTD_SYMBOL,
    types.uintp(types.uintp, types.uintp, types.uintp, types.uintp, types.uintp),
)
_lz4: Any = types.ExternalFunction(
    native.LZ4_SYMBOL, types.int32(types.uintp, types.uintp, types.int32, types.int32)
)


@compiled
def little(data: NDArray[np.uint8], at: int) -> Any:  # noqa: ANN401 (numba infers)
    """The unsigned little-endian number of four bytes."""
    return (
        np.int64(data[at])
        | np.int64(data[at + 1]) << 8
        | np.int64(data[at + 2]) << 16
        | np.int64(data[at + 3]) << 24
    )


@compiled
def place_chunk(
    data: NDArray[np.uint8],
    decoded_P: NDArray[np.uint8],
    turned: NDArray[Any],
    contexts: tuple[int, int],
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
) -> bool:
    """Decode a chunk, without its checksum, into the box; (x, y, z) is its corner there.

    Args and room as `gather.read_box` has them. Whether it could be decoded.
    """
    width = out_XYZ.itemsize
    if contexts[1] != 0 and _is_of_streams(data, width):
        return _place_streams(data, decoded_P, turned, contexts[1], out_XYZ, x, y, z)
    chunk_bytes = np.int32(CHUNK_VOX * _LAYER_VOX * width)
    got = _decompress(
        contexts[0], data.ctypes.data, np.int32(data.size), decoded_P.ctypes.data, chunk_bytes
    )
    if got != chunk_bytes:
        return False
    scatter((np.int64(decoded_P.ctypes.data),), CHUNK_VOX, turned, out_XYZ, x, y, z)
    return True


@compiled
def _is_of_streams(data: NDArray[np.uint8], width: int) -> bool:
    """Whether a chunk is blosc 1, in planes, by zstd or LZ4, its blocks eights of layers."""
    if data.size < HEADER_BYTES + 4 or data[0] != VERSION or data[3] != width:
        return False
    flags, block_bytes = data[2], little(data, 8)
    of_streams = flags >> FORMAT_SHIFT == ZSTD_FORMAT or flags >> FORMAT_SHIFT == LZ4_FORMAT
    in_bits = width == 2 and flags & (SHUFFLED | BIT_SHUFFLED) == BIT_SHUFFLED
    in_bytes = (width == 1 or flags & SHUFFLED != 0) and flags & BIT_SHUFFLED == 0
    in_planes = (in_bits or in_bytes) and flags & COPIED == 0
    chunk_bytes = CHUNK_VOX * _LAYER_VOX * width
    in_layers = block_bytes > 0 and block_bytes % (TILE_VOX * _LAYER_VOX * width) == 0
    fits: bool = little(data, 4) == chunk_bytes and chunk_bytes % max(block_bytes, 1) == 0
    return of_streams and in_planes and in_layers and fits


@compiled
def _place_streams(
    data: NDArray[np.uint8],
    decoded_P: NDArray[np.uint8],
    turned: NDArray[Any],
    zstd: int,
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
) -> bool:
    """Decode the blocks of a chunk that the box needs; whether they could be."""
    width = out_XYZ.itemsize
    block_bytes = little(data, 8)
    depth = block_bytes // (_LAYER_VOX * width)
    streams = 1 if data[2] & UNPARTED != 0 else width
    stream_bytes = block_bytes // streams
    if data.size < HEADER_BYTES + 4 * (CHUNK_VOX // depth):
        return False
    for first in range(0, CHUNK_VOX, depth):
        if z + first + depth <= 0 or z + first >= out_XYZ.shape[2]:
            continue
        at = little(data, HEADER_BYTES + 4 * (first // depth))
        low = high = np.int64(0)
        for stream in range(streams):
            size = little(data, at) if at + 4 <= data.size else np.int64(0)
            at += 4
            if size <= 0 or size > data.size - at:
                return False
            # A stream as long as its plane is the plane itself: it is read where it lies.
            plane = np.int64(data.ctypes.data) + at
            if size != stream_bytes:
                into = decoded_P[stream * stream_bytes : (stream + 1) * stream_bytes]
                if not _inflate(data[at : at + size], into, data[2] >> FORMAT_SHIFT, zstd):
                    return False
                plane = np.int64(into.ctypes.data)
            if stream == 0:
                low = plane
            high = plane + (2 - streams) * depth * _LAYER_VOX
            at += size
        is_in_bits = data[2] & BIT_SHUFFLED != 0
        _place_planes(low, high, is_in_bits, depth, decoded_P, turned, out_XYZ, x, y, z + first)
    return True


@compiled
def _place_planes(
    low: np.int64,
    high: np.int64,
    is_in_bits: bool,  # noqa: FBT001 (compiled functions take no keywords)
    depth: int,
    decoded_P: NDArray[np.uint8],
    turned: NDArray[Any],
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
) -> None:
    """A block into the box, from the addresses of its low and high bytes or of their bits."""
    if is_in_bits:
        block_vox = depth * _LAYER_VOX
        # Only the layers that lie in the box, in eights.
        first = max(0, -z) // TILE_VOX * TILE_VOX * _LAYER_VOX
        last = min(depth, -((z - out_XYZ.shape[2]) // TILE_VOX) * TILE_VOX) * _LAYER_VOX
        # The second half of the room: planes that were decoded lie in the first.
        target = np.int64(decoded_P.ctypes.data) + 2 * CHUNK_VOX * _LAYER_VOX
        merge_planes(low, block_vox // 8, target, first, last)
        merge_planes(high, block_vox // 8, target + block_vox, first, last)
        low, high = target, target + block_vox
    if out_XYZ.itemsize == 2:
        scatter((low, high), depth, turned, out_XYZ, x, y, z)
    else:
        scatter((low,), depth, turned, out_XYZ, x, y, z)


@compiled
def _inflate(stream: NDArray[np.uint8], into: NDArray[np.uint8], form: int, zstd: int) -> bool:
    """One stream into its plane."""
    if form == LZ4_FORMAT:
        done = _lz4(
            stream.ctypes.data, into.ctypes.data, np.int32(stream.size), np.int32(into.size)
        )
        return int(done) == into.size
    got: int = _zstd(
        np.uint64(zstd),
        into.ctypes.data,
        np.uint64(into.size),
        stream.ctypes.data,
        np.uint64(stream.size),
    )
    return got == np.uint64(into.size)
