"""Exact statistics of int16 HU, from how often each value is there.

Counts of parts of a volume add up, so that a volume need not be held whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vocodata.compiling import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

BODY_ABOVE_HU = -500
_LOWEST_HU = -32768


@dataclass(frozen=True)
class ScanStats:
    """What the stored voxels look like, HU.

    Attributes:
        hu_min: Smallest value.
        hu_max: Largest value.
        hu_mean: Mean.
        hu_std: Standard deviation.
        hu_p1: First percentile.
        hu_p50: Median.
        hu_p99: 99th percentile.
        body_fraction: Share of voxels above -500 HU, which air and lung are not.
    """

    hu_min: int
    hu_max: int
    hu_mean: float
    hu_std: float
    hu_p1: float
    hu_p50: float
    hu_p99: float
    body_fraction: float


def statistics_of(counts: NDArray[np.int64]) -> ScanStats:
    """The statistics of voxels that were counted.

    Args:
        counts: (65536,) of at least one voxel, as `value_counts` gives.
    """
    present = np.flatnonzero(counts)
    counts, values = counts[present], (present + _LOWEST_HU).astype(np.float64)
    voxels = int(counts.sum())
    mean = float((values * counts).sum() / voxels)
    running = counts.cumsum()
    p1, p50, p99 = (
        float(values[np.searchsorted(running, share * voxels)]) for share in (0.01, 0.5, 0.99)
    )
    return ScanStats(
        hu_min=int(values[0]),
        hu_max=int(values[-1]),
        hu_mean=mean,
        hu_std=float(np.sqrt((np.square(values - mean) * counts).sum() / voxels)),
        hu_p1=p1,
        hu_p50=p50,
        hu_p99=p99,
        body_fraction=float(counts[values > BODY_ABOVE_HU].sum() / voxels),
    )


@compiled
def value_counts(data: NDArray[np.int16]) -> NDArray[np.int64]:
    """(65536,) how often each value from -32768 on is in a volume, its last axis the fastest."""
    counts = np.zeros(65536, np.int64)
    for k in range(data.shape[0]):
        for j in range(data.shape[1]):
            for i in range(data.shape[2]):
                counts[np.int64(data[k, j, i]) + 32768] += 1
    return counts
