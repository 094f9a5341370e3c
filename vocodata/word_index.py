"""In which scans a word is, and how it lies there: lists that are read while votes are counted.

How a word lies is one number: its frame (which axes are shortest, middle and longest from its first
landmark to its second, and which way each goes) and the place of the first landmark.

Shape letters: S scans, W words, E entries of all lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.compiling import compiled
from vocodata.threads import in_threads
from vocodata.words import NO_WORD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.words import Points, Words

MAX_SCANS_OF_A_WORD = 1500
"""Words of more scans than this have no list: they say nothing."""
UNIT_MM = 2.0
AXIS_BITS, FRAME_BITS = 11, 6
SCAN_SHIFT = FRAME_BITS + 3 * AXIS_BITS
AXIS_MASK, FRAME_MASK = 2**AXIS_BITS - 1, 2**FRAME_BITS - 1
FRAMES = 48
_BLOCK_WORDS = 4096


class Index(NamedTuple):
    """Which scans have a word, and how it lies in them.

    Attributes:
        bucket_SW: Which list is each word's.
        starts: Where each list starts in `entry_E`.
        ends: Where it ends.
        entry_E: Scan, frame and place of a word, in one number; scans of a list ascend.
    """

    bucket_SW: NDArray[np.int32]  # noqa: N815 (shape letters)
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    entry_E: NDArray[np.int64]  # noqa: N815 (shape letters)


def index_of(words: Words, points: Points, *, threads: int | None = None) -> Index:
    """The scans of each word; of words that too many have, none."""
    words_SW = words.words_SW
    # One number for a word and where it stands sorts several times as fast as an order of words.
    entry_E = words_SW.ravel().astype(np.uint64) << np.uint64(32)
    entry_E |= np.arange(entry_E.size, dtype=np.uint64)
    entry_E.sort()
    flat = (entry_E >> np.uint64(32)).astype(np.uint32)
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    ends = np.r_[starts[1:], flat.size]
    says_something = (flat[starts] != NO_WORD) & (ends - starts <= MAX_SCANS_OF_A_WORD)
    last = np.where(says_something, ends, starts)
    del flat
    bucket_SW = np.zeros(words_SW.shape, np.int32)

    def fill(block: range) -> None:
        _fill_entries(block.start, block.stop, starts, ends, entry_E, bucket_SW, words, points)

    for _ in in_threads(fill, starts.size, block=_BLOCK_WORDS, threads=threads):
        pass
    return Index(bucket_SW, starts, last, entry_E.view(np.int64))


@compiled
def _fill_entries(
    begin: int,
    stop: int,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    entry_E: NDArray[np.uint64],
    bucket_SW: NDArray[np.int32],
    words: Words,
    points: Points,
) -> None:
    """Of some words: in each scan the number of the list, and in the list how the word lies."""
    most = words.words_SW.shape[1]
    for bucket in range(begin, stop):
        for at in range(starts[bucket], ends[bucket]):
            place = np.int64(entry_E[at] & np.uint64(0xFFFFFFFF))
            scan, w = place // most, place % most
            bucket_SW[scan, w] = bucket
            first = points.first_S[scan]
            if points.first_S[scan + 1] == first:
                continue
            a = points.place_N3[first + words.ends_SW2[scan, w, 0]]
            b = points.place_N3[first + words.ends_SW2[scan, w, 1]]
            entry = scan << FRAME_BITS | frame_of(a, b)
            for axis in range(3):
                entry = entry << AXIS_BITS | min(AXIS_MASK, int(a[axis] / UNIT_MM))
            entry_E[at] = np.uint64(entry)


@compiled
def frame_of(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    """A number for which axes are shortest, middle and longest from a to b, and which way."""
    first, second, third = axes_by_way(b[0] - a[0], b[1] - a[1], b[2] - a[2])
    frame = 2 * first + (second > third)
    for axis in (first, second, third):
        frame = 2 * frame + (b[axis] >= a[axis])
    return frame


@compiled
def axes_by_way(x: float, y: float, z: float) -> tuple[int, int, int]:
    """Which of three ways is the shortest, the middle and the longest, either direction alike."""
    x, y, z = abs(x), abs(y), abs(z)
    if x <= y:
        if y <= z:
            return 0, 1, 2
        return (0, 2, 1) if x <= z else (2, 0, 1)
    if x <= z:
        return 1, 0, 2
    return (1, 2, 0) if y <= z else (2, 1, 0)
