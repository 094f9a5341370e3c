"""HU in steps: the one loss that a store may have, chosen by whoever builds it.

Each value becomes the nearest multiple of the step, a tie the even multiple, as `numpy.rint` has
it: at a step of 2, 1 becomes 0 and 3 becomes 4. So no value is off by more than half a step, and
means stay where they are. The fill value, -1024, is a multiple of every step. At the upper end of
int16 the nearest multiple may not fit; the largest that does is taken.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from vocodata.errors import StoreError
from vocodata.geometry import Volume
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS_HU = (1, 2, 4)
"""1 keeps every HU."""
_INT16 = np.iinfo(np.int16)


def checked_step(step_hu: int) -> int:
    """The step, if it is one.

    Raises:
        StoreError: No such step.
    """
    if step_hu not in STEPS_HU:
        known = ", ".join(map(str, STEPS_HU))
        msg = f"A step of {step_hu} HU is not known; expected one of {known}."
        raise StoreError(msg)
    return STEPS_HU[STEPS_HU.index(step_hu)]


def in_steps(volume: Volume, step_hu: int) -> Volume:
    """The volume with HU that are multiples of a step; at step 1 the volume itself.

    Args:
        volume: int16 HU.
        step_hu: One of `STEPS_HU`.

    >>> hu = np.array([-1024, -3, -1, 1, 2, 3, 5, 32767], np.int16).reshape(-1, 1, 1)
    >>> in_steps(Volume(hu, np.eye(4)), 2).data_XYZ.ravel().tolist()
    [-1024, -4, 0, 0, 2, 4, 4, 32766]
    """
    assert volume.data_XYZ.dtype == np.int16
    if checked_step(step_hu) == 1:
        return volume
    data_ZYX = volume.data_XYZ.transpose(2, 1, 0)
    stepped_ZYX = np.empty(data_ZYX.shape, np.int16)
    _look_up(data_ZYX, _multiples(step_hu), stepped_ZYX)
    return Volume(stepped_ZYX.transpose(2, 1, 0), volume.affine)


@cache
def _multiples(step_hu: int) -> NDArray[np.int16]:
    """What becomes of each value of int16, from the lowest on."""
    every = np.arange(_INT16.min, _INT16.max + 1)
    largest = _INT16.max // step_hu * step_hu
    nearest: NDArray[np.float64] = np.rint(every / step_hu) * step_hu
    return np.minimum(nearest, largest).astype(np.int16)


@compiled
def _look_up(
    data_ZYX: NDArray[np.int16], table: NDArray[np.int16], found_ZYX: NDArray[np.int16]
) -> None:
    """Fill `found_ZYX`; the table begins with the lowest value of int16."""
    for z in range(data_ZYX.shape[0]):
        for y in range(data_ZYX.shape[1]):
            for x in range(data_ZYX.shape[2]):
                found_ZYX[z, y, x] = table[np.int64(data_ZYX[z, y, x]) + 32768]
