"""Whether two sets of landmarks are one body: a turn by right angles, a mirror, a shift.

A pair of scans is one scan packed twice if many landmarks of the one come to lie on alike
landmarks of the other under one of the 48 ways of naming and reversing the axes and one shift.
Different people have alike organs, but not to within a few millimetres everywhere.

Shape letters: T turns; N, M landmarks of the two scans; P pairs of alike landmarks.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.landmarks import Landmarks

TOLERANCE_MM = 3.5
LEVEL_TOLERANCE = 0.12
CONTRAST_RATIO = 2.0

TURNS = np.array(
    [
        np.eye(3)[list(axes)] * np.array(signs)[:, None]
        for axes in itertools.permutations(range(3))
        for signs in itertools.product((1, -1), repeat=3)
    ],
    np.float32,
)
"""The 48 matrices that rename and reverse axes; the first changes nothing."""


class Alignment(NamedTuple):
    """The best way to lay one scan's landmarks on another's.

    Attributes:
        matched: Landmarks that come to lie on an alike one.
        possible: The fewer of the two scans' landmarks inside the part that both show.
        turn: Which of `TURNS`.
    """

    matched: int
    possible: int
    turn: int

    @property
    def share(self) -> float:
        """Matched of possible."""
        return self.matched / max(1, self.possible)


def align(one: Landmarks, other: Landmarks) -> Alignment:
    """Lay one scan's landmarks on another's, as well as it goes."""
    if min(one.contrast_N.size, other.contrast_N.size) == 0:
        return Alignment(0, 0, 0)
    turned_TN3 = np.ascontiguousarray(np.einsum("tij,nj->tni", TURNS, one.place_N3))
    matched, possible, turn = _best(
        turned_TN3,
        one.contrast_N,
        one.level_N,
        other.place_N3,
        other.contrast_N,
        other.level_N,
    )
    return Alignment(matched, possible, turn)


@compiled
def _best(
    turned_TN3: NDArray[np.float32],
    contrast_N: NDArray[np.float32],
    level_N: NDArray[np.float32],
    place_M3: NDArray[np.float32],
    contrast_M: NDArray[np.float32],
    level_M: NDArray[np.float32],
) -> tuple[int, int, int]:
    first, second = _alike(contrast_N, level_N, contrast_M, level_M)
    n, m, pairs = contrast_N.size, contrast_M.size, first.size
    best, best_turn = 0, 0
    best_shift = np.zeros(3, np.float32)
    shift_P3 = np.empty((pairs, 3), np.float32)
    used_N, used_M = np.empty(n, np.int32), np.empty(m, np.int32)
    for turn in range(turned_TN3.shape[0]):
        turned_N3 = turned_TN3[turn]
        for p in range(pairs):
            for axis in range(3):
                shift_P3[p, axis] = place_M3[second[p], axis] - turned_N3[first[p], axis]
        order = np.argsort(shift_P3[:, 0])
        used_N[:], used_M[:] = -1, -1
        start = 0
        for at in range(pairs):
            p = order[at]
            while shift_P3[order[start], 0] < shift_P3[p, 0] - TOLERANCE_MM:
                start += 1
            count, later = 0, start
            while later < pairs and shift_P3[order[later], 0] <= shift_P3[p, 0] + TOLERANCE_MM:
                q = order[later]
                later += 1
                if (
                    abs(shift_P3[q, 1] - shift_P3[p, 1]) <= TOLERANCE_MM
                    and abs(shift_P3[q, 2] - shift_P3[p, 2]) <= TOLERANCE_MM
                    and used_N[first[q]] != p
                    and used_M[second[q]] != p
                ):
                    count += 1
                    used_N[first[q]] = p
                    used_M[second[q]] = p
            if count > best:
                best, best_turn = count, turn
                best_shift[:] = shift_P3[p]
    turned_N3 = turned_TN3[best_turn] + best_shift
    return best, min(_inside(turned_N3, place_M3), _inside(place_M3, turned_N3)), best_turn


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
