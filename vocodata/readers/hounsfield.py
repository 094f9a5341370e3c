"""Stored numbers to HU, int16 where that loses nothing; stored numbers to labels.

Shape letters: X Y Z voxels as stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import ImplausibleScanError, UnreadableScanError
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        may_overwrite: Whether HU may take the memory of the stored voxels, all that their owner
            (`base`) has: fresh memory costs twice as much as the sums, and is held beside theirs.

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
        del hu_ZYX
        room_ZYX = _float_room(raw_ZYX) if may_overwrite else None
        return _as_float32(raw_ZYX, float(slope), float(intercept), room_ZYX).transpose(2, 1, 0)
    return hu_ZYX.transpose(2, 1, 0)


def hu_dtype_of(ends: tuple[int, int] | None, slope: float, intercept: float) -> np.dtype[Any]:
    """Kind that `as_hu` may come to; int16 only if every number that may be stored stays whole.

    Args:
        ends: Smallest and largest number that may be stored; None for floats.
        slope: HU per stored step.
        intercept: HU of a stored 0.

    >>> hu_dtype_of((0, 4095), 1, -1024), hu_dtype_of((0, 4095), 0.5, 0)
    (dtype('int16'), dtype('float32'))
    """
    is_whole = ends is not None and _are_whole(ends, slope, intercept)
    return np.dtype(np.int16 if is_whole else np.float32)


def stored_ends(dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Smallest and largest number of a kind, as `hu_dtype_of` takes them."""
    if dtype.kind == "b":
        return 0, 1
    return (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if dtype.kind in "iu" else None


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
        low, high, is_whole = _label_range(raw_XYZ, slope, intercept)
        if low >= 0 and high <= np.iinfo(np.uint16).max and is_whole:
            kind = np.uint8 if high <= 255 else np.uint16
            labels_XYZ: NDArray[Any] = np.empty_like(raw_XYZ, kind)
            for z, values_XY in enumerate(_label_slices(raw_XYZ, slope, intercept)):
                labels_XYZ[:, :, z] = values_XY
            return labels_XYZ
        found = f"values from {low:g} to {high:g} of kind {raw_XYZ.dtype}"
    else:
        found = f"kind {raw_XYZ.dtype}"
    msg = f"Labels have {found}; expected whole numbers from 0 to 65535. Is it a label file?"
    raise UnreadableScanError(msg, code="labels_not_integers")


def _label_slices(raw_XYZ: NDArray[Any], slope: float, intercept: float) -> Iterator[NDArray[Any]]:
    """Scaled slice by slice: float64 of the whole would be eight times as large as labels."""
    is_plain = (slope, intercept) == (1.0, 0.0)
    for z in range(raw_XYZ.shape[2]):
        yield raw_XYZ[:, :, z] if is_plain else raw_XYZ[:, :, z] * slope + intercept


def _label_range(
    raw_XYZ: NDArray[Any], slope: float, intercept: float
) -> tuple[float, float, bool]:
    """Smallest and largest label, and whether all are whole; NaN are in none of these."""
    low, high, is_whole = np.inf, -np.inf, True
    for values_XY in _label_slices(raw_XYZ, slope, intercept):
        low, high = min(low, float(values_XY.min())), max(high, float(values_XY.max()))
        is_whole = is_whole and not (values_XY.dtype.kind == "f" and (values_XY % 1).any())
    return low, high, is_whole


def _stays_whole(raw: NDArray[Any], slope: float, intercept: float) -> bool:
    """Whether whole numbers of up to 32 bits, by whole slope and intercept, all become int16."""
    if raw.dtype.kind == "f" or raw.dtype.itemsize > 4 or raw.size == 0:
        return False
    return _are_whole((int(raw.min()), int(raw.max())), slope, intercept)


def _are_whole(ends: tuple[int, int], slope: float, intercept: float) -> bool:
    """Whether all whole numbers from one to the other become HU that int16 holds."""
    if slope % 1 or intercept % 1 or abs(slope) > INT16.max:
        return False
    hu = [end * int(slope) + int(intercept) for end in ends]
    return min(hu) >= INT16.min and max(hu) <= INT16.max


def _float_room(raw_ZYX: NDArray[Any]) -> NDArray[np.float32] | None:
    """The memory that stored voxels lie in as float32 of their shape; None if it is too small."""
    owner: Any = raw_ZYX if raw_ZYX.base is None else raw_ZYX.base
    if not isinstance(owner, np.ndarray) or owner.nbytes < 4 * raw_ZYX.size:
        return None
    if not (raw_ZYX.flags.c_contiguous and owner.flags.c_contiguous and owner.flags.writeable):
        return None
    if owner.ctypes.data != raw_ZYX.ctypes.data:
        return None
    room = owner.reshape(-1).view(np.uint8)[: 4 * raw_ZYX.size]
    return room.view(np.float32).reshape(raw_ZYX.shape)


def _as_float32(
    raw_ZYX: NDArray[Any], slope: float, intercept: float, room_ZYX: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Float32 HU, in their own memory or in the room, at whose start the stored voxels lie."""
    if room_ZYX is None:
        room_ZYX = np.empty(raw_ZYX.shape, np.float32)
    elif raw_ZYX.dtype.itemsize < room_ZYX.dtype.itemsize:
        # From the last one on: what is written never reaches what is still to be read.
        _widen(raw_ZYX.reshape(-1), slope, intercept, room_ZYX.reshape(-1))
        return room_ZYX
    _scale_float32(raw_ZYX, slope, intercept, room_ZYX)
    return room_ZYX


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


@compiled
def _widen(raw_N: NDArray[Any], slope: float, intercept: float, hu_N: NDArray[np.float32]) -> None:
    for n in range(raw_N.size - 1, -1, -1):
        hu_N[n] = np.float32(raw_N[n] * slope + intercept)
