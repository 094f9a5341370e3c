"""The compiled inner loop of a read: bytes of a shard into a box of voxels.

For each row of chunks along x: one `pread` for chunks that lie side by side, then for each chunk
its checksum and its voxels. Of a chunk made of streams (blosc_chunk.py) only the blocks that the
box needs are decoded; any other chunk is decoded whole by c-blosc2. Voxels are turned into place
while they are warm (turning.py). numba keeps the machine code on disk, since the C functions are
known to it by name (native.py).

Shape letters: X Y Z voxels, C chunks along an axis, P bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from vocodata.compiling import compiled
from vocodata.store import native
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
from vocodata.store.shard import CHUNK_VOX, CRC_BYTES
from vocodata.store.turning import scatter
from vocodata.store.vectors import TILE_VOX

if TYPE_CHECKING:
    from numpy.typing import NDArray

OK, SHORT_READ, BAD_CRC, BAD_CHUNK = 0, 1, 2, 3
_LAYER_VOX = CHUNK_VOX * CHUNK_VOX

_pread: Any = types.ExternalFunction(
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)
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
_crc32c: Any = types.ExternalFunction(native.CRC32C_SYMBOL, types.uint32(types.uintp, types.uintp))


@compiled
def read_box(
    descriptor: int,
    offset_CCC: NDArray[np.int64],
    bytes_CCC: NDArray[np.int64],
    start_XYZ: NDArray[np.int64],
    out_XYZ: NDArray[Any],
    fill: Any,  # noqa: ANN401 (one type per voxel width)
    raw: NDArray[np.uint8],
    decoded_P: NDArray[np.uint8],
    turned: NDArray[Any],
    contexts: tuple[int, int],
    check_crc: bool,  # noqa: FBT001 (compiled functions take no keywords)
) -> tuple[int, int]:
    """Fill `out_XYZ` with the box of a shard at `start_XYZ`, which lies inside the volume.

    Args:
        descriptor: Of the open shard.
        offset_CCC: First byte of each chunk (Z, Y, X order); negative where absent.
        bytes_CCC: Bytes of each chunk with its checksum.
        start_XYZ: First voxel of the box.
        out_XYZ: What to fill; unsigned, as wide as a voxel, voxels along z side by side.
        fill: Bits of the fill value.
        raw: Room for a row of compressed chunks.
        decoded_P: Room for one chunk.
        turned: Room for `TURNED_VOX` voxels.
        contexts: Addresses of this thread's decompression contexts: c-blosc2's, and zstd's or 0
            where streams cannot be decoded one by one.
        check_crc: Whether to compare checksums.

    Returns:
        (fault, number of the chunk at fault in C order); fault is `OK` or one of its neighbours.
    """
    side = CHUNK_VOX
    x0, y0, z0 = start_XYZ
    x1, y1, z1 = x0 + out_XYZ.shape[0], y0 + out_XYZ.shape[1], z0 + out_XYZ.shape[2]
    last = (x1 - 1) // side
    for cz in range(z0 // side, (z1 - 1) // side + 1):
        for cy in range(y0 // side, (y1 - 1) // side + 1):
            read_to = x0 // side
            base = np.int64(0)
            for cx in range(x0 // side, last + 1):
                number = (cz * offset_CCC.shape[1] + cy) * offset_CCC.shape[2] + cx
                offset, size = offset_CCC[cz, cy, cx], bytes_CCC[cz, cy, cx]
                x, y, z = cx * side - x0, cy * side - y0, cz * side - z0
                if offset < 0:
                    _fill_chunk(out_XYZ, fill, x, y, z)
                    read_to = cx + 1
                    continue
                if read_to <= cx:
                    base, end = offset, offset + size
                    read_to = cx + 1
                    while read_to <= last and offset_CCC[cz, cy, read_to] == end:
                        end += bytes_CCC[cz, cy, read_to]
                        read_to += 1
                    if not _read_whole(descriptor, raw, end - base, base):
                        return SHORT_READ, number
                data = raw[offset - base : offset - base + size]
                if check_crc and not _is_sealed(data):
                    return BAD_CRC, number
                fault = _place_chunk(
                    data[:-CRC_BYTES], decoded_P, turned, contexts, out_XYZ, x, y, z
                )
                if fault != OK:
                    return fault, number
    return OK, 0


@compiled
def _read_whole(descriptor: int, raw: NDArray[np.uint8], size: int, offset: int) -> bool:
    """Read exactly `size` bytes at `offset`; a network file system may give them in parts."""
    done = np.int64(0)
    while done < size:
        got = _pread(
            np.int32(descriptor),
            raw.ctypes.data + np.uint64(done),
            np.uint64(size - done),
            np.int64(offset + done),
        )
        if got <= 0:
            return False
        done += got
    return True


@compiled
def _is_sealed(data: NDArray[np.uint8]) -> bool:
    length = data.size - CRC_BYTES
    value: int = _crc32c(data.ctypes.data, np.uint64(length))
    return value == np.uint32(_little(data, length))


@compiled
def _little(data: NDArray[np.uint8], at: int) -> Any:  # noqa: ANN401 (numba infers)
    """The unsigned little-endian number of four bytes."""
    return (
        np.int64(data[at])
        | np.int64(data[at + 1]) << 8
        | np.int64(data[at + 2]) << 16
        | np.int64(data[at + 3]) << 24
    )


@compiled
def _fill_chunk(
    out_XYZ: NDArray[Any],
    fill: Any,  # noqa: ANN401 (one type per voxel width)
    x: int,
    y: int,
    z: int,
) -> None:
    """Put the fill value where the chunk with that corner lies in the box."""
    out_XYZ[max(0, x) : x + CHUNK_VOX, max(0, y) : y + CHUNK_VOX, max(0, z) : z + CHUNK_VOX] = fill


@compiled
def _place_chunk(
    data: NDArray[np.uint8],
    decoded_P: NDArray[np.uint8],
    turned: NDArray[Any],
    contexts: tuple[int, int],
    out_XYZ: NDArray[Any],
    x: int,
    y: int,
    z: int,
) -> int:
    """Decode a chunk, without its checksum, into the box; (x, y, z) is its corner there."""
    width = out_XYZ.itemsize
    if contexts[1] != 0 and _is_of_streams(data, width):
        return _place_streams(data, decoded_P, turned, contexts[1], out_XYZ, x, y, z)
    chunk_bytes = np.int32(CHUNK_VOX * _LAYER_VOX * width)
    got = _decompress(
        contexts[0], data.ctypes.data, np.int32(data.size), decoded_P.ctypes.data, chunk_bytes
    )
    if got != chunk_bytes:
        return BAD_CHUNK
    scatter((np.int64(decoded_P.ctypes.data),), CHUNK_VOX, turned, out_XYZ, x, y, z)
    return OK


@compiled
def _is_of_streams(data: NDArray[np.uint8], width: int) -> bool:
    """Whether a chunk is blosc 1, in byte planes, by zstd or LZ4, its blocks eights of layers."""
    if data.size < HEADER_BYTES + 4 or data[0] != VERSION or data[3] != width:
        return False
    flags, block_bytes = data[2], _little(data, 8)
    of_streams = flags >> FORMAT_SHIFT == ZSTD_FORMAT or flags >> FORMAT_SHIFT == LZ4_FORMAT
    in_planes = (width == 1 or flags & SHUFFLED != 0) and flags & (COPIED | BIT_SHUFFLED) == 0
    chunk_bytes = CHUNK_VOX * _LAYER_VOX * width
    in_layers = block_bytes > 0 and block_bytes % (TILE_VOX * _LAYER_VOX * width) == 0
    fits: bool = _little(data, 4) == chunk_bytes and chunk_bytes % max(block_bytes, 1) == 0
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
) -> int:
    """Decode the blocks of a chunk that the box needs."""
    width = out_XYZ.itemsize
    block_bytes = _little(data, 8)
    depth = block_bytes // (_LAYER_VOX * width)
    streams = 1 if data[2] & UNPARTED != 0 else width
    stream_bytes = block_bytes // streams
    if data.size < HEADER_BYTES + 4 * (CHUNK_VOX // depth):
        return BAD_CHUNK
    for first in range(0, CHUNK_VOX, depth):
        if z + first + depth <= 0 or z + first >= out_XYZ.shape[2]:
            continue
        at = _little(data, HEADER_BYTES + 4 * (first // depth))
        low = high = np.int64(0)
        for stream in range(streams):
            size = _little(data, at) if at + 4 <= data.size else np.int64(0)
            at += 4
            if size <= 0 or size > data.size - at:
                return BAD_CHUNK
            # A stream as long as its plane is the plane itself: it is read where it lies.
            plane = np.int64(data.ctypes.data) + at
            if size != stream_bytes:
                into = decoded_P[stream * stream_bytes : (stream + 1) * stream_bytes]
                if not _inflate(data[at : at + size], into, data[2] >> FORMAT_SHIFT, zstd):
                    return BAD_CHUNK
                plane = np.int64(into.ctypes.data)
            if stream == 0:
                low = plane
            high = plane + (2 - streams) * depth * _LAYER_VOX
            at += size
        if width == 2:
            scatter((low, high), depth, turned, out_XYZ, x, y, z + first)
        else:
            scatter((low,), depth, turned, out_XYZ, x, y, z + first)
    return OK


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
