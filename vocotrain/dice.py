"""Dice from counts: how far two label arrays agree, class by class.

Counts are small and add up, so a scan can be compared slab by slab and a set of scans in any order.
A class that the truth does not hold has no Dice (None), as in MONAI's DiceMetric: 0/0 is no score.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Scores = dict[str, float | None]
"""Dice by class name, background left out; None where the truth lacks the class."""


@dataclass(frozen=True)
class ScanDice:
    """How well one scan was segmented.

    Attributes:
        scan: Its id.
        scores: Dice by class name, in [0, 1]; None where the truth lacks the class.
    """

    scan: str
    scores: Scores

    @property
    def mean(self) -> float | None:
        """Mean over the classes that the truth holds; None if it holds none."""
        return mean_of(self.scores.values())


def count_overlap(predicted: NDArray[Any], truth: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Voxels by predicted class (rows) and true class (columns).

    Args:
        predicted: Class of each voxel, in [0, classes).
        truth: The same shape and range.
        classes: Number of classes with background.

    Returns:
        Counts (classes, classes).
    """
    assert predicted.shape == truth.shape, f"{predicted.shape} against {truth.shape}"
    counts = np.zeros(classes * classes, np.int64)
    # plane by plane: bincount wants 8-byte integers, and a whole scan of them would be large
    for a, b in zip(predicted, truth, strict=True):
        pairs = a.astype(np.int64) * classes + b
        counts += np.bincount(pairs.ravel(), minlength=classes * classes)
    return counts.reshape(classes, classes)


def dice_scores(counts: NDArray[np.int64], names: Sequence[str]) -> Scores:
    """Dice of each class but background.

    Args:
        counts: From `count_overlap`.
        names: Class names in order, background first.

    >>> dice_scores(np.array([[8, 1, 0], [0, 3, 0], [0, 0, 0]]), ["background", "liver", "spleen"])
    {'liver': 0.857..., 'spleen': None}
    """
    both = counts.diagonal()
    predicted, truth = counts.sum(axis=1), counts.sum(axis=0)
    return {
        name: 2 * float(both[c]) / float(predicted[c] + truth[c]) if truth[c] else None
        for c, name in enumerate(names)
        if c > 0
    }


def mean_of(scores: Iterable[float | None]) -> float | None:
    """Mean of the scores that there are; None if there are none."""
    known = [score for score in scores if score is not None]
    return fmean(known) if known else None


def mean_by_class(scans: Sequence[ScanDice], names: Sequence[str]) -> Scores:
    """Mean over scans for each class but background."""
    return {name: mean_of(scan.scores[name] for scan in scans) for name in names[1:]}


def mean_over_scans(scans: Iterable[ScanDice]) -> float | None:
    """Mean over scans of their mean over classes: the protocol's figure."""
    return mean_of(scan.mean for scan in scans)


def by_scan(scans: Iterable[ScanDice]) -> Mapping[str, Scores]:
    """Scan id -> scores, for JSON."""
    return {scan.scan: scan.scores for scan in scans}
