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
MATCHLESS_PLANES, MATCHLESS_SHARE = 3, 0.48
"""Planes of noise, and the share of neighbours along each axis whose lowest bits differ, from which
on no part of a block is of one value, and no row or slice is that before: its bytes hold no
matches, and what they take is foretold."""
OVER_ENTROPY_BYTES = 190
"""What a stream of such bytes takes over its entropy, between 0 and 250 on real scans."""
WORTHWHILE_SHARE = 0.97
"""Share of its plane that a stream may take. The low bytes of noise shrink by a few hundredths, and
to undo that is half of reading a chunk: left as they are, real scans grow by 0.2 % at most (noise
of one width by up to 2.4 %) and are read in 0.85 to 0.95 of the time."""
DOUBTFUL_BYTES = 800
"""What one block costs less is enough for both."""
HIGH_DOUBTFUL_BYTES = 800
"""What bits of a block's high bytes may take over their entropy without a doubt: around a multiple
of 256 HU, noise flips several of them at once."""
_TABLES = 8
_SLICE_WORDS = ROW_VOX * ROW_VOX // 64
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
    for bit in range(BITS):
        if not _IS_NOISY[_flips(bits_V, bit)]:
            return bit
    return BITS


@compiled
def is_matchless(bits_V: NDArray[np.uint8], raw_bytes: int) -> bool:
    """Whether bytes whose bits these are hold no matches; `raw_bytes` of them are noise."""
    if raw_bytes < MATCHLESS_PLANES * PLANE_BYTES or _flips(bits_V, 0) < MATCHLESS_SHARE * _PAIRS:
        return False
    words = bits_V[:PLANE_BYTES].view(np.uint64)
    between_rows = between_slices = np.uint64(0)
    # A word is two rows; those of the next are compared with the two before.
    for at in range(words.size - 1):
        following = words[at] >> np.uint64(ROW_VOX) | words[at + 1] << np.uint64(ROW_VOX)
        between_rows += count_bits(words[at] ^ following)
    for at in range(words.size - _SLICE_WORDS):
        between_slices += count_bits(words[at] ^ words[at + _SLICE_WORDS])
    are_rows_new = between_rows >= MATCHLESS_SHARE * (BLOCK_VOX - 2 * ROW_VOX)
    are_slices_new = between_slices >= MATCHLESS_SHARE * (BLOCK_VOX - ROW_VOX * ROW_VOX)
    return bool(are_rows_new and are_slices_new)


@compiled
def _flips(bits_V: NDArray[np.uint8], bit: int) -> int:
    """Neighbours along x of which one has a bit and the other has not."""
    flips = np.uint64(0)
    for word in bits_V[bit * PLANE_BYTES : (bit + 1) * PLANE_BYTES].view(np.uint64):
        flips += count_bits((word ^ (word >> np.uint64(1))) & _WITHIN_ROWS)
    return np.int64(flips)  # type: ignore[return-value]  # an integer to numba


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
def foretold_bytes(plane_V: NDArray[np.uint8]) -> int:
    """Of low bytes as a stream, about, where so much is noise that nothing matches."""
    stream_bytes = entropy_bytes(plane_V) + OVER_ENTROPY_BYTES
    return stream_bytes if stream_bytes < WORTHWHILE_SHARE * BLOCK_VOX else BLOCK_VOX


@compiled
def cost_of_bits(stream_bytes: int, raw_bytes: int) -> int:
    """Of bits of low bytes as a stream, of which `raw_bytes` are noise as it is.

    That the high bytes then come in bits as well is worth 300: they are a few more, and the way
    back from bits takes its time, but they have far fewer matches, which take longest of all.
    """
    if stream_bytes >= BLOCK_VOX:
        return BLOCK_VOX - 300
    return stream_bytes + 30 + (stream_bytes - raw_bytes) // 14


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
    # Several tables: to count equal neighbours in one is to wait for the count before.
    counts = np.zeros((_TABLES, 256), np.uint16)
    for at in range(0, plane_V.size, _TABLES):
        for table in range(_TABLES):
            counts[table, plane_V[at + table]] += np.uint16(1)
    saved = 0
    for value in range(256):
        count = 0
        for table in range(_TABLES):
            count += counts[table, value]
        saved += _COUNT_BITS[count]
    return int((_COUNT_BITS[BLOCK_VOX] - saved) // (_FINE * 8))
