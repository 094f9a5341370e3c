"""Which of very many scans show one body: a vote of words, then a proof by alignment.

Each pair of landmarks within reach gives a word: how far apart the two are along the three axes,
the shortest way first, and at both ends whether it is bright or dark and how bright the tissue is.
A mirror, a turn by right angles or a shift changes none of them. Of a scan's words the 512 with
the smallest hash are kept, so that two packings of one scan keep mostly the same ones whatever
else they show. Of the scans that share words, those whose shared words agree on one turn and one
shift are aligned, and the alignment decides. No step compares all pairs.

Shape letters: S scans, W words, P pairs of scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.alignment import align
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vocodata.landmarks import Landmarks

WORDS = 512
MIN_REACH_MM, MAX_REACH_MM = 15.0, 160.0
STEP_MM = 4.0
LEVEL_STEPS = 8
MIN_VOTES = 2
"""Shared words that make a pair worth a look."""
MAX_PARTNERS = 64
"""Scans looked at for each scan, those with most shared words first."""
MIN_AGREEING = ((2_000, 2), (50_000, 3), (2**62, 4))
"""Up to so many scans, shared words that must agree on one turn and shift for an alignment: by
chance more agree the more pairs there are, and an alignment takes milliseconds."""
AGREE_MM = 6.0
MAX_SCANS_OF_A_WORD = 1500
"""Words of more scans than this say nothing."""
CLEAR_MATCHES, CLEAR_SHARE = 9, 0.25
"""Landmarks that agree, and their share of those possible, in scans that are one."""
FEW_MATCHES, FEW_SHARE = 6, 0.35
"""The same for small scans, where hardly more are possible."""
_NO_WORD = np.uint32(0xFFFFFFFF)


class Words(NamedTuple):
    """Words of many scans.

    Attributes:
        words_SW: uint32, ascending; filled up with the largest number.
        ends_SW2: Which two landmarks each is of, the darker kind first.
    """

    words_SW: NDArray[np.uint32]  # noqa: N815 (shape letters)
    ends_SW2: NDArray[np.uint8]  # noqa: N815 (shape letters)


class Match(NamedTuple):
    """Two scans that show one body.

    Attributes:
        one: Position of the first scan.
        other: Position of the second, after the first.
        matched: Landmarks that agree.
        possible: Landmarks that could have.
    """

    one: int
    other: int
    matched: int
    possible: int


def find_matches(
    scans: Sequence[Landmarks], *, on_progress: Callable[[int, int], None] | None = None
) -> list[Match]:
    """All pairs of scans that show one body.

    Args:
        scans: Landmarks of each.
        on_progress: Called with alignments done and alignments to do.
    """
    matches = []
    pairs_P2 = candidates(scans)
    for done, (one, other) in enumerate(pairs_P2.tolist()):
        if on_progress is not None and done % 1000 == 0:
            on_progress(done, len(pairs_P2))
        found = align(scans[one], scans[other])
        if is_match(found.matched, found.share):
            matches.append(Match(one, other, found.matched, found.possible))
    return matches


def is_match(matched: int, share: float) -> bool:
    """Whether an alignment says that two scans are one.

    >>> is_match(30, 0.5), is_match(6, 0.1), is_match(6, 0.5)
    (True, False, True)
    """
    is_clear = matched >= CLEAR_MATCHES and share >= CLEAR_SHARE
    return is_clear or (matched >= FEW_MATCHES and share >= FEW_SHARE)


def candidates(scans: Sequence[Landmarks]) -> NDArray[np.int64]:
    """Pairs (P, 2) of scans whose shared words agree, the first before the second."""
    if len(scans) < 2:
        return np.empty((0, 2), np.int64)
    words = words_of(scans)
    starts, ends, owner, bucket_SW = _index(words.words_SW)
    counts = np.array([len(scan.contrast_N) for scan in scans])
    place_N3 = np.concatenate([scan.place_N3 for scan in scans])
    kind_N = np.concatenate([_kinds(scan) for scan in scans])
    first = np.cumsum(counts) - counts
    agreeing = next(least for most, least in MIN_AGREEING if len(scans) <= most)
    return _vote(
        words.words_SW,
        words.ends_SW2,
        bucket_SW,
        starts,
        ends,
        owner,
        place_N3,
        kind_N,
        first,
        agreeing,
    )


def words_of(scans: Sequence[Landmarks]) -> Words:
    """The words of each scan, the smallest hashes first."""
    words = Words(
        np.full((len(scans), WORDS), _NO_WORD), np.zeros((len(scans), WORDS, 2), np.uint8)
    )
    for at, scan in enumerate(scans):
        found, ends_W2 = _words(scan.place_N3, _kinds(scan))
        kept, where = np.unique(found, return_index=True)
        count = min(WORDS, kept.size)
        words.words_SW[at, :count] = kept[:count]
        words.ends_SW2[at, :count] = ends_W2[where[:count]]
    return words


def _kinds(scan: Landmarks) -> NDArray[np.uint8]:
    """Of each landmark: bright or dark, and how bright the tissue is."""
    step = np.minimum(LEVEL_STEPS - 1, (scan.level_N * LEVEL_STEPS).astype(np.uint8))
    return (2 * step + (scan.contrast_N > 0)).astype(np.uint8)


def _index(
    words_SW: NDArray[np.uint32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Scans of each word: where they start and end in `owner`, and each entry's word."""
    order = np.argsort(words_SW.ravel(), kind="stable")
    flat = words_SW.ravel()[order]
    owner = (order // words_SW.shape[1]).astype(np.int32)
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    ends = np.r_[starts[1:], flat.size]
    bucket = np.empty(flat.size, np.int32)
    bucket[order] = np.repeat(np.arange(starts.size, dtype=np.int32), ends - starts)
    says_something = (flat[starts] != _NO_WORD) & (ends - starts <= MAX_SCANS_OF_A_WORD)
    return starts, np.where(says_something, ends, starts), owner, bucket.reshape(words_SW.shape)


@compiled
def _vote(
    words_SW: NDArray[np.uint32],
    ends_SW2: NDArray[np.uint8],
    bucket_SW: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    owner: NDArray[np.int32],
    place_N3: NDArray[np.float32],
    kind_N: NDArray[np.uint8],
    first: NDArray[np.int64],
    min_agreeing: int,
) -> NDArray[np.int64]:
    """Count the words each scan shares with those after it, and look at the best partners."""
    scans = bucket_SW.shape[0]
    votes = np.zeros(scans, np.uint16)
    met = np.empty(scans, np.int32)
    pairs = np.empty((1024, 2), np.int64)
    count = 0
    for one in range(scans):
        partners = 0
        for word in range(bucket_SW.shape[1]):
            b = bucket_SW[one, word]
            for at in range(ends[b] - 1, starts[b] - 1, -1):
                other = owner[at]
                if other <= one:
                    break
                if votes[other] == 0:
                    met[partners] = other
                    partners += 1
                votes[other] += 1
        bar = _bar(votes, met[:partners])
        for i in range(partners):
            other = met[i]
            if votes[other] >= bar and min_agreeing <= _agreeing(
                words_SW[one],
                ends_SW2[one],
                place_N3[first[one] :],
                kind_N[first[one] :],
                words_SW[other],
                ends_SW2[other],
                place_N3[first[other] :],
            ):
                if count == pairs.shape[0]:
                    larger = np.empty((2 * count, 2), np.int64)
                    larger[:count] = pairs
                    pairs = larger
                pairs[count, 0], pairs[count, 1] = one, other
                count += 1
            votes[other] = 0
    return pairs[:count].copy()


@compiled
def _bar(votes: NDArray[np.uint16], met: NDArray[np.int32]) -> int:
    """Fewest shared words of the best partners."""
    having = np.zeros(WORDS + 1, np.int32)
    for other in met:
        having[votes[other]] += 1
    bar, partners = WORDS, 0
    while bar >= MIN_VOTES and partners + having[bar] <= MAX_PARTNERS:
        partners += having[bar]
        bar -= 1
    return bar + 1


@compiled
def _agreeing(
    words_W: NDArray[np.uint32],
    ends_W2: NDArray[np.uint8],
    place_N3: NDArray[np.float32],
    kind_N: NDArray[np.uint8],
    words_V: NDArray[np.uint32],
    ends_V2: NDArray[np.uint8],
    place_M3: NDArray[np.float32],
) -> int:
    """The most shared words that agree on one turn and one shift."""
    turns = np.empty(2 * WORDS, np.int32)
    shifts = np.empty((2 * WORDS, 3), np.float32)
    found, w, v = 0, 0, 0
    while w < WORDS and v < WORDS and words_W[w] != _NO_WORD and words_V[v] != _NO_WORD:
        if words_W[w] < words_V[v]:
            w += 1
            continue
        if words_W[w] > words_V[v]:
            v += 1
            continue
        a, b = place_N3[ends_W2[w, 0]], place_N3[ends_W2[w, 1]]
        c, d = place_M3[ends_V2[v, 0]], place_M3[ends_V2[v, 1]]
        turns[found] = _turn(a, b, c, d, shifts[found])
        found += 1
        if kind_N[ends_W2[w, 0]] == kind_N[ends_W2[w, 1]]:
            turns[found] = _turn(a, b, d, c, shifts[found])
            found += 1
        w += 1
        v += 1
    best = 0
    for i in range(found):
        agreeing = 0
        for j in range(found):
            agreeing += (
                turns[i] == turns[j]
                and abs(shifts[i, 0] - shifts[j, 0]) <= AGREE_MM
                and abs(shifts[i, 1] - shifts[j, 1]) <= AGREE_MM
                and abs(shifts[i, 2] - shifts[j, 2]) <= AGREE_MM
            )
        best = max(best, agreeing)
    return best


@compiled
def _turn(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    c: NDArray[np.float32],
    d: NDArray[np.float32],
    shift: NDArray[np.float32],
) -> int:
    """A number for the turn that brings the way a-b to the way c-d; the shift is written."""
    from_order, to_order = np.argsort(np.abs(b - a)), np.argsort(np.abs(d - c))
    turn = 0
    for way in range(3):
        source, target = from_order[way], to_order[way]
        sign = 1 if (b[source] - a[source]) * (d[target] - c[target]) >= 0 else -1
        shift[target] = c[target] - sign * a[source]
        turn += (2 * source + (sign > 0)) * 6**target
    return turn


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
