"""Scans that share words which agree: on one turn by right angles and on one shift.

By chance two strangers share some words; that several of them bring their landmarks onto each other
in one way is rare. So a shared word votes for a scan, a turn and a shift together, and scans with
few words in common but all for one way are found among those with many for none.

Shape letters: S scans, N M landmarks, W V words, F frames, P pairs of scans.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.compiling import compiled
from vocodata.word_index import (
    AXIS_BITS,
    AXIS_MASK,
    FRAME_MASK,
    FRAMES,
    SCAN_SHIFT,
    UNIT_MM,
    axes_by_way,
)
from vocodata.words import NO_WORD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.word_index import Index
    from vocodata.words import Points, Words

MIN_VOTES = 3
"""For one turn and about one shift, that make a pair worth a look."""
AGREE_MM = 6.0
_SLOT_BITS = np.uint32(2**13 - 1)
_BIN_BITS = 4
"""Shifts are told apart by 2 to this power units, 32 mm, when votes are counted."""
_WAYS = 4
"""Places of the table of votes where one may be."""


@compiled
def vote(begin: int, stop: int, words: Words, index: Index, points: Points) -> NDArray[np.int64]:
    """Count votes of some scans for those after each, and look closely at who has several.

    Returns:
        Pairs (P, 3) of scans some of whose shared words agree, and how many do.
    """
    words_SW, first_S = words.words_SW, points.first_S
    scans, most = words_SW.shape
    is_met, met = np.zeros(scans, np.bool_), np.empty(scans, np.int32)
    slots, chain_W = np.full(_SLOT_BITS + 1, -1, np.int16), np.empty(most, np.int16)
    table = np.zeros(1, np.uint32)
    pairs = [(0, 0, 0) for _ in range(0)]
    for one in range(begin, stop):
        size = _table_size(one, index)
        if size > table.size:
            table = np.zeros(size, np.uint32)
        partners = _count_votes(one, words, index, points, table[:size], is_met, met)
        if partners == 0:
            continue
        # Where each word of this scan is, by its last bits; words of equal bits are chained.
        for w in range(most):
            slot = words_SW[one, w] & _SLOT_BITS
            chain_W[w], slots[slot] = slots[slot], w
        for other in met[:partners]:
            is_met[other] = False
            agreeing = _agreeing(
                slots,
                chain_W,
                words_SW[one],
                words.ends_SW2[one],
                points.place_N3[first_S[one] :],
                points.kind_N[first_S[one] :],
                words_SW[other],
                words.ends_SW2[other],
                points.place_N3[first_S[other] :],
            )
            if agreeing >= MIN_VOTES:
                pairs.append((one, int(other), agreeing))
        for w in range(most):
            slots[words_SW[one, w] & _SLOT_BITS] = -1
    pairs_P3 = np.empty((len(pairs), 3), np.int64)
    for p in range(len(pairs)):
        pairs_P3[p, 0], pairs_P3[p, 1], pairs_P3[p, 2] = pairs[p]
    return pairs_P3


@compiled
def _table_size(one: int, index: Index) -> int:
    """Places for the votes of one scan: a power of two, more than it has votes."""
    votes = 0
    for bucket in index.bucket_SW[one]:
        votes += index.ends[bucket] - index.starts[bucket]
    size = 64
    while size < votes:
        size *= 2
    return size


@compiled
def _count_votes(
    one: int,
    words: Words,
    index: Index,
    points: Points,
    table: NDArray[np.uint32],
    is_met: NDArray[np.bool_],
    met: NDArray[np.int32],
) -> int:
    """Lists later scans with enough votes for one turn and shift; how many."""
    table[:] = 0
    first = points.first_S[one]
    turn_F, from_F3 = np.empty(FRAMES, np.int64), np.empty((FRAMES, 3), np.int64)
    partners = 0
    for w in range(words.words_SW.shape[1]):
        bucket = index.bucket_SW[one, w]
        start, end = index.starts[bucket], index.ends[bucket]
        if start == end or index.entry_E[end - 1] >> SCAN_SHIFT <= one:
            continue
        a, b = first + words.ends_SW2[one, w, 0], first + words.ends_SW2[one, w, 1]
        # Ends of one kind may be meant the other way round.
        for way in range(1 + (points.kind_N[a] == points.kind_N[b])):
            if way == 1:
                a, b = b, a
            _lay_out(points.place_N3[a], points.place_N3[b], turn_F, from_F3)
            for at in range(end - 1, start - 1, -1):
                entry = index.entry_E[at]
                other = entry >> SCAN_SHIFT
                if other <= one:
                    break
                frame = entry >> (3 * AXIS_BITS) & FRAME_MASK
                key = other << 8 | turn_F[frame]
                for axis in range(3):
                    place = entry >> (AXIS_BITS * (2 - axis)) & AXIS_MASK
                    key = key << 9 | (place - from_F3[frame, axis]) >> _BIN_BITS & 511
                if _cast(table, key) == MIN_VOTES and not is_met[other]:
                    is_met[other] = True
                    met[partners] = other
                    partners += 1
    return partners


@compiled
def _lay_out(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    turn_F: NDArray[np.int64],
    from_F3: NDArray[np.int64],
) -> None:
    """For each frame of the other scan's word: which turn brings a-b there, and a turned so."""
    source = axes_by_way(b[0] - a[0], b[1] - a[1], b[2] - a[2])
    for first in range(3):
        for is_falling in range(2):
            low, high = min((first + 1) % 3, (first + 2) % 3), max((first + 1) % 3, (first + 2) % 3)
            target = (first, high, low) if is_falling else (first, low, high)
            for signs in range(8):
                frame, turn = 8 * (2 * first + is_falling) + signs, 0
                for k in range(3):
                    is_up = (signs >> (2 - k) & 1) == 1
                    is_same = is_up == (b[source[k]] >= a[source[k]])
                    place = a[source[k]] / UNIT_MM
                    from_F3[frame, target[k]] = int(place if is_same else -place)
                    turn += (2 * source[k] + is_same) * 6 ** target[k]
                turn_F[frame] = turn


@compiled
def _cast(table: NDArray[np.uint32], key: int) -> int:
    """Count a vote; how many there are now for the same. Where the table is full, it is lost."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    tag = np.uint32(mixed >> np.uint64(40)) << np.uint32(8)
    home = np.int64(mixed & np.uint64(table.size - 1))
    for step in range(_WAYS):
        place = home ^ step
        count = table[place] & np.uint32(255)
        if count == 0:
            table[place] = tag | np.uint32(1)
            return 1
        if table[place] & np.uint32(0xFFFFFF00) == tag:
            table[place] += np.uint32(count < 255)
            return int(count) + 1
    return 0


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
    most = words_V.size
    turns = np.empty(2 * most, np.int32)
    shifts = np.empty((2 * most, 3), np.float32)
    found = 0
    for v in range(most):
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
    from_first, from_second, from_third = axes_by_way(b[0] - a[0], b[1] - a[1], b[2] - a[2])
    to_first, to_second, to_third = axes_by_way(d[0] - c[0], d[1] - c[1], d[2] - c[2])
    for source, target in (
        (from_first, to_first),
        (from_second, to_second),
        (from_third, to_third),
    ):
        sign = 1 if (b[source] - a[source]) * (d[target] - c[target]) >= 0 else -1
        shift[target] = c[target] - sign * a[source]
        turn += (2 * source + (sign > 0)) * 6**target
    return turn
