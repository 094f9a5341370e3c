"""The file format of a scan's voxels: one Zarr v3 shard, written and parsed here.

    | chunk | crc | chunk | crc | ... | index: (offset, bytes) a chunk, little-endian u64 | crc |

A chunk is 32x32x32 voxels (Z, Y, X), blosc 1 format, then its CRC-32C. Chunks lie in C order, so
neighbours along x are neighbours on disk and are read in one go. A chunk of nothing but the fill
value is left out; its index entry is all ones. Same voxels, same codec: same bytes.

Shape letters: Z Y X voxels, C chunks along an axis.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numcodecs.blosc
import numpy as np

from vocodata.errors import StoreError
from vocodata.store.blosc_chunk import COMPRESSORS, buffer, part_planes
from vocodata.store.packing import CAN_PACK, packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHUNK_VOX = 32
"""Side of a chunk: field over-read 2.0x, against 3.5x at 64 and slower decoding at 16."""
CRC_BYTES = 4
ABSENT = np.uint64(2**64 - 1)
IMAGE_FILL_HU = -1024
"""Air. Zero is water: a chunk that is not there must never read as tissue."""
LABEL_FILL = 0


class Codec(NamedTuple):
    """A way to compress a chunk with blosc."""

    name: str
    compressor: str
    level: int


CODECS = {
    "zstd": Codec("zstd", "zstd", 2),
    "lz4": Codec("lz4", "lz4", 5),
}
"""zstd is the default; lz4 is read two to three times as fast, at 15 to 20 % more bytes.

The level goes into zarr.json, for those who write chunks with blosc itself; ours are those of
blosc_chunk.py.
"""


class ChunkGrid(NamedTuple):
    """Chunks along each axis of a shard, in order of disk."""

    z: int
    y: int
    x: int

    @property
    def index_bytes(self) -> int:
        """Bytes of the index and its checksum at the shard's end."""
        return 16 * self.z * self.y * self.x + CRC_BYTES


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the chunks of a shard lie.

    Attributes:
        offset_CCC: First byte of each chunk (Z, Y, X order), int64; -1 where the chunk is absent.
        bytes_CCC: Bytes of each chunk with its checksum; 0 where absent.
    """

    offset_CCC: NDArray[np.int64]  # noqa: N815 (shape letters)
    bytes_CCC: NDArray[np.int64]  # noqa: N815 (shape letters)


def codec_named(name: str) -> Codec:
    """The codec of that name.

    Raises:
        StoreError: No such codec.
    """
    if name not in CODECS:
        msg = f"Codec '{name}' is not known; expected one of {', '.join(CODECS)}."
        raise StoreError(msg)
    return CODECS[name]


def chunk_grid(shape_ZYX: tuple[int, int, int]) -> ChunkGrid:
    """Chunks that cover an array of that shape.

    >>> chunk_grid((33, 32, 1))
    ChunkGrid(z=2, y=1, x=1)
    """
    return ChunkGrid(*(math.ceil(n / CHUNK_VOX) for n in shape_ZYX))


def encode_shard(data_ZYX: NDArray[Any], *, fill: int, codec: Codec) -> bytes:
    """The bytes of the shard that holds a whole array.

    Args:
        data_ZYX: int16, uint16 or uint8, any strides.
        fill: Value of voxels outside the array and of chunks that are left out.
        codec: How to compress a chunk.
    """
    data_ZYX = data_ZYX.astype(data_ZYX.dtype.newbyteorder("<"), copy=False)
    grid = chunk_grid(data_ZYX.shape)
    index = np.full((grid.z * grid.y * grid.x, 2), ABSENT, dtype="<u8")
    if CAN_PACK and codec.name == "zstd" and data_ZYX.itemsize == 2:
        return b"".join((*packed(data_ZYX, fill, index), _sealed(index.tobytes())))
    parts: list[bytes] = []
    offset = 0
    for number, chunk in enumerate(_chunks(data_ZYX, grid, fill)):
        if chunk[0, 0, 0] == fill and (chunk == fill).all():
            continue
        part = _sealed(buffer(part_planes(chunk), COMPRESSORS[codec.name]))
        index[number] = (offset, len(part))
        parts.append(part)
        offset += len(part)
    parts.append(_sealed(index.tobytes()))
    return b"".join(parts)


def _chunks(data_ZYX: NDArray[Any], grid: ChunkGrid, fill: int) -> Iterator[NDArray[Any]]:
    """Each chunk in C order, voxels side by side along x, the part outside the array filled."""
    side = CHUNK_VOX
    for z, y, x in np.ndindex(*grid):
        part = data_ZYX[
            z * side : (z + 1) * side, y * side : (y + 1) * side, x * side : (x + 1) * side
        ]
        if part.shape == (side, side, side):
            # A mirrored scan may come as a view; a chunk at a time, or its memory would double.
            yield part if part.strides[2] == part.itemsize else np.ascontiguousarray(part)
            continue
        chunk = np.full((side, side, side), fill, dtype=data_ZYX.dtype)
        chunk[: part.shape[0], : part.shape[1], : part.shape[2]] = part
        yield chunk


def _sealed(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def is_sealed(data: bytes) -> bool:
    """Whether the last four bytes are the CRC-32C of those before."""
    return len(data) > CRC_BYTES and struct.unpack("<I", data[-CRC_BYTES:])[
        0
    ] == google_crc32c.value(data[:-CRC_BYTES])


def parse_index(tail: bytes, grid: ChunkGrid, *, shard_bytes: int) -> ShardIndex:
    """The index of a shard, checked.

    Args:
        tail: The last `grid.index_bytes` of the shard.
        grid: Chunks that the array's shape asks for.
        shard_bytes: Size of the whole shard, which no chunk may leave.

    Raises:
        StoreError: Truncated, a wrong checksum, or chunks outside the shard.
    """
    if len(tail) != grid.index_bytes:
        msg = (
            f"the shard has {shard_bytes} bytes; expected at least the {grid.index_bytes} of its "
            f"index: it is truncated"
        )
        raise StoreError(msg)
    if not is_sealed(tail):
        msg = "the shard's index does not match its checksum: it is truncated or damaged"
        raise StoreError(msg)
    entries = np.frombuffer(tail[:-CRC_BYTES], dtype="<u8").reshape(*grid, 2)
    absent = (entries == ABSENT).all(axis=-1)
    offset = np.where(absent, 0, entries[..., 0])
    size = np.where(absent, 0, entries[..., 1])
    room = np.uint64(shard_bytes - grid.index_bytes)
    if ((offset > room) | (size > room - np.minimum(offset, room))).any() or (
        ~absent & (size <= CRC_BYTES)
    ).any():
        msg = "the shard's index names chunks outside the shard"
        raise StoreError(msg)
    return ShardIndex(
        np.where(absent, -1, offset.astype(np.int64)), np.ascontiguousarray(size.astype(np.int64))
    )


def decode_chunk(data: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One chunk with its checksum, by numcodecs: the slow way, and what the fast one is held to.

    Raises:
        StoreError: A wrong checksum, or bytes that are no chunk.
    """
    if not is_sealed(data):
        msg = "a chunk does not match its checksum"
        raise StoreError(msg)
    try:
        raw = numcodecs.blosc.decompress(data[:-CRC_BYTES])
    except RuntimeError as error:
        msg = "a chunk cannot be decompressed"
        raise StoreError(msg) from error
    if len(raw) != CHUNK_VOX**3 * dtype.itemsize:
        msg = f"a chunk has {len(raw)} bytes; expected {CHUNK_VOX**3 * dtype.itemsize}"
        raise StoreError(msg)
    return np.frombuffer(raw, dtype=dtype).reshape(CHUNK_VOX, CHUNK_VOX, CHUNK_VOX)
