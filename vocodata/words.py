"""Words of a scan: pairs of its landmarks as numbers that a mirror, turn or shift does not change.

Each pair of landmarks within reach gives a word: how far apart the two are along the three axes,
the shortest way first, and at both ends whether it is bright or dark and how bright the tissue is.
Of a scan's words those with the smallest hash are kept, as many as the number of scans allows, so
that two packings of one scan keep mostly the same ones whatever else they show.

Shape letters: S scans, N landmarks of all scans, W words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.compiling import compiled
from vocodata.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vocodata.landmarks import Landmarks

MOST_WORDS, FEWEST_WORDS = 2048, 768
WORDS_OF_ALL = 2**25
"""Of all scans together: a scan's words find more of its packings, but cost memory and time."""
MIN_REACH_MM, MAX_REACH_MM = 15.0, 160.0
STEP_MM = 4.0
LEVEL_STEPS = 8
NO_WORD = np.uint32(0xFFFFFFFF)
_BLOCK_SCANS = 256


class Points(NamedTuple):
    """Landmarks of many scans in one table.

    Attributes:
        place_N3: mm.
        kind_N: Bright or dark, and how bright the tissue is.
        first_S: (S + 1,) where each scan's begin, and where the last one's end.
    """

    place_N3: NDArray[np.float32]  # noqa: N815 (shape letters)
    kind_N: NDArray[np.uint8]  # noqa: N815 (shape letters)
    first_S: NDArray[np.int64]  # noqa: N815 (shape letters)


class Words(NamedTuple):
    """Words of many scans.

    Attributes:
        words_SW: uint32, ascending; filled up with the largest number.
        ends_SW2: Which two landmarks each is of, the darker kind first.
    """

    words_SW: NDArray[np.uint32]  # noqa: N815 (shape letters)
    ends_SW2: NDArray[np.uint8]  # noqa: N815 (shape letters)


def points_of(scans: Sequence[Landmarks]) -> Points:
    """The landmarks of all scans, one after the other."""
    first_S = np.cumsum([0, *(len(scan.contrast_N) for scan in scans)])
    if not scans:
        return Points(np.empty((0, 3), np.float32), np.empty(0, np.uint8), first_S)
    place_N3 = np.concatenate([scan.place_N3 for scan in scans])
    contrast_N = np.concatenate([scan.contrast_N for scan in scans])
    level_N = np.concatenate([scan.level_N for scan in scans])
    step_N = np.minimum(LEVEL_STEPS - 1, (level_N * LEVEL_STEPS).astype(np.uint8))
    return Points(place_N3, (2 * step_N + (contrast_N > 0)).astype(np.uint8), first_S)


def words_of(points: Points, *, threads: int | None = None) -> Words:
    """The words of each scan, the smallest hashes first."""
    scans = points.first_S.size - 1
    count = min(MOST_WORDS, max(FEWEST_WORDS, WORDS_OF_ALL // max(1, scans)))
    words = Words(np.full((scans, count), NO_WORD), np.zeros((scans, count, 2), np.uint8))

    def fill(block: range) -> None:
        _fill_words(block.start, block.stop, points, words)

    for _ in in_threads(fill, scans, block=_BLOCK_SCANS, threads=threads):
        pass
    return words


@compiled
def _fill_words(begin: int, stop: int, points: Points, words: Words) -> None:
    """Of some scans the smallest words, each once, and of which pair of landmarks each is."""
    first_S, most = points.first_S, words.words_SW.shape[1]
    for scan in range(begin, stop):
        low, high = first_S[scan], first_S[scan + 1]
        found, ends_W2 = _words(points.place_N3[low:high], points.kind_N[low:high])
        words_W, kept_W2 = words.words_SW[scan], words.ends_SW2[scan]
        # Words are spread evenly, so the smallest few are known without sorting all; if too many
        # were alike, all are sorted after all.
        limit = min(int(NO_WORD), int(NO_WORD) // max(1, found.size) * 3 * most)
        count = _keep_smallest(found, ends_W2, limit, words_W, kept_W2)
        if count < most and limit < int(NO_WORD):
            _keep_smallest(found, ends_W2, int(NO_WORD), words_W, kept_W2)


@compiled
def _keep_smallest(
    found: NDArray[np.uint32],
    ends_W2: NDArray[np.uint8],
    limit: int,
    words_W: NDArray[np.uint32],
    kept_W2: NDArray[np.uint8],
) -> int:
    """The smallest words up to a limit, each once, with the first pair that gave it; how many."""
    order = np.empty(found.size, np.uint64)
    below = 0
    for pair in range(found.size):
        if found[pair] < limit:
            order[below] = (np.uint64(found[pair]) << np.uint64(32)) | np.uint64(pair)
            below += 1
    order = np.sort(order[:below])
    count = 0
    for entry in order:
        word = np.uint32(entry >> np.uint64(32))
        if count == 0 or word != words_W[count - 1]:
            words_W[count] = word
            kept_W2[count] = ends_W2[entry & np.uint64(0xFFFFFFFF)]
            count += 1
            if count == words_W.size:
                break
    return count


@compiled
def _words(
    place_N3: NDArray[np.float32], kind_N: NDArray[np.uint8]
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Words of all pairs of landmarks within reach, with repetitions, and the pairs."""
    n = kind_N.size
    words = np.empty(n * (n - 1) // 2, np.uint32)
    ends_W2 = np.empty((words.size, 2), np.uint8)
    count = 0
    for i in range(n):
        for j in range(i + 1, n):
            a = abs(place_N3[i, 0] - place_N3[j, 0])
            b = abs(place_N3[i, 1] - place_N3[j, 1])
            c = abs(place_N3[i, 2] - place_N3[j, 2])
            short, long = min(a, b, c), max(a, b, c)
            if not MIN_REACH_MM <= long <= MAX_REACH_MM:
                continue
            p, q = (i, j) if kind_N[i] <= kind_N[j] else (j, i)
            word = np.uint64(kind_N[p]) * np.uint64(64) + np.uint64(kind_N[q])
            for way in (short, a + b + c - short - long, long):
                word = word * np.uint64(64) + np.uint64(int(way / STEP_MM))
            word = (word ^ (word >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
            words[count] = np.uint32(word >> np.uint64(32))
            ends_W2[count, 0], ends_W2[count, 1] = p, q
            count += 1
    return words[:count].copy(), ends_W2[:count].copy()
