"""From scores on the model's grid back to labels on the scan's own grid.

The class *probabilities* are interpolated linearly to the scan's voxels and the largest one wins,
which gives smoother borders than carrying finished labels over. A voxel further than half a grid
voxel from the grid (outside the foreground crop) is background. Plane by plane, so the memory is
one slab of the grid and one plane of the scan, times the classes.

Shape letters: C classes, X Y Z voxels; the grid and the scan both in RAS order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vocodata.geometry import Size, Volume, orient_ras

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor

    from vocodata.geometry import Affine
    from vocotrain.sliding import Slab


class Axis(NamedTuple):
    """Where the scan's voxels of one axis lie on the grid.

    Attributes:
        first: First and one past the last voxel of the scan that lies on the grid.
        lower: Grid voxel at or below each of them, (stop - first,) int64.
        share: How far each is on its way to the next grid voxel, in [0, 1), float32.
        grid_vox: Grid voxels along this axis.
    """

    first: int
    lower: NDArray[np.int64]
    share: NDArray[np.float32]
    grid_vox: int

    def between(self, low: int, high: int) -> slice:
        """Positions in `lower` of the voxels that touch grid voxels low..high."""
        return slice(
            int(np.searchsorted(self.lower, low - 1)), int(np.searchsorted(self.lower, high + 1))
        )


@dataclass(frozen=True)
class Placement:
    """The three axes of a scan against those of a grid."""

    x: Axis
    y: Axis
    z: Axis


def place(scan_affine: Affine, scan_XYZ: Size, grid_affine: Affine, grid_XYZ: Size) -> Placement:
    """How a scan in RAS order lies on a grid whose axes are parallel to it.

    Args:
        scan_affine: (4, 4), scan voxel -> RAS mm, after reorientation to RAS.
        scan_XYZ: Voxels of the scan, after reorientation.
        grid_affine: (4, 4), grid voxel -> RAS mm.
        grid_XYZ: Voxels of the grid.
    """
    to_grid = np.linalg.inv(grid_affine) @ scan_affine
    slant = to_grid[:3, :3] - np.diag(to_grid.diagonal()[:3])
    assert np.abs(slant * np.array(scan_XYZ)).max() < 0.1, "the grid was made from this scan"
    return Placement(
        *(
            _axis(scan_XYZ[a], float(to_grid[a, a]), float(to_grid[a, 3]), grid_XYZ[a])
            for a in range(3)
        )
    )


def paint(slabs: Iterable[Slab], placement: Placement, labels_XYZ: NDArray[np.uint8]) -> None:
    """Write the class of each voxel into `labels_XYZ`, which starts as background.

    Args:
        slabs: All planes of the grid, in order along x.
        placement: From `place`.
        labels_XYZ: Scan-sized, in RAS order; may be a view of an array in any other order.
    """
    x = placement.x
    done = 0
    planes: Tensor | None = None
    for slab in slabs:
        fresh_XCYZ = slab.scores_CXYZ.softmax(dim=0).movedim(1, 0)
        first = slab.start if planes is None else slab.start - 1
        planes = fresh_XCYZ if planes is None else torch.cat([planes, fresh_XCYZ])
        last = first + len(planes) - 1
        while done < len(x.lower) and (x.lower[done] < last or last == x.grid_vox - 1):
            low = int(x.lower[done]) - first
            high = min(low + 1, len(planes) - 1)
            pair_CYZ = torch.stack([planes[low], planes[high]])
            _paint_plane(pair_CYZ, float(x.share[done]), placement, labels_XYZ[x.first + done])
            done += 1
        planes = planes[-1:].clone()


def native_labels(volume: Volume, slabs: Iterable[Slab], grid: Volume) -> NDArray[np.uint8]:
    """Labels in the voxel order of `volume`, whatever its orientation.

    Args:
        volume: The scan as read.
        slabs: Scores on `grid`, in order along x.
        grid: What the model saw: `volume` in RAS, resampled, cropped.

    Returns:
        Class of each voxel, shape of `volume`, in the memory order of a NIfTI file.
    """
    labels = np.zeros(volume.shape_XYZ, np.uint8, order="F")
    # a view: what is written through it lands in the scan's own order
    oriented = orient_ras(Volume(labels, volume.affine))
    placement = place(oriented.affine, oriented.shape_XYZ, grid.affine, grid.shape_XYZ)
    paint(slabs, placement, oriented.data_XYZ)
    return labels


def _axis(scan_vox: int, scale: float, offset: float, grid_vox: int) -> Axis:
    position = np.arange(scan_vox) * scale + offset
    # a hair of tolerance: voxels that lie on a grid voxel must not fall to the one below
    nearest = np.rint(position)
    position = np.where(np.abs(position - nearest) < 1e-4, nearest, position)
    on_grid = np.flatnonzero((position >= -0.5) & (position <= grid_vox - 0.5))
    position = position[on_grid].clip(0, grid_vox - 1)
    lower = np.floor(position).astype(np.int64)
    first = int(on_grid[0]) if on_grid.size else 0
    return Axis(first, lower, (position - lower).astype(np.float32), grid_vox)


def _paint_plane(
    pair_2CYZ: Tensor, share: float, placement: Placement, labels_YZ: NDArray[np.uint8]
) -> None:
    """One plane of the scan, between two planes of the grid."""
    # a mean of probabilities whose largest is background has background as its largest:
    # only what is near a labelled grid voxel needs work
    labelled_YZ = (pair_2CYZ.argmax(dim=1) != 0).any(dim=0)
    if not labelled_YZ.any():
        return
    rows, columns = (torch.nonzero(labelled_YZ.any(dim=d)).ravel() for d in (1, 0))
    y = placement.y.between(int(rows[0]), int(rows[-1]))
    z = placement.z.between(int(columns[0]), int(columns[-1]))
    mixed_CYZ = torch.lerp(pair_2CYZ[0], pair_2CYZ[1], share)
    mixed_CYZ = _stretch(mixed_CYZ, placement.y, y, dim=1)
    mixed_CYZ = _stretch(mixed_CYZ, placement.z, z, dim=2)
    y_first, z_first = placement.y.first, placement.z.first
    labels_YZ[y_first + y.start : y_first + y.stop, z_first + z.start : z_first + z.stop] = (
        mixed_CYZ.argmax(dim=0).to(torch.uint8).cpu().numpy()
    )


def _stretch(plane_CYZ: Tensor, axis: Axis, part: slice, *, dim: int) -> Tensor:
    """Linear interpolation along one axis, at the voxels `part` of it."""
    lower = torch.from_numpy(axis.lower[part]).to(plane_CYZ.device)
    upper = (lower + 1).clamp_max(axis.grid_vox - 1)
    shape = [1, 1, 1]
    shape[dim] = -1
    share = torch.from_numpy(axis.share[part]).to(plane_CYZ.device).reshape(shape)
    return torch.lerp(plane_CYZ.index_select(dim, lower), plane_CYZ.index_select(dim, upper), share)
