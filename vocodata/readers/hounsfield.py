"""Stored numbers to HU, int16 where that loses nothing; stored numbers to labels.

Shape letters: X Y Z voxels as stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import ImplausibleScanError, UnreadableScanError
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

INT16 = np.iinfo(np.int16)
_WHOLE, _NOT_WHOLE, _NOT_FINITE = 0, 1, 2


def as_hu(
    raw_XYZ: NDArray[Any],
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
    may_overwrite: bool = False,
) -> NDArray[Any]:
    """HU = raw * slope + intercept, as int16 if every voxel is whole and fits, else float32.

    Args:
        raw_XYZ: Stored voxels, integers or floats, any byte order; int16 with slope 1 and
            intercept 0 is returned as it is.
        slope: HU per stored step.
        intercept: HU of a stored 0.
        may_overwrite: Whether HU may take the place of the stored voxels: fresh memory for them
            costs twice as much as the sums.

    Raises:
        ImplausibleScanError: NaN or infinite voxels or scaling (`non_finite_hu`).
        UnreadableScanError: Voxels that are not numbers on one scale (`unsupported_dtype`).
    """
    if raw_XYZ.dtype.kind not in "iufb" or raw_XYZ.dtype.itemsize > 8:
        msg = (
            f"Voxels are of kind {raw_XYZ.dtype}; expected integers or floats of at most 64 bits. "
            "Convert the scan to int16 HU, or leave it out."
        )
        raise UnreadableScanError(msg, code="unsupported_dtype")
    if not np.isfinite([slope, intercept]).all():
        msg = f"HU scaling is slope {slope}, intercept {intercept}; expected finite numbers."
        raise ImplausibleScanError(msg, code="non_finite_hu")
    raw_XYZ = raw_XYZ.astype(raw_XYZ.dtype.newbyteorder("="), copy=False)
    if raw_XYZ.dtype == bool:
        raw_XYZ = raw_XYZ.view(np.uint8)
    if raw_XYZ.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        return raw_XYZ
    raw_ZYX = raw_XYZ.transpose(2, 1, 0)
    if _stays_whole(raw_ZYX, slope, intercept):
        can_take = may_overwrite and raw_ZYX.dtype == np.int16
        hu_ZYX = raw_ZYX if can_take else np.empty(raw_ZYX.shape, np.int16)
        _scale_whole(raw_ZYX, int(slope), int(intercept), hu_ZYX)
        return hu_ZYX.transpose(2, 1, 0)
    hu_ZYX = np.empty(raw_ZYX.shape, np.int16)
    outcome = _scale_int16(raw_ZYX, float(slope), float(intercept), hu_ZYX)
    if outcome == _NOT_FINITE:
        msg = (
            "Some voxels are NaN or infinite; expected HU everywhere. "
            "Fill them in the source, or leave the scan out."
        )
        raise ImplausibleScanError(msg, code="non_finite_hu")
    if outcome == _NOT_WHOLE:
        float_ZYX = np.empty(raw_ZYX.shape, np.float32)
        _scale_float32(raw_ZYX, float(slope), float(intercept), float_ZYX)
        return float_ZYX.transpose(2, 1, 0)
    return hu_ZYX.transpose(2, 1, 0)


def as_labels(raw_XYZ: NDArray[Any], *, slope: float = 1.0, intercept: float = 0.0) -> NDArray[Any]:
    """Labels as uint8 if they fit, else uint16.

    Raises:
        UnreadableScanError: Values that are not whole numbers from 0 to 65535
            (`labels_not_integers`).
    """
    raw_XYZ = raw_XYZ.astype(raw_XYZ.dtype.newbyteorder("="), copy=False)
    if raw_XYZ.dtype.kind == "b":
        return raw_XYZ.view(np.uint8)
    if raw_XYZ.dtype == np.uint8 and (slope, intercept) == (1.0, 0.0):
        return raw_XYZ
    if raw_XYZ.dtype.kind in "iuf":
        values = raw_XYZ if (slope, intercept) == (1.0, 0.0) else raw_XYZ * slope + intercept
        low, high = float(values.min()), float(values.max())
        # Slice by slice: a remainder of the whole would be as large as the labels themselves.
        is_whole = values.dtype.kind != "f" or not any(
            (values[:, :, z] % 1).any() for z in range(values.shape[2])
        )
        if low >= 0 and high <= np.iinfo(np.uint16).max and is_whole:
            return np.asarray(values.astype(np.uint8 if high <= 255 else np.uint16))
        found = f"values from {low:g} to {high:g} of kind {raw_XYZ.dtype}"
    else:
        found = f"kind {raw_XYZ.dtype}"
    msg = f"Labels have {found}; expected whole numbers from 0 to 65535. Is it a label file?"
    raise UnreadableScanError(msg, code="labels_not_integers")


def _stays_whole(raw: NDArray[Any], slope: float, intercept: float) -> bool:
    """Whether whole numbers of up to 32 bits, by whole slope and intercept, all become int16."""
    if raw.dtype.kind == "f" or raw.dtype.itemsize > 4 or raw.size == 0:
        return False
    if slope % 1 or intercept % 1 or abs(slope) > INT16.max:
        return False
    ends = [int(end) * int(slope) + int(intercept) for end in (raw.min(), raw.max())]
    return min(ends) >= INT16.min and max(ends) <= INT16.max


@compiled
def _scale_whole(
    raw_ZYX: NDArray[Any], slope: int, intercept: int, hu_ZYX: NDArray[np.int16]
) -> None:
    """Fill `hu_ZYX`, which may be the stored voxels themselves; what does not fit is not asked."""
    for z in range(raw_ZYX.shape[0]):
        for y in range(raw_ZYX.shape[1]):
            for x in range(raw_ZYX.shape[2]):
                hu_ZYX[z, y, x] = np.int16(np.int64(raw_ZYX[z, y, x]) * slope + intercept)


@compiled
def _scale_int16(
    raw_ZYX: NDArray[Any], slope: float, intercept: float, hu_ZYX: NDArray[np.int16]
) -> int:
    """Fill `hu_ZYX`; stop at the first voxel that int16 cannot hold, and say why."""
    outcome = 0
    for z in range(raw_ZYX.shape[0]):
        for y in range(raw_ZYX.shape[1]):
            for x in range(raw_ZYX.shape[2]):
                value = raw_ZYX[z, y, x] * slope + intercept
                if not np.isfinite(value):
                    return 2
                if value < -32768.0 or value > 32767.0 or value != np.floor(value):
                    outcome = 1
                elif outcome == 0:
                    hu_ZYX[z, y, x] = np.int16(value)
    return outcome


@compiled
def _scale_float32(
    raw_ZYX: NDArray[Any], slope: float, intercept: float, hu_ZYX: NDArray[np.float32]
) -> None:
    for z in range(raw_ZYX.shape[0]):
        for y in range(raw_ZYX.shape[1]):
            for x in range(raw_ZYX.shape[2]):
                hu_ZYX[z, y, x] = np.float32(raw_ZYX[z, y, x] * slope + intercept)
