"""A chunk as a blosc 1 buffer, its planes compressed one by one.

    | header 16 | start of each block, i32 | block: (bytes i32, stream) a plane | block ...

Any blosc decoder reads it. What is gained by writing it ourselves, measured on real scans: the low
bytes of noisy HU are Huffman codes and hardly anything else, the high bytes are all matches. As
streams of their own, each at the level that suits it, they are 1 to 3 % smaller than together and
decode 10 to 15 % faster; LZ4 decodes twice as fast once its slow encoder has had the high bytes.
Blocks are halves along z, so that a reader decodes only the half it needs: a sixth less for a field
of 64 slices, at no cost in bytes.

Most chunks of HU are told in bits instead (bit_planes.py; blosc's bit shuffle): a stream is then
the eight bit planes of the low or of the high bytes. A stream of low bytes is one zstd frame of two
blocks, first the planes that are noise, as they are, then what compresses. blosc names the order in
each chunk, so one array may hold both.
"""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numcodecs.blosc
import numcodecs.zstd
import numpy as np

from vocodata.store import native
from vocodata.store.bit_planes import (
    BITS,
    BLOCK_VOX,
    DOUBTFUL_BYTES,
    HIGH_DOUBTFUL_BYTES,
    PLANE_BYTES,
    WORTHWHILE_SHARE,
    cost_of_bits,
    cost_of_bytes,
    cost_of_high_bits,
    cost_of_high_bytes,
    entropy_bytes,
    foretold_bytes,
    is_matchless,
    noisy_planes,
    split_planes,
)
from vocodata.store.parting import part_rows
from vocodata.store.vectors import ROW_VOX

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Compress = Callable[[NDArray[np.uint8]], bytes]

BLOCKS = 2
VERSION = 2
_HEADER = struct.Struct("<4B3i")
HEADER_BYTES = _HEADER.size
SHUFFLED, COPIED, BIT_SHUFFLED, UNPARTED = 0x01, 0x02, 0x04, 0x10
"""Flags of a buffer: bytes lie in planes; it is not compressed; bits lie in planes; the planes of a
block are one stream."""
FORMAT_SHIFT = 5
"""The high bits of the flags are the format of the streams."""


FRAME_START = b"\x28\xb5\x2f\xfd\x60"
"""Of a zstd frame that knows its size in two bytes, which are 256 less (RFC 8878, 3.1.1.1)."""
FRAME_START_BYTES, FRAME_BYTES_FROM = len(FRAME_START) + 2, 256
RAW_BLOCK_BYTES = 3
"""Before the bytes of a raw block: not the last, raw, and how many, in bits 0, 1 to 2, 3 to 23."""


class BitsCompressor(NamedTuple):
    """How streams of bits are made.

    Attributes:
        low: Compresses those of low bytes that are no noise.
        high: Compresses those of high bytes.
    """

    low: Compress
    high: Compress


class Compressor(NamedTuple):
    """How the streams of a buffer are made.

    Attributes:
        format: blosc's number for the streams' format.
        low: Compresses a plane of low bytes.
        high: Compresses a plane of high bytes, or of labels.
        bits: The same of bits; None if chunks are told in bytes only.
    """

    format: int
    low: Compress
    high: Compress
    bits: BitsCompressor | None = None


def part_planes(chunk: NDArray[Any]) -> NDArray[np.uint8]:
    """The byte planes of a chunk: block, plane, voxel.

    Args:
        chunk: Little-endian, 1 or 2 bytes a voxel, side by side along the last axis.
    """
    planes = np.empty((BLOCKS, chunk.itemsize, chunk.size // BLOCKS), np.uint8)
    if chunk.itemsize == 2 and chunk.shape[2] == ROW_VOX:
        part_rows(chunk.view("<u2"), planes)
    else:
        by_byte = np.ascontiguousarray(chunk).view(np.uint8).reshape(BLOCKS, -1, chunk.itemsize)
        planes[:] = by_byte.transpose(0, 2, 1)
    return planes


def buffer(planes_BPV: NDArray[np.uint8], compressor: Compressor) -> bytes:
    """The buffer of a chunk.

    Args:
        planes_BPV: The chunk's bytes: block, plane, voxel.
        compressor: One of `COMPRESSORS`.
    """
    width, chunk_bytes = planes_BPV.shape[1], planes_BPV.size
    bits = compressor.bits if planes_BPV.shape[1:] == (2, BLOCK_VOX) else None
    bits_BPV = None if bits is None else _bits_if_cheaper(planes_BPV, compressor, bits)
    parts: list[bytes] = []
    starts, end = [], HEADER_BYTES + 4 * BLOCKS
    for block in range(len(planes_BPV)):
        starts.append(end)
        if bits is not None and bits_BPV is not None:
            low, high = bits_BPV[block]
            streams = [_bits_stream(low, bits)[0], _stream(high, bits.high)]
        else:
            ways = (compressor.low, compressor.high)[-width:]
            streams = [_stream(*each) for each in zip(planes_BPV[block], ways, strict=True)]
        for stream in streams:
            parts += (struct.pack("<i", len(stream)), stream)
            end += 4 + len(stream)
    if end > chunk_bytes + HEADER_BYTES:
        return _copied(planes_BPV)
    order = UNPARTED if width == 1 else SHUFFLED if bits_BPV is None else BIT_SHUFFLED
    flags = compressor.format << FORMAT_SHIFT | order
    head = _HEADER.pack(VERSION, 1, flags, width, chunk_bytes, chunk_bytes // BLOCKS, end)
    return b"".join((head, struct.pack(f"<{BLOCKS}i", *starts), *parts))


def _stream(plane: NDArray[np.uint8], compress: Compress) -> bytes:
    """A stream as long as its plane is the plane itself."""
    stream = compress(plane)
    return stream if len(stream) < WORTHWHILE_SHARE * plane.size else plane.tobytes()


def _bits_if_cheaper(
    planes_BPV: NDArray[np.uint8], compressor: Compressor, bits: BitsCompressor
) -> NDArray[np.uint8] | None:
    """The chunk's bits, if it costs less that way."""
    bits_BPV = np.empty_like(planes_BPV)
    more = over = 0
    for planes_PV, bits_PV in zip(planes_BPV, bits_BPV, strict=True):
        split_planes(planes_PV, bits_PV)
        # What one block costs less is enough for both.
        if abs(more) < DOUBTFUL_BYTES:
            more += _dearer_low(planes_PV, bits_PV, compressor, bits)
    if more >= 0:
        return None
    for planes_PV, bits_PV in zip(planes_BPV, bits_BPV, strict=True):
        over += len(_stream(bits_PV[1], bits.high)) - entropy_bytes(planes_PV[1])
    if over < HIGH_DOUBTFUL_BYTES * BLOCKS:
        return bits_BPV
    more = 0
    for planes_PV, bits_PV in zip(planes_BPV, bits_BPV, strict=True):
        more += _dearer_low(planes_PV, bits_PV, compressor, bits)
        more += cost_of_high_bits(len(_stream(bits_PV[1], bits.high)))
        more -= cost_of_high_bytes(len(_stream(planes_PV[1], compressor.high)))
    return bits_BPV if more < 0 else None


def _dearer_low(
    planes_PV: NDArray[np.uint8],
    bits_PV: NDArray[np.uint8],
    compressor: Compressor,
    bits: BitsCompressor,
) -> int:
    """What a block's low bytes cost more in bits."""
    stream, raw_bytes = _bits_stream(bits_PV[0], bits)
    if is_matchless(bits_PV[0], raw_bytes):
        in_bytes = foretold_bytes(planes_PV[0])
    else:
        in_bytes = len(_stream(planes_PV[0], compressor.low))
    return cost_of_bits(len(stream), raw_bytes) - cost_of_bytes(in_bytes)


def _bits_stream(bits_V: NDArray[np.uint8], bits: BitsCompressor) -> tuple[bytes, int]:
    """Bits of low bytes as a stream, and how many of them are noise."""
    raw_bytes = noisy_planes(bits_V) * PLANE_BYTES
    return _behind_noise(bits_V, raw_bytes, bits.low), raw_bytes


def _behind_noise(bits_V: NDArray[np.uint8], raw_bytes: int, compress: Compress) -> bytes:
    """A frame in which planes of noise lie as they are; or all of them, which is no frame."""
    if raw_bytes == 0:
        return _stream(bits_V, compress)
    if raw_bytes < BITS * PLANE_BYTES:
        frame = compress(bits_V[raw_bytes:])
        size = len(frame) + RAW_BLOCK_BYTES + raw_bytes
        if frame[: len(FRAME_START)] == FRAME_START and size < WORTHWHILE_SHARE * bits_V.size:
            start = FRAME_START + struct.pack("<H", bits_V.size - FRAME_BYTES_FROM)
            raw_block = struct.pack("<I", raw_bytes << 3)[:RAW_BLOCK_BYTES]
            noise = bits_V[:raw_bytes].tobytes()
            return b"".join((start, raw_block, noise, frame[FRAME_START_BYTES:]))
    return bits_V.tobytes()


def _copied(planes_BPV: NDArray[np.uint8]) -> bytes:
    """What blosc does with noise that no compressor helps."""
    size, width = planes_BPV.size, planes_BPV.shape[1]
    head = _HEADER.pack(VERSION, 1, COPIED, width, size, size, size + HEADER_BYTES)
    return head + planes_BPV.transpose(0, 2, 1).tobytes()


class _Encoders(threading.local):
    """Those of one thread."""

    def __init__(self) -> None:
        self.of_settings: dict[native.ZstdSettings, native.ZstdEncoder] = {}


_encoders = _Encoders()
_STREAM_LOG = 14
"""A plane of half a chunk has two to this power of bytes."""


def _zstd(settings: native.ZstdSettings) -> Compress:
    def compress(plane: NDArray[np.uint8]) -> bytes:
        if not native.HAS_ENCODER:
            return bytes(numcodecs.zstd.compress(plane, settings.level))
        return bytes(_encoder(settings).compress(plane))

    return compress


class ZstdContexts(NamedTuple):
    """Addresses of encoding contexts, one for each kind of stream."""

    low: int
    high: int
    high_bits: int


def zstd_contexts() -> ZstdContexts:
    """Those of this thread."""
    settings = (LOW_BYTES, HIGH_BYTES, HIGH_BITS)
    return ZstdContexts(*(_encoder(each).address for each in settings))


def _encoder(settings: native.ZstdSettings) -> native.ZstdEncoder:
    encoders = _encoders.of_settings
    if settings not in encoders:
        encoders[settings] = native.ZstdEncoder(settings, _STREAM_LOG)
    return encoders[settings]


def _lz4(encoder: bytes, level: int) -> Compress:
    """A stream by blosc's own LZ4, taken out of a buffer that has one block and one plane."""

    def compress(plane: NDArray[np.uint8]) -> bytes:
        before = numcodecs.blosc.use_threads
        numcodecs.blosc.use_threads = False
        try:
            made = numcodecs.blosc.compress(
                plane, encoder, level, numcodecs.blosc.NOSHUFFLE, plane.size
            )
        finally:
            numcodecs.blosc.use_threads = before
        return plane.tobytes() if made[2] & COPIED else bytes(made[HEADER_BYTES + 8 :])

    return compress


LZ4_FORMAT, ZSTD_FORMAT = 1, 4
LOW_BYTES = native.ZstdSettings(1, strategy=1, min_match=7, search_log=1, table_log=12)
HIGH_BYTES = native.ZstdSettings(5, strategy=4, min_match=6, search_log=3, table_log=12)
HIGH_BITS = native.ZstdSettings(5, strategy=2, min_match=7, search_log=1, table_log=12)
_BITS = BitsCompressor(_zstd(LOW_BYTES), _zstd(HIGH_BITS))
COMPRESSORS = {
    "zstd": Compressor(ZSTD_FORMAT, _zstd(LOW_BYTES), _zstd(HIGH_BYTES), _BITS),
    "lz4": Compressor(LZ4_FORMAT, _lz4(b"lz4", 9), _lz4(b"lz4hc", 5)),
}
"""By measurement on real scans. Noise has no short matches: to look for those of seven bytes only
is as small as level 1, and up to 20 % faster to write and to read. High bytes are all matches: the
longer these are, the faster they are undone. A lazy search takes 5 to 11 % off that and half as
long again as a greedy one; what is still deeper gains as much again and takes twice to thrice as
long. In bits, copies of the sign are found by any search: `HIGH_BITS` takes under half the time of
`HIGH_BYTES`, for 3 % more of them (0.4 % of a scan)."""
