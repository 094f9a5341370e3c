"""A zstd chunk in blosc 1 format, written here: one block, each byte plane a stream of its own.

    | 2 1 flags typesize | bytes | block bytes | chunk bytes | 20 | stream bytes | zstd | ... |
      one byte each        little-endian u32 from here on, a size before each zstd frame

Every blosc decoder reads it (c-blosc 1 and 2, so zarr-python, tensorstore, napari). c-blosc 1 does
not split zstd chunks into planes when it writes. Split, the high bytes of HU are all but free at
zstd's level 3: measured on real scans 0.1 to 1 % smaller than c-blosc's level 3 (which is zstd's
level 5), in half the time, and as fast to read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numcodecs.zstd
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT, _ZSTD_FORMAT = 2, 1
_SHUFFLED, _STORED, _ZSTD = 0x01, 0x02, 4 << 5
_HEADER = struct.Struct("<BBBBIII")
_SIZE = struct.Struct("<I")


def zstd_chunk(chunk: NDArray[Any], level: int) -> bytes:
    """The bytes of one chunk.

    Args:
        chunk: C-contiguous, at least 128 numbers of at most 16 bytes.
        level: Of blosc, 1 to 8; zstd's own is 2 * level - 1.
    """
    width, size = chunk.dtype.itemsize, chunk.nbytes
    raw = chunk.reshape(-1).view(np.uint8)
    planes = np.ascontiguousarray(raw.reshape(-1, width).T)
    body = b"".join(_stream(plane, 2 * level - 1) for plane in planes)
    total = _HEADER.size + _SIZE.size + len(body)
    if total >= _HEADER.size + size:
        flags, total = _ZSTD | _SHUFFLED | _STORED, _HEADER.size + size
        return _header(flags, width, size, total) + raw.tobytes()
    flags = _ZSTD | _SHUFFLED
    return _header(flags, width, size, total) + _SIZE.pack(_HEADER.size + _SIZE.size) + body


def _header(flags: int, width: int, size: int, total: int) -> bytes:
    return _HEADER.pack(_FORMAT, _ZSTD_FORMAT, flags, width, size, size, total)


def _stream(plane: NDArray[np.uint8], level: int) -> bytes:
    """A plane with its size before it; as it is where zstd gains nothing, which the size tells."""
    packed: bytes = numcodecs.zstd.compress(plane, level)
    if len(packed) >= plane.nbytes:
        packed = plane.tobytes()
    return _SIZE.pack(len(packed)) + packed
