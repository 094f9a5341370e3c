"""Whether two sets of landmarks are one body: a turn by right angles, a mirror, a shift.

A pair of scans is one scan packed twice if many landmarks of the one come to lie on alike
landmarks of the other under one of the 48 ways of naming and reversing the axes and one shift.
Different people have alike organs, so landmarks of theirs fall near each other as well: but not as
near, and not as equal in brightness and contrast. The evidence weighs both, landmark by landmark.

Shape letters: T turns; N, M landmarks of the two scans; P pairs of alike landmarks; K matches.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.landmarks import Landmarks

TOLERANCE_MM = 3.5
LEVEL_TOLERANCE = 0.12
CONTRAST_RATIO = 2.0
REACH_MM = 4.5
"""How far apart matches may lie once the shift is fitted; as far, landmarks of strangers do too."""
SPREAD_MM, SPREAD_LEVEL, SPREAD_LOG_CONTRAST = 1.0, 0.02, 0.1
"""Mean deviations of one landmark in two packings; strangers' are spread over what is alike."""
OFF = 0.2
"""How often one of these is far off nonetheless: by a border, or thick slices."""
STRAY = 0.3
"""How often a match in two packings is no better than one of strangers."""
MATCHED_OF_ONE, MATCHED_OF_STRANGERS = 0.5, 0.2
"""Of possible landmarks: two packings under hard edits, and strangers at the best of all shifts."""
_FITS = 3

TURNS = np.array(
    [
        np.eye(3)[list(axes)] * np.array(signs)[:, None]
        for axes in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ],
    np.float32,
)
"""The 48 matrices that rename and reverse axes; the first changes nothing, and of each four one
after the other the first rows are alike."""


class Alignment(NamedTuple):
    """The best way to lay one scan's landmarks on another's.

    Attributes:
        matched: Landmarks that come to lie on an alike one.
        possible: The fewer of the two scans' landmarks inside the part that both show.
        turn: Which of `TURNS`.
        evidence: Logarithm of how much likelier this is of one body than of two.
    """

    matched: int
    possible: int
    turn: int
    evidence: float


def align(one: Landmarks, other: Landmarks) -> Alignment:
    """Lay one scan's landmarks on another's, as well as it goes."""
    if min(one.contrast_N.size, other.contrast_N.size) == 0:
        return Alignment(0, 0, 0, 0.0)
    turned_TN3 = np.ascontiguousarray(np.einsum("tij,nj->tni", TURNS, one.place_N3))
    kinds = (one.contrast_N, one.level_N, other.contrast_N, other.level_N)
    first_P, second_P = _alike(*kinds)
    turn, shift = _best(turned_TN3, first_P, other.place_N3, second_P)
    placed_N3 = turned_TN3[turn] + shift
    placed_N3, mate_N = _fit(placed_N3, first_P, other.place_N3, second_P)
    matched = int((mate_N >= 0).sum())
    inside = min(_inside(placed_N3, other.place_N3), _inside(other.place_N3, placed_N3))
    possible = max(matched, inside)
    gain = _gain(placed_N3, one.contrast_N, one.level_N, mate_N, *other)
    return Alignment(matched, possible, turn, _evidence(gain, matched, possible))


def _evidence(gain: float, matched: int, possible: int) -> float:
    """What the closeness of the matches says, and their number; one is spent on the shift."""
    if matched == 0:
        return 0.0
    for_match = np.log(MATCHED_OF_ONE / MATCHED_OF_STRANGERS)
    for_miss = np.log((1 - MATCHED_OF_ONE) / (1 - MATCHED_OF_STRANGERS))
    others = matched - 1
    return float(gain * others / matched + for_match * others + for_miss * (possible - matched))


@compiled
def _best(
    turned_TN3: NDArray[np.float32],
    first: NDArray[np.int32],
    place_M3: NDArray[np.float32],
    second: NDArray[np.int32],
) -> tuple[int, NDArray[np.float32]]:
    """The turn and shift that bring most landmarks onto alike ones, each counted once."""
    n, m, pairs = turned_TN3.shape[1], place_M3.shape[0], first.size
    best, best_turn = 0, 0
    best_shift = np.zeros(3, np.float32)
    shift_P3 = np.empty((pairs, 3), np.float32)
    used_N, used_M = np.empty(n, np.int32), np.empty(m, np.int32)
    order = np.empty(pairs, np.int64)
    for turn in range(turned_TN3.shape[0]):
        turned_N3 = turned_TN3[turn]
        for p in range(pairs):
            for axis in range(3):
                shift_P3[p, axis] = place_M3[second[p], axis] - turned_N3[first[p], axis]
        # Four turns after each other leave x alike.
        if turn % 4 == 0:
            order = np.argsort(shift_P3[:, 0])
        used_N[:], used_M[:] = -1, -1
        start = stop = 0
        for at in range(pairs):
            p = order[at]
            while shift_P3[order[start], 0] < shift_P3[p, 0] - TOLERANCE_MM:
                start += 1
            while stop < pairs and shift_P3[order[stop], 0] <= shift_P3[p, 0] + TOLERANCE_MM:
                stop += 1
            # No more than these can agree.
            if stop - start <= best:
                continue
            count = _agreeing(p, order[start:stop], shift_P3, first, second, used_N, used_M)
            if count > best:
                best, best_turn = count, turn
                best_shift[:] = shift_P3[p]
    return best_turn, best_shift


@compiled
def _agreeing(
    p: int,
    alike_in_x: NDArray[np.int64],
    shift_P3: NDArray[np.float32],
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    used_N: NDArray[np.int32],
    used_M: NDArray[np.int32],
) -> int:
    """How many pairs have about the shift of pair `p`, each landmark counted once."""
    count = 0
    for q in alike_in_x:
        if (
            abs(shift_P3[q, 1] - shift_P3[p, 1]) <= TOLERANCE_MM
            and abs(shift_P3[q, 2] - shift_P3[p, 2]) <= TOLERANCE_MM
            and used_N[first[q]] != p
            and used_M[second[q]] != p
        ):
            count += 1
            used_N[first[q]] = p
            used_M[second[q]] = p
    return count


@compiled
def _fit(
    placed_N3: NDArray[np.float32],
    first: NDArray[np.int32],
    place_M3: NDArray[np.float32],
    second: NDArray[np.int32],
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Where the first scan's landmarks lie after the median way to their mates, and the mates.

    Mates are each other's nearest among the alike within reach; without one it is -1.
    """
    mate_N = np.empty(placed_N3.shape[0], np.int32)
    for _ in range(_FITS):
        _find_mates(placed_N3, first, place_M3, second, mate_N)
        having = np.flatnonzero(mate_N >= 0)
        if having.size == 0:
            break
        way_K3 = place_M3[mate_N[having]] - placed_N3[having]
        for axis in range(3):
            placed_N3[:, axis] += np.float32(np.median(way_K3[:, axis]))
    return placed_N3, mate_N


@compiled
def _find_mates(
    placed_N3: NDArray[np.float32],
    first: NDArray[np.int32],
    place_M3: NDArray[np.float32],
    second: NDArray[np.int32],
    mate_N: NDArray[np.int32],
) -> None:
    n, m = placed_N3.shape[0], place_M3.shape[0]
    near_N, near_M = np.full(n, REACH_MM, np.float32), np.full(m, REACH_MM, np.float32)
    mate_N[:] = -1
    mate_M = np.full(m, -1, np.int32)
    for p in range(first.size):
        i, j = first[p], second[p]
        way = np.float32(0)
        for axis in range(3):
            way = max(way, abs(place_M3[j, axis] - placed_N3[i, axis]))
        if way < near_N[i]:
            near_N[i], mate_N[i] = way, j
        if way < near_M[j]:
            near_M[j], mate_M[j] = way, i
    for i in range(n):
        if mate_N[i] >= 0 and mate_M[mate_N[i]] != i:
            mate_N[i] = -1


@compiled
def _gain(
    placed_N3: NDArray[np.float32],
    contrast_N: NDArray[np.float32],
    level_N: NDArray[np.float32],
    mate_N: NDArray[np.int32],
    place_M3: NDArray[np.float32],
    contrast_M: NDArray[np.float32],
    level_M: NDArray[np.float32],
) -> float:
    """Sum over the matches: how much likelier so close a one is of one body than of two."""
    total = 0.0
    for i in range(mate_N.size):
        j = mate_N[i]
        if j < 0:
            continue
        ratio = np.log(CONTRAST_RATIO)
        likely = _closeness(np.log(contrast_N[i] / contrast_M[j]), SPREAD_LOG_CONTRAST, ratio)
        likely *= _closeness(level_N[i] - level_M[j], SPREAD_LEVEL, LEVEL_TOLERANCE)
        for axis in range(3):
            likely *= _closeness(placed_N3[i, axis] - place_M3[j, axis], SPREAD_MM, REACH_MM)
        total += np.log((1 - STRAY) * likely + STRAY)
    return total


@compiled
def _closeness(difference: float, spread: float, reach: float) -> float:
    """Density of a difference in two packings, over that in strangers, which is even."""
    return (1 - OFF) * reach / spread * math.exp(-abs(difference) / spread) + OFF


@compiled
def _alike(
    contrast_N: NDArray[np.float32],
    level_N: NDArray[np.float32],
    contrast_M: NDArray[np.float32],
    level_M: NDArray[np.float32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """All pairs of landmarks that could be one."""
    n, m = contrast_N.size, contrast_M.size
    first, second = np.empty(n * m, np.int32), np.empty(n * m, np.int32)
    pairs = 0
    for i in range(n):
        for j in range(m):
            a, b = contrast_N[i], contrast_M[j]
            is_same_kind = a * b > 0 and abs(level_N[i] - level_M[j]) <= LEVEL_TOLERANCE
            if is_same_kind and max(abs(a), abs(b)) <= CONTRAST_RATIO * min(abs(a), abs(b)):
                first[pairs], second[pairs] = i, j
                pairs += 1
    return first[:pairs], second[:pairs]


@compiled
def _inside(place_N3: NDArray[np.float32], place_M3: NDArray[np.float32]) -> int:
    """How many of the first lie in the box of the second."""
    low, high = np.empty(3, np.float32), np.empty(3, np.float32)
    for axis in range(3):
        low[axis] = place_M3[:, axis].min() - TOLERANCE_MM
        high[axis] = place_M3[:, axis].max() + TOLERANCE_MM
    count = 0
    for i in range(place_N3.shape[0]):
        inside = True
        for axis in range(3):
            if place_N3[i, axis] < low[axis] or place_N3[i, axis] > high[axis]:
                inside = False
        count += inside
    return count
