"""The box of a scan that holds the patient.

As the VoCo release crops: the bounding box of all voxels above the lower end of the window, no
margin. The table and stray bright voxels outside the patient count too; that is how the released
weights saw their scans.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import ImplausibleScanError
from vocodata.geometry import Box, Size, Volume, moved_affine
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray


def foreground_box(volume: Volume, above_hu: float) -> Box:
    """The smallest box that holds every voxel above a threshold.

    Args:
        volume: HU, any axis order.
        above_hu: Voxels must be strictly above this, HU.

    Raises:
        ImplausibleScanError: No voxel is above (`empty_foreground`).

    >>> data = np.full((4, 4, 4), -1000, np.int16)
    >>> data[1, 2, 0] = data[2, 2, 3] = 40
    >>> foreground_box(Volume(data, np.eye(4)), -175)
    Box(start=Size(x=1, y=2, z=0), size=Size(x=2, y=1, z=4))
    """
    low, high = _extent(volume.data_XYZ.transpose(2, 1, 0), float(above_hu))
    if high[0] < 0:
        msg = (
            f"No voxel is above {above_hu:g} HU (the largest is {volume.data_XYZ.max():g}); "
            "expected a patient. Choose a preset whose window suits it, or leave the scan out."
        )
        raise ImplausibleScanError(msg, code="empty_foreground")
    start = Size(*reversed(low.tolist()))
    return Box(start, Size(*reversed((high - low + 1).tolist())))


def crop(volume: Volume, box: Box) -> Volume:
    """The voxels of a box, copied (the rest can be freed), at their place in the patient.

    Args:
        volume: Any volume.
        box: Inside the volume.
    """
    part_ZYX = volume.data_XYZ[box.slices].transpose(2, 1, 0).copy(order="C")
    return Volume(part_ZYX.transpose(2, 1, 0), moved_affine(volume.affine, box.start))


@compiled
def _extent(data_ZYX: NDArray[Any], above: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index (z, y, x) of voxels above; last is -1 if there are none."""
    low = np.array(data_ZYX.shape, np.int64)
    high = np.full(3, -1, np.int64)
    for z in range(data_ZYX.shape[0]):
        for y in range(data_ZYX.shape[1]):
            row = data_ZYX[z, y]
            first = 0
            while first < row.size and not row[first] > above:
                first += 1
            if first == row.size:
                continue
            last = row.size - 1
            while not row[last] > above:
                last -= 1
            low[0], low[1], low[2] = min(low[0], z), min(low[1], y), min(low[2], first)
            high[0], high[1], high[2] = max(high[0], z), max(high[1], y), max(high[2], last)
    return low, high
