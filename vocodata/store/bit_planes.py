"""Bits of a block's bytes as planes, and which of them are worth compressing.

Of a noisy voxel's low byte the lowest bits are chance and nothing else. Compressed as a byte, they
have to be undone bit by bit with the rest; in planes of their own they lie on disk as they are, and
only what is left is compressed. But where a voxel's bits change together, as when a narrow range of
HU lies across a multiple of 32, the byte says in one symbol what its planes say in several. A chunk
takes the way that costs less (`cost_of_bytes`, `cost_of_bits`), bytes and decoding together: real
scans are 5 % smaller to 2 % larger than in bytes alone, the same in all (white noise up to a tenth
larger), and their streams are undone in 0.55 to 0.8 of the time.

A plane of bits is laid out as blosc does: bit n of byte n // 8 is voxel n's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.compiling import compiled
from vocodata.store.vectors import MERGED_VOX, ROW_VOX, count_bits, merge_bits, split_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 8
BLOCK_VOX = 16 * ROW_VOX * ROW_VOX
"""Voxels of half a chunk, the only blocks that are told in bits."""
PLANE_BYTES = BLOCK_VOX // 8
NOISY_SHARE = 0.94
"""Bits a voxel, told from its neighbour along x, from which on a plane is taken for noise."""
DOUBTFUL_BYTES = 800
"""What one block costs less is enough for both."""
HIGH_DOUBTFUL_BYTES = 800
"""What bits of a block's high bytes may take over their entropy without a doubt: around a multiple
of 256 HU, noise flips several of them at once."""
_PAIRS = BLOCK_VOX - BLOCK_VOX // ROW_VOX
_WITHIN_ROWS = np.uint64(0x7FFFFFFF7FFFFFFF)
"""All bits of two rows that have a neighbour to their right, with whom they were compared."""


def _entropy_bits(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bits that it takes to tell whether an event happened that has this probability."""
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    bits: NDArray[np.float64] = -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)
    return bits


_FINE = 16
_COUNT_BITS = np.rint(
    _FINE * np.arange(BLOCK_VOX + 1) * np.log2(np.maximum(np.arange(BLOCK_VOX + 1), 1))
).astype(np.int64)
"""Whole numbers, so that every machine adds alike."""
_IS_NOISY = _entropy_bits(np.arange(_PAIRS + 1) / _PAIRS) > NOISY_SHARE


@compiled
def split_planes(planes_PV: NDArray[np.uint8], bits_PV: NDArray[np.uint8]) -> None:
    """Fill `bits_PV` with the bits of each plane of bytes, lowest first."""
    for plane in range(planes_PV.shape[0]):
        source = np.int64(planes_PV[plane].ctypes.data)
        target = np.int64(bits_PV[plane].ctypes.data)
        for at in range(0, BLOCK_VOX, ROW_VOX):
            split_bits(source + at, target + at // BITS, PLANE_BYTES)


@compiled
def merge_planes(
    source: np.int64, plane_bytes: int, target: np.int64, first: int, last: int
) -> None:
    """Bytes `first` to `last`, multiples of 256, of a plane from its bits; addresses."""
    for at in range(first, last, MERGED_VOX):
        merge_bits(source + at // BITS, plane_bytes, target + at)


@compiled
def noisy_planes(bits_V: NDArray[np.uint8]) -> int:
    """How many of the eight planes, from the lowest on, are not worth compressing."""
    words = bits_V.view(np.uint64).reshape(BITS, -1)
    for bit in range(BITS):
        flips = np.uint64(0)
        for word in words[bit]:
            flips += count_bits((word ^ (word >> np.uint64(1))) & _WITHIN_ROWS)
        if not _IS_NOISY[np.int64(flips)]:
            return bit
    return BITS


# What a stream of low bytes costs: its bytes, and as many as a reader's time for it is worth, 95
# to the microsecond on the machine of docs/benchmarks.md. To undo Huffman codes takes 0.8
# microseconds a kilobyte of them, and 1.3 to 3.5 more for their table and the matches in between.


@compiled
def cost_of_bytes(stream_bytes: int) -> int:
    """Of low bytes as a stream."""
    if stream_bytes >= BLOCK_VOX:
        return BLOCK_VOX
    return stream_bytes + stream_bytes // 14 + 120


@compiled
def cost_of_bits(stream_bytes: int, raw_bytes: int, is_coded: bool) -> int:  # noqa: FBT001 (compiled functions take no keywords)
    """Of bits of low bytes as a stream, of which `raw_bytes` are noise as it is.

    That the high bytes then come in bits as well is worth 300: they are a few more, and the way
    back from bits takes its time, but they have far fewer matches, which take longest of all.
    """
    if stream_bytes >= BLOCK_VOX:
        return BLOCK_VOX - 300
    return stream_bytes - 300 + ((stream_bytes - raw_bytes) // 14 + 330 if is_coded else 270)


@compiled
def cost_of_high_bytes(stream_bytes: int) -> int:
    """Of high bytes as a stream: matches upon matches, which take longest of all."""
    return stream_bytes + stream_bytes * 19 // 40


@compiled
def cost_of_high_bits(stream_bytes: int) -> int:
    """Of bits of high bytes as a stream."""
    return stream_bytes + stream_bytes * 9 // 40


@compiled
def entropy_bytes(plane_V: NDArray[np.uint8]) -> int:
    """What codes alone would make of a plane of bytes."""
    # Four tables: to count equal neighbours in one is to wait for the count before.
    counts = np.zeros((4, 256), np.int64)
    for at in range(0, plane_V.size, 4):
        for table in range(4):
            counts[table, plane_V[at + table]] += 1
    saved = 0
    for value in range(256):
        saved += _COUNT_BITS[
            counts[0, value] + counts[1, value] + counts[2, value] + counts[3, value]
        ]
    return int((_COUNT_BITS[BLOCK_VOX] - saved) // (_FINE * 8))


@compiled
def may_be_plain(stream_bytes: int, raw_bytes: int) -> bool:
    """Whether bits whose codes take this much may be cheaper without codes."""
    return 5 * (stream_bytes - raw_bytes) > 2 * (BLOCK_VOX - raw_bytes)
