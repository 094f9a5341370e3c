"""The box of a scan that holds the patient.

As the VoCo release crops: the bounding box of all voxels above the lower end of the window, no
margin. The table and stray bright voxels outside the patient count too; that is how the released
weights saw their scans.

Shape letters: X Y Z voxels in RAS; K J I the same axes from slowest to fastest in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import ImplausibleScanError
from vocodata.geometry import Box, Size, Volume, moved_affine
from vocodata.memory_order import in_memory_order
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
    lying = in_memory_order(volume.data_XYZ)
    low, high = _extent(lying.data_KJI, float(above_hu))
    if high[0] < 0:
        msg = (
            f"No voxel is above {above_hu:g} HU (the largest is {volume.data_XYZ.max():g}); "
            "expected a patient. Choose a preset whose window suits it, or leave the scan out."
        )
        raise ImplausibleScanError(msg, code="empty_foreground")
    first, last = low[list(lying.place)], high[list(lying.place)]
    start = np.where(lying.backwards, np.array(volume.shape_XYZ) - 1 - last, first)
    return Box(Size(*start.tolist()), Size(*(last - first + 1).tolist()))


def crop(volume: Volume, box: Box) -> Volume:
    """The voxels of a box, copied (the rest can be freed), at their place in the patient.

    Args:
        volume: Any volume.
        box: Inside the volume.
    """
    part_ZYX = volume.data_XYZ[box.slices].transpose(2, 1, 0).copy(order="C")
    return Volume(part_ZYX.transpose(2, 1, 0), moved_affine(volume.affine, box.start))


@compiled
def _extent(data_KJI: NDArray[Any], above: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last index (k, j, i) of voxels above; last is -1 if there are none.

    Layers from outside inwards; then rows, all of each: whole rows take vectors.
    """
    low, high = np.zeros(3, np.int64), np.array(data_KJI.shape, np.int64) - 1
    while low[0] <= high[0] and not _is_any_above(data_KJI, above, low[0], low[0], low[1], high[1]):
        low[0] += 1
    if low[0] > high[0]:
        high[:] = -1
        return low, high
    while not _is_any_above(data_KJI, above, high[0], high[0], low[1], high[1]):
        high[0] -= 1
    while not _is_any_above(data_KJI, above, low[0], high[0], low[1], low[1]):
        low[1] += 1
    while not _is_any_above(data_KJI, above, low[0], high[0], high[1], high[1]):
        high[1] -= 1
    is_above_I = np.zeros(data_KJI.shape[2], np.bool_)
    for k in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            row = data_KJI[k, j]
            for i in range(row.size):
                is_above_I[i] |= row[i] > above
    i_above = np.flatnonzero(is_above_I)
    low[2], high[2] = i_above[0], i_above[-1]
    return low, high


@compiled
def _is_any_above(
    data_KJI: NDArray[Any], above: float, first_k: int, last_k: int, first_j: int, last_j: int
) -> bool:
    for k in range(first_k, last_k + 1):
        for j in range(first_j, last_j + 1):
            row, found = data_KJI[k, j], 0
            for i in range(row.size):
                found += row[i] > above
            if found:
                return True
    return False
