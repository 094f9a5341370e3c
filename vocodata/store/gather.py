"""The compiled inner loop of a read: bytes of a shard into a box of voxels.

For each row of chunks along x: one `pread` for chunks that lie side by side, then for each chunk
its checksum and its voxels (decoding.py). numba keeps the machine code on disk, since the C
functions are known to it by name (native.py).

Shape letters: X Y Z voxels, C chunks along an axis, P bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from vocodata.compiling import compiled
from vocodata.store import native
from vocodata.store.decoding import little, place_chunk
from vocodata.store.shard import CHUNK_VOX, CRC_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

OK, SHORT_READ, BAD_CRC, BAD_CHUNK = 0, 1, 2, 3

_pread: Any = types.ExternalFunction(
    "pread", types.intp(types.int32, types.uintp, types.uintp, types.int64)
)
_crc32c: Any = types.ExternalFunction(native.CRC32C_SYMBOL, types.uint32(types.uintp, types.uintp))


@compiled
def read_box(
    descriptor: int,
    offset_CCC: NDArray[np.int64],
    bytes_CCC: NDArray[np.int64],
    start_XYZ: tuple[int, int, int],
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
        decoded_P: `DECODED_BYTES` of room.
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
                if not place_chunk(
                    data[:-CRC_BYTES], decoded_P, turned, contexts, out_XYZ, x, y, z
                ):
                    return BAD_CHUNK, number
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
    return value == np.uint32(little(data, length))


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
