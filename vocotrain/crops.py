"""Where crops lie in a field, and how a crop's position becomes a label.

A field is tiled exactly by a grid of base cells; a random crop has the size of a cell and may lie
anywhere inside. Everything here is pure: chance comes in as uniform numbers.

Shape letters: N random crops, K base cells in row-major order (x slowest), 3 axes x y z.

Source: Wu et al., arXiv:2410.09890, section 3, and the authors' released code: a 3 x 3 x 1 grid of
64^3 cells in a 192 x 192 x 64 field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.geometry import Size
from vocotrain.errors import CropOutsideGridError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def field_size(grid: Size, crop_vox: Size) -> Size:
    """Voxels of the field that a grid of cells tiles exactly.

    >>> field_size(Size(3, 3, 1), Size(64, 64, 64))
    Size(x=192, y=192, z=64)
    """
    return Size(*(cells * side for cells, side in zip(grid, crop_vox, strict=True)))


def base_starts(grid: Size, crop_vox: Size) -> NDArray[np.int64]:
    """First voxel of every base cell.

    Args:
        grid: Cells along x, y, z.
        crop_vox: Voxels of a cell.

    Returns:
        Starts (K, 3); cell (i, j, k) is at index (i * grid.y + j) * grid.z + k.

    >>> base_starts(Size(2, 2, 1), Size(64, 64, 64)).tolist()
    [[0, 0, 0], [0, 64, 0], [64, 0, 0], [64, 64, 0]]
    """
    cells_3K = np.indices(grid, dtype=np.int64).reshape(3, -1)
    starts: NDArray[np.int64] = cells_3K.T * np.array(crop_vox)
    return starts


def random_starts(
    uniform_N3: NDArray[np.float64], *, grid: Size, crop_vox: Size, reach_last: bool
) -> NDArray[np.int64]:
    """Turn uniform numbers into the first voxels of random crops.

    Along an axis with one cell there is one position only, so the released task is
    two-dimensional; a grid with more cells along z moves the crops there too.

    Args:
        uniform_N3: Numbers in [0, 1), one per crop and axis.
        grid: Cells along x, y, z.
        crop_vox: Voxels of a crop.
        reach_last: Whether the last possible position is drawn. The authors' code leaves it out,
            so the last cell is never hit exactly while the first one is; False repeats that.

    Returns:
        Starts (N, 3), each crop inside the field.

    >>> random_starts(np.array([[0.0, 0.9999, 0.5]]), grid=Size(3, 3, 1),
    ...               crop_vox=Size(64, 64, 64), reach_last=True).tolist()
    [[0, 128, 0]]
    """
    last = (np.array(grid) - 1) * np.array(crop_vox)
    positions = np.maximum(last + int(reach_last), 1)
    starts: NDArray[np.int64] = np.floor(uniform_N3 * positions).astype(np.int64)
    return starts


def overlap_labels(
    start_N3: NDArray[np.int64], *, grid: Size, crop_vox: Size
) -> NDArray[np.float32]:
    """Share of each crop that falls in each base cell.

    The position label of VoCo: a crop that lies half in a cell gets 0.5 there. The cells tile the
    field, so the labels of a crop add up to 1.

    Args:
        start_N3: First voxel of each crop.
        grid: Cells along x, y, z.
        crop_vox: Voxels of a crop, as of a cell.

    Returns:
        Labels (N, K) in [0, 1], cells ordered as in `base_starts`.

    Raises:
        CropOutsideGridError: A crop leaves the grid.

    >>> overlap_labels(np.array([[0, 32, 0]]), grid=Size(2, 2, 1), crop_vox=Size(64, 64, 64))
    array([[0.5, 0.5, 0. , 0. ]], dtype=float32)
    """
    _check_inside(start_N3, grid=grid, crop_vox=crop_vox)
    x_NI, y_NJ, z_NK = (
        _axis_shares(start_N3[:, axis], cells=grid[axis], side_vox=crop_vox[axis])
        for axis in range(3)
    )
    share = x_NI[:, :, None, None] * y_NJ[:, None, :, None] * z_NK[:, None, None, :]
    return share.reshape(len(start_N3), -1).astype(np.float32)


def _axis_shares(start_N: NDArray[np.int64], *, cells: int, side_vox: int) -> NDArray[np.float64]:
    """Share of each crop's extent in each cell along one axis."""
    distance = np.abs(start_N[:, None] - np.arange(cells) * side_vox)
    shares: NDArray[np.float64] = np.maximum(side_vox - distance, 0) / side_vox
    return shares


def _check_inside(start_N3: NDArray[np.int64], *, grid: Size, crop_vox: Size) -> None:
    last = (np.array(grid) - 1) * np.array(crop_vox)
    outside = np.any((start_N3 < 0) | (start_N3 > last), axis=1)
    if outside.any():
        worst = start_N3[int(np.argmax(outside))].tolist()
        msg = (
            f"A crop starts at voxel {worst}; expected 0 to {last.tolist()} for a grid of "
            f"{list(grid)} cells of {list(crop_vox)} voxels. Draw the crops inside the field."
        )
        raise CropOutsideGridError(msg)
