"""Volumes, and where they lie in the patient.

World coordinates are RAS+ millimetres, as NIfTI has them: x grows towards the patient's right,
y towards the front (anterior), z towards the head (superior). A volume "in RAS" has its first
voxel axis closest to +x, the second to +y, the third to +z. An oblique grid stays oblique: it is
reordered and flipped to the nearest axes, and the small rotation remains in the affine.

Shape letters: X Y Z voxels along the three axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vocodata.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Iterable

Affine = NDArray[np.float64]
"""Homogeneous 4x4 matrix, voxel index -> RAS mm."""

_INT16 = np.dtype(np.int16)


class Spacing(NamedTuple):
    """Distance between voxel centres along each voxel axis, mm."""

    x: float
    y: float
    z: float


class Size(NamedTuple):
    """Voxels along each axis; also a voxel position where it says `start`."""

    x: int
    y: int
    z: int


class Box(NamedTuple):
    """A box of voxels: the first one, and how many along each axis."""

    start: Size
    size: Size

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array (X, Y, Z)."""
        x, y, z = (slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))
        return x, y, z


class AxisOrder(NamedTuple):
    """How to bring a grid to RAS: output axis i is input axis `axes[i]`, reversed if `flips[i]`."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels and their place.

    Attributes:
        data_XYZ: Values (X, Y, Z): HU as int16, or float32 where HU are not whole or do not fit;
            labels as uint8 or uint16. May be a view with any strides.
        affine: (4, 4) float64, voxel index -> RAS mm.

    Raises:
        GeometryError: Not three axes, or an affine that is no place in space.
    """

    data_XYZ: NDArray[Any]  # noqa: N815 (shape letters)
    affine: Affine

    def __post_init__(self) -> None:
        """Check the affine once, here, so that nobody else has to."""
        if self.data_XYZ.ndim != 3:
            msg = (
                f"Expected a volume with 3 axes (x, y, z), got {self.data_XYZ.ndim} axes of shape "
                f"{self.data_XYZ.shape}."
            )
            raise GeometryError(
                msg,
                code="not_three_dimensional",
            )
        object.__setattr__(self, "affine", checked_affine(self.affine))

    @property
    def shape_XYZ(self) -> Size:
        """Voxels along x, y, z."""
        return Size(*self.data_XYZ.shape)

    @cached_property
    def spacing_mm(self) -> Spacing:
        """Distance between voxel centres along each voxel axis, mm."""
        return spacing_of(self.affine)

    def __repr__(self) -> str:
        """Kind, size and spacing, never the voxels."""
        size = "x".join(map(str, self.shape_XYZ))
        spacing = " ".join(f"{s:g}" for s in self.spacing_mm)
        return f"Volume({size} {self.data_XYZ.dtype}, {spacing} mm)"


@dataclass(frozen=True, eq=False)
class Header:
    """What a file says of its volume before a voxel is read.

    Attributes:
        shape_XYZ: Voxels along x, y, z as stored.
        affine: (4, 4) float64, voxel index -> RAS mm.
        dtype: Kind of the stored voxels, before any rescaling.
        tilt_degrees: How far the file's slices leaned before they were put straight; 0 if they
            were straight.
        hu_dtype: Kind that HU may come to: int16 only if whatever may be stored is whole and fits.
        read_bytes: Most memory that reading takes for a voxel.
    """

    shape_XYZ: Size  # noqa: N815 (shape letters)
    affine: Affine
    dtype: np.dtype[Any]
    tilt_degrees: float = 0.0
    hu_dtype: np.dtype[Any] = _INT16
    read_bytes: int = 2

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between voxel centres along each voxel axis, mm."""
        return spacing_of(self.affine)


def checked_affine(affine: NDArray[Any]) -> Affine:
    """The affine as a read-only float64 (4, 4), if it is a place in space.

    Raises:
        GeometryError: NaN or infinity (`bad_affine`), an axis without extent (`zero_spacing`), or
            axes that lie in one plane (`bad_affine`).
    """
    matrix = np.array(affine, dtype=np.float64) + 0.0  # turns -0.0 into 0.0, for digests
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        msg = (
            f"Expected an affine of 4x4 finite numbers, got {matrix.tolist()}. "
            "Repair the header or leave the scan out."
        )
        raise GeometryError(
            msg,
            code="bad_affine",
        )
    spacing = spacing_of(matrix)
    for axis, length in zip("xyz", spacing, strict=True):
        if length <= 0:
            msg = (
                f"Spacing is {length:g} mm along {axis}; expected more than 0. "
                "Repair the header or leave the scan out."
            )
            raise GeometryError(
                msg,
                code="zero_spacing",
            )
    directions = matrix[:3, :3] / np.array(spacing)
    if abs(np.linalg.det(directions)) < 1e-3:
        msg = (
            f"The three voxel axes lie in one plane (directions {directions.round(4).tolist()}); "
            "expected three independent axes. Repair the header or leave the scan out."
        )
        raise GeometryError(
            msg,
            code="bad_affine",
        )
    matrix[3] = (0, 0, 0, 1)
    matrix.flags.writeable = False
    return matrix


def refuse_negative_spacing(spacing_mm: Iterable[float], where: str) -> None:
    """Raise if a header's spacing is below zero: formats have the direction elsewhere.

    Raises:
        GeometryError: `negative_spacing`.
    """
    for axis, length in zip("xyz", spacing_mm, strict=False):
        if length < 0:
            msg = (
                f"{where}: spacing is {length:g} mm along {axis}; expected more than 0, as a "
                "direction is said elsewhere. Repair the header, or leave the scan out."
            )
            raise GeometryError(msg, code="negative_spacing")


def spacing_of(affine: Affine) -> Spacing:
    """Length of each voxel axis, mm."""
    x, y, z = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0)).tolist()
    return Spacing(x, y, z)


def shear_degrees(affine: Affine) -> float:
    """How far the worst pair of voxel axes is from a right angle, degrees."""
    directions = affine[:3, :3] / np.array(spacing_of(affine))
    cosines = np.abs(directions.T @ directions - np.eye(3)).max()
    return float(np.degrees(np.arcsin(min(1.0, float(cosines)))))


def axis_order(affine: Affine) -> AxisOrder:
    """Which voxel axis is nearest to x, to y, to z, and which run backwards.

    The clearest axis chooses first; the others share what is left. Shear is taken out before
    (polar decomposition), so a sheared grid gets the order of its nearest rotation.
    """
    directions = affine[:3, :3] / np.array(spacing_of(affine))
    left, _, right = np.linalg.svd(directions)
    rotation = left @ right
    axes, flips = [0, 0, 0], [False, False, False]
    free = [0, 1, 2]
    for source in np.argsort(-np.abs(rotation).max(axis=0), kind="stable").tolist():
        target = free.pop(int(np.argmax(np.abs(rotation[free, source]))))
        axes[target] = source
        flips[target] = bool(rotation[target, source] < 0)
    return AxisOrder((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def orient_ras(volume: Volume) -> Volume:
    """The same voxels with axes reordered and reversed to the nearest RAS axes.

    Returns:
        A volume whose data is a view (nothing is copied) and whose affine moved with it: every
        voxel keeps its place in the patient.
    """
    order = axis_order(volume.affine)
    data = volume.data_XYZ.transpose(order.axes)
    data = data[tuple(slice(None, None, -1) if flip else slice(None) for flip in order.flips)]
    return Volume(data, oriented_affine(volume.affine, volume.shape_XYZ, order))


def oriented_affine(affine: Affine, shape_XYZ: Size, order: AxisOrder) -> Affine:
    """Affine of a grid of `shape_XYZ` after `order` was applied to it."""
    change = np.zeros((4, 4))
    change[3, 3] = 1
    for target, (source, flip) in enumerate(zip(*order, strict=True)):
        change[source, target] = -1 if flip else 1
        change[source, 3] = shape_XYZ[source] - 1 if flip else 0
    return np.asarray(affine @ change)


def moved_affine(affine: Affine, start: Size) -> Affine:
    """Affine of a grid cut out of another, its voxel 0 on the other's voxel `start`."""
    moved = np.array(affine)
    moved[:3, 3] += affine[:3, :3] @ np.array(start, dtype=np.float64)
    return moved
