"""Scans that share words: counted, and of the best partners it is seen whether the words agree.

Words agree if one turn by right angles and one shift bring their landmarks onto each other. By
chance two strangers share some words; that several of them agree is rare.

Shape letters: S scans, N M landmarks, W V words, P pairs of scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.compiling import compiled
from vocodata.words import NO_WORD, WORDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.words import Points, Words

MIN_VOTES = 2
"""Shared words that make a pair worth a look."""
MAX_PARTNERS = 64
"""Scans looked at for each scan, those with most shared words first."""
AGREE_MM = 6.0
MAX_SCANS_OF_A_WORD = 1500
"""Words of more scans than this say nothing."""
_SLOT_BITS = np.uint32(2**13 - 1)


class Index(NamedTuple):
    """Which scans have a word: where they start and end in `owner`, and each entry's word."""

    bucket_SW: NDArray[np.int32]  # noqa: N815 (shape letters)
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owner: NDArray[np.int32]


def index_of(words_SW: NDArray[np.uint32]) -> Index:
    """The scans of each word; of words that too many have, none."""
    order = np.argsort(words_SW.ravel(), kind="stable")
    flat = words_SW.ravel()[order]
    owner = (order // words_SW.shape[1]).astype(np.int32)
    starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]])
    ends = np.r_[starts[1:], flat.size]
    bucket = np.empty(flat.size, np.int32)
    bucket[order] = np.repeat(np.arange(starts.size, dtype=np.int32), ends - starts)
    says_something = (flat[starts] != NO_WORD) & (ends - starts <= MAX_SCANS_OF_A_WORD)
    last = np.where(says_something, ends, starts)
    return Index(bucket.reshape(words_SW.shape), starts, last, owner)


@compiled
def vote(
    begin: int, stop: int, words: Words, index: Index, points: Points, min_agreeing: int
) -> NDArray[np.int64]:
    """Count the words some scans share with those after each, and look at the best partners.

    Returns:
        Pairs (P, 2) of scans whose shared words agree.
    """
    words_SW, first_S = words.words_SW, points.first_S
    scans = words_SW.shape[0]
    votes, met = np.zeros(scans, np.uint16), np.empty(scans, np.int32)
    slots, chain_W = np.full(_SLOT_BITS + 1, -1, np.int16), np.empty(WORDS, np.int16)
    pairs = [(0, 0) for _ in range(0)]
    for one in range(begin, stop):
        partners = _count_votes(one, index, votes, met)
        bar = _bar(votes, met[:partners])
        # Where each word of this scan is, by its last bits; words of equal bits are chained.
        for w in range(WORDS):
            slot = words_SW[one, w] & _SLOT_BITS
            chain_W[w], slots[slot] = slots[slot], w
        for other in met[:partners]:
            if votes[other] >= bar and min_agreeing <= _agreeing(
                slots,
                chain_W,
                words_SW[one],
                words.ends_SW2[one],
                points.place_N3[first_S[one] :],
                points.kind_N[first_S[one] :],
                words_SW[other],
                words.ends_SW2[other],
                points.place_N3[first_S[other] :],
            ):
                pairs.append((one, int(other)))
            votes[other] = 0
        for w in range(WORDS):
            slots[words_SW[one, w] & _SLOT_BITS] = -1
    pairs_P2 = np.empty((len(pairs), 2), np.int64)
    for p in range(len(pairs)):
        pairs_P2[p, 0], pairs_P2[p, 1] = pairs[p]
    return pairs_P2


@compiled
def _count_votes(one: int, index: Index, votes: NDArray[np.uint16], met: NDArray[np.int32]) -> int:
    """How many words each later scan shares with one; who shares any is listed, and counted."""
    owner = index.owner
    partners = 0
    for bucket in index.bucket_SW[one]:
        for at in range(index.ends[bucket] - 1, index.starts[bucket] - 1, -1):
            other = owner[at]
            if other <= one:
                break
            if votes[other] == 0:
                met[partners] = other
                partners += 1
            votes[other] += 1
    return partners


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
    slots: NDArray[np.int16],
    chain_W: NDArray[np.int16],
    words_W: NDArray[np.uint32],
    ends_W2: NDArray[np.uint8],
    place_N3: NDArray[np.float32],
    kind_N: NDArray[np.uint8],
    words_V: NDArray[np.uint32],
    ends_V2: NDArray[np.uint8],
    place_M3: NDArray[np.float32],
) -> int:
    """The most shared words that agree on one turn and one shift; `slots` tell where words are."""
    turns = np.empty(2 * WORDS, np.int32)
    shifts = np.empty((2 * WORDS, 3), np.float32)
    found = 0
    for v in range(WORDS):
        word = words_V[v]
        if word == NO_WORD:
            break
        w = np.int64(slots[word & _SLOT_BITS])
        while w >= 0 and words_W[w] != word:
            w = np.int64(chain_W[w])
        if w < 0:
            continue
        a, b = place_N3[ends_W2[w, 0]], place_N3[ends_W2[w, 1]]
        c, d = place_M3[ends_V2[v, 0]], place_M3[ends_V2[v, 1]]
        turns[found] = _turn(a, b, c, d, shifts[found])
        found += 1
        if kind_N[ends_W2[w, 0]] == kind_N[ends_W2[w, 1]]:
            turns[found] = _turn(a, b, d, c, shifts[found])
            found += 1
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
    turn = 0
    from_first, from_second, from_third = _order(b[0] - a[0], b[1] - a[1], b[2] - a[2])
    to_first, to_second, to_third = _order(d[0] - c[0], d[1] - c[1], d[2] - c[2])
    for source, target in (
        (from_first, to_first),
        (from_second, to_second),
        (from_third, to_third),
    ):
        sign = 1 if (b[source] - a[source]) * (d[target] - c[target]) >= 0 else -1
        shift[target] = c[target] - sign * a[source]
        turn += (2 * source + (sign > 0)) * 6**target
    return turn


@compiled
def _order(x: float, y: float, z: float) -> tuple[int, int, int]:
    """Which of three ways is the shortest, the middle and the longest, either direction alike."""
    x, y, z = abs(x), abs(y), abs(z)
    if x <= y:
        if y <= z:
            return 0, 1, 2
        return (0, 2, 1) if x <= z else (2, 0, 1)
    if x <= z:
        return 1, 0, 2
    return (1, 2, 0) if y <= z else (2, 1, 0)
