"""Slices stacked at an angle (a tilted gantry) onto a grid with right angles.

The affine of such a stack says where each slice lies: all in one direction, but not along the
slices' normal. Moving every slice within its own plane puts them straight, without a value taken
from another slice. Slices keep their number, their place along the normal and their pixel size;
the plane grows by as much as the stack leans, so nothing is cut off, and is air where no slice was.
What is done follows from the affine alone: a stack that leans too far to be a gantry, or whose
planes are themselves skewed, is refused.

Shape letters: X Y Z voxel axes as stored; K slices of the stack, J I the axes of a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vocodata.errors import GeometryError
from vocodata.geometry import Header, Size, Volume, shear_degrees, spacing_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Affine

STRAIGHT_DEGREES = 0.3
"""Positions are rounded in headers; less than this is a right angle."""
MAX_TILT_DEGREES = 35.0
"""Gantries tilt by up to 30 degrees."""
AIR_HU = -1024
_MAX_VOXELS = 2**31
# Rounding noise of headers, in voxels; less is no shift at all, so that a voxel keeps its value.
_SHIFT_NOISE_VOX = 1e-4


@dataclass(frozen=True, eq=False)
class Lean:
    """How a stack leans, and the grid that holds it once it is straight.

    Attributes:
        stack: Voxel axis along which the slices are stacked.
        tilt_degrees: Angle between the stack and the slices' normal.
        shift_vox: Voxels by which each slice lies further along each axis than the one before,
            0 along `stack`.
        shape_XYZ: Voxels of the straight grid.
        affine: Of the straight grid.
    """

    stack: int
    tilt_degrees: float
    shift_vox: tuple[float, float, float]
    shape_XYZ: Size  # noqa: N815 (shape letters)
    affine: Affine


def lean_of(shape_XYZ: Size, affine: Affine) -> Lean | None:
    """What is to be done to put a grid straight; None where its angles are right already.

    Raises:
        GeometryError: `sheared_grid`: no two voxel axes are at right angles, or the third leans by
            more than 35 degrees; `implausible_size`: a pixel is so small that no memory holds the
            straight grid.
    """
    if shear_degrees(affine) <= STRAIGHT_DEGREES:
        return None
    stack = _stack_axis(affine)
    plane = [axis for axis in range(3) if axis != stack]
    normal = np.cross(affine[:3, plane[0]], affine[:3, plane[1]])
    normal /= np.linalg.norm(normal)
    step = affine[:3, stack]
    along = float(step @ normal)
    tilt = float(np.degrees(np.arccos(min(1.0, abs(along) / float(np.linalg.norm(step))))))
    if tilt > MAX_TILT_DEGREES:
        msg = (
            f"Slices are stacked at {tilt:.1f} degrees to their normal; expected at most "
            f"{MAX_TILT_DEGREES:g}, which no gantry exceeds. Repair the header, or leave it out."
        )
        raise GeometryError(msg, code="sheared_grid")
    in_plane = np.linalg.lstsq(affine[:3, plane], step - along * normal, rcond=None)[0]
    shift, size, straight = [0.0, 0.0, 0.0], list(shape_XYZ), np.array(affine)
    straight[:3, stack] = along * normal
    for axis, each in zip(plane, in_plane.tolist(), strict=True):
        shift[axis] = each
        low, high = _reach(each, shape_XYZ[stack])
        size[axis] += high - low
        straight[:3, 3] += low * affine[:3, axis]
    if math.prod(size) > _MAX_VOXELS:
        msg = (
            f"Put straight, the slices have {tuple(size)} voxels; expected at most 2^31. Repair "
            "the header's spacing, or leave it out."
        )
        raise GeometryError(msg, code="implausible_size")
    return Lean(stack, tilt, (shift[0], shift[1], shift[2]), Size(*size), straight)


def straight_header(header: Header) -> Header:
    """The header of the scan as `straightened` gives it; itself if nothing is to be done.

    Raises:
        GeometryError: As `lean_of`.
    """
    lean = lean_of(header.shape_XYZ, header.affine)
    if lean is None:
        return header
    return replace(
        header, shape_XYZ=lean.shape_XYZ, affine=lean.affine, tilt_degrees=lean.tilt_degrees
    )


def straightened(volume: Volume, *, is_labels: bool = False) -> Volume:
    """The volume on a grid with right angles; itself if it has them already.

    Args:
        volume: Any orientation.
        is_labels: Take the nearest pixel, and 0 where no slice was; else interpolate linearly,
            and put air.

    Raises:
        GeometryError: As `lean_of`.

    >>> leaning = np.eye(4)
    >>> leaning[0, 2] = 0.5
    >>> ones = np.ones((2, 1, 3), np.int16)
    >>> straightened(Volume(ones, leaning)).data_XYZ[:, 0].T
    array([[    1,     1, -1024],
           [-1024,     1, -1024],
           [-1024,     1,     1]], dtype=int16)
    """
    lean = lean_of(volume.shape_XYZ, volume.affine)
    if lean is None:
        return volume
    # Compiled code is loaded only where it is needed; few stacks lean.
    from vocodata.resampling_kernels import shift_slices

    data = volume.data_XYZ
    k, j, i = (
        lean.stack,
        *sorted(
            (axis for axis in range(3) if axis != lean.stack),
            key=lambda axis: -abs(data.strides[axis]),
        ),
    )
    shift_K2 = np.stack(
        [_shifts(lean.shift_vox[axis], data.shape[k], nearest=is_labels) for axis in (j, i)], axis=1
    )
    shape = [lean.shape_XYZ[axis] for axis in (k, j, i)]
    # Of the volume's own kind from the start: numpy's integers would take four times as much.
    out_KJI = np.full(shape, 0 if is_labels else AIR_HU, data.dtype)
    shift_slices(data.transpose(k, j, i), shift_K2, data.dtype.kind != "f", out_KJI)
    return Volume(out_KJI.transpose(np.argsort([k, j, i])), lean.affine)


def leaning_again(labels_XYZ: NDArray[np.uint8], volume: Volume) -> NDArray[np.uint8]:
    """Labels of `straightened(volume)` on the grid of `volume`: for each voxel the nearest.

    Args:
        labels_XYZ: On the straight grid.
        volume: As it was before.

    Returns:
        Labels of the shape of `volume`, in the memory order of a NIfTI file; the same array if
        nothing leans.

    Raises:
        GeometryError: As `lean_of`.
    """
    lean = lean_of(volume.shape_XYZ, volume.affine)
    if lean is None:
        return labels_XYZ
    leaning_XYZ = np.empty(volume.shape_XYZ, labels_XYZ.dtype, order="F")
    slices = volume.shape_XYZ[lean.stack]
    # Only whole voxels: a slice of labels is a window of the straight one.
    first_3K = [-_shifts(each, slices, nearest=True).astype(int) for each in lean.shift_vox]
    for k in range(slices):
        place: list[slice] = [
            slice(first_K[k], first_K[k] + side)
            for first_K, side in zip(first_3K, volume.shape_XYZ, strict=True)
        ]
        place[lean.stack] = slice(k, k + 1)
        whole = [slice(None)] * 3
        whole[lean.stack] = slice(k, k + 1)
        leaning_XYZ[tuple(whole)] = labels_XYZ[tuple(place)]
    return leaning_XYZ


def _stack_axis(affine: Affine) -> int:
    """The axis whose two others are at right angles; of several, the one with the longest steps.

    Along the finest axes an interpolation loses least.
    """
    spacing = np.array(spacing_of(affine))
    directions = affine[:3, :3] / spacing
    apart = np.degrees(np.arcsin(np.clip(np.abs(directions.T @ directions), 0, 1)))
    able = [
        axis
        for axis in range(3)
        if apart[tuple(other for other in range(3) if other != axis)] <= STRAIGHT_DEGREES
    ]
    if not able:
        msg = (
            f"The voxel axes are {shear_degrees(affine):.1f} degrees off a right angle, and no two "
            "of them form straight slices; expected right angles, or one tilted axis. "
            "Straighten the scan first, or leave it out."
        )
        raise GeometryError(msg, code="sheared_grid")
    return max(able, key=lambda axis: (round(float(spacing[axis]), 3), axis))


def _reach(shift_vox: float, slices: int) -> tuple[int, int]:
    """How far slices reach before the first one and after it, whole voxels."""
    last = (slices - 1) * shift_vox
    noise = _SHIFT_NOISE_VOX
    return int(np.floor(min(0.0, last) + noise)), int(np.ceil(max(0.0, last) - noise))


def _shifts(shift_vox: float, slices: int, *, nearest: bool) -> NDArray[np.float64]:
    """For each slice, what to add to a voxel of the straight grid to get one of the slice."""
    low, _ = _reach(shift_vox, slices)
    shift_K = low - np.arange(slices) * shift_vox
    whole = np.rint(shift_K)
    return np.where(nearest | (np.abs(shift_K - whole) < _SHIFT_NOISE_VOX), whole, shift_K)
