"""Which of very many scans show one body: a vote of words, then a proof by alignment.

Of the scans that share words (vocodata/words.py), those whose shared words agree on one turn and
one shift (vocodata/votes.py) are aligned, and the alignment decides. No step compares all pairs.

Shape letters: P pairs of scans.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.alignment import align
from vocodata.threads import in_threads
from vocodata.votes import MIN_VOTES, vote
from vocodata.word_index import index_of
from vocodata.words import points_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vocodata.landmarks import Landmarks

    OnProgress = Callable[[str, int, int], None]

SURE_AGREEING = 8
"""Shared words that agree on one turn and shift, from which on a pair is aligned in any case."""
MAX_UNSURE = 20_000
"""Pairs of fewer such words that are aligned, the most first: by chance there are more of them the
more pairs there are, and an alignment takes milliseconds."""
EVIDENCE_OF_ONE_PAIR = 17.5
"""Of alignments of one body (see vocodata/alignment.py), were there but two scans in the world:
between strangers and hard edits among ten real scans."""
_BLOCK_SCANS, _BLOCK_PAIRS = 256, 64


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


def least_evidence(scans: int) -> float:
    """The evidence from which on a pair is taken for one body, among so many scans.

    The more scans there are, the more of them may look like one by chance: evidence is a logarithm
    of odds, and the odds that a given other scan is the one fall with their number.

    >>> round(least_evidence(10), 1), round(least_evidence(160_000), 1)
    (19.8, 29.5)
    """
    return EVIDENCE_OF_ONE_PAIR + math.log(max(1, scans))


def find_matches(
    scans: Sequence[Landmarks],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> list[Match]:
    """All pairs of scans that show one body.

    Args:
        scans: Landmarks of each.
        threads: To share the work out to; None takes as many as there are cores.
        on_progress: Called with the stage (`compare` scans, `align` pairs), done and to do.
    """
    pairs_P2 = candidates(scans, threads=threads, on_progress=on_progress)
    least = least_evidence(len(scans))

    def matches(block: range) -> list[Match]:
        found = []
        for one, other in pairs_P2[block.start : block.stop].tolist():
            best = align(scans[one], scans[other])
            if best.evidence >= least:
                found.append(Match(one, other, best.matched, best.possible))
        return found

    every: list[Match] = []
    shares = in_threads(matches, len(pairs_P2), block=_BLOCK_PAIRS, threads=threads)
    for block, found in shares:
        every += found
        if on_progress is not None:
            on_progress("align", block.stop, len(pairs_P2))
    return every


def candidates(
    scans: Sequence[Landmarks],
    *,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> NDArray[np.int64]:
    """Pairs (P, 2) of scans whose shared words agree, the first before the second."""
    if len(scans) < 2:
        return np.empty((0, 2), np.int64)
    if on_progress is not None:
        on_progress("compare", 0, len(scans))
    points = points_of(scans)
    words = words_of(points, threads=threads)
    index = index_of(words, points, threads=threads)

    def pairs(block: range) -> NDArray[np.int64]:
        return vote(block.start, block.stop, words, index, points)

    found = []
    for block, pairs_P3 in in_threads(pairs, len(scans), block=_BLOCK_SCANS, threads=threads):
        found.append(pairs_P3)
        if on_progress is not None:
            on_progress("compare", block.stop, len(scans))
    return _worth_aligning(np.concatenate(found))


def _worth_aligning(pairs_P3: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs from so many agreeing words on that the unsure ones are not too many."""
    agreeing_P = pairs_P3[:, 2]
    least = SURE_AGREEING
    while (
        least > MIN_VOTES
        and (agreeing_P >= least - 1).sum() - (agreeing_P >= SURE_AGREEING).sum() <= MAX_UNSURE
    ):
        least -= 1
    return pairs_P3[agreeing_P >= least, :2]
