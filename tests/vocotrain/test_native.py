"""Labels land where the anatomy is, whatever the scan's orientation, spacing or tilt."""

import itertools

import numpy as np
import pytest
import torch

from vocodata.foreground import crop, foreground_box
from vocodata.geometry import Box, Size, Spacing, Volume
from vocodata.resampling import resample
from vocotrain.native import native_labels
from vocotrain.sliding import Slab, slide

TISSUE, BLOCK, AIR = 0, 200, -1000


def direction(codes: str) -> np.ndarray:
    """Directions of the voxel axes for a code such as "LPS" (where each axis grows to)."""
    signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    matrix = np.zeros((3, 3))
    for column, code in enumerate(codes):
        row, sign = signs[code]
        matrix[row, column] = sign
    return matrix


def tilt(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    turn_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return turn_x @ turn_z


def phantom(codes, spacing, degrees, shape=(44, 40, 36)):
    """A body with an asymmetric bright block, defined in its own voxels."""
    affine = np.eye(4)
    affine[:3, :3] = tilt(degrees) @ direction(codes) * np.array(spacing)
    affine[:3, 3] = (31.0, -17.5, 240.0)
    hu = np.full(shape, AIR, np.int16)
    hu[4:-3, 5:-2, 3:-6] = TISSUE
    block = np.zeros(shape, bool)
    block[8:22, 10:33, 6:15] = True
    hu[block] = BLOCK
    return Volume(hu, affine), block


def bright_is_class_one(crops_WCXYZ: torch.Tensor) -> torch.Tensor:
    """A model that thresholds: class 1 above the middle between tissue and block."""
    margin = (crops_WCXYZ - (TISSUE + BLOCK) / 2) / 10
    return torch.cat([-margin, margin], dim=1)


def labelled(volume, grid_mm):
    grid = resample(volume, Spacing(*grid_mm))
    grid = crop(grid, foreground_box(grid, -500))
    image = torch.from_numpy(grid.data_XYZ.astype(np.float32))
    slabs = slide(image, bright_is_class_one, roi_vox=Size(16, 16, 16), overlap=0.5)
    return native_labels(volume, slabs, grid)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "LAS", "SRA", "ILA"])
@pytest.mark.parametrize("degrees", [0, 11])
def test_a_block_is_labelled_exactly_where_it_is(codes, degrees):
    volume, block = phantom(codes, (1.0, 1.0, 1.0), degrees)
    np.testing.assert_array_equal(labelled(volume, (1.0, 1.0, 1.0)), block)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize(
    ("spacing", "grid_mm"),
    [
        ((0.7, 0.7, 2.5), (1.5, 1.5, 1.5)),
        ((0.8, 1.1, 3.0), (1.25, 1.25, 5.0)),
        ((3.0, 3.0, 3.0), (1.5, 1.5, 2.0)),
    ],
)
def test_another_spacing_moves_borders_by_less_than_half_a_grid_voxel(codes, spacing, grid_mm):
    volume, block = phantom(codes, spacing, 7)
    labels = labelled(volume, grid_mm)
    wrong = np.argwhere(labels != block)
    assert len(wrong) < 0.25 * block.sum()
    # how far each wrong voxel is from a voxel of the other kind, along the axis where it is nearest
    corner, end = np.argwhere(block).min(axis=0), np.argwhere(block).max(axis=0)
    reach_mm = np.max(grid_mm) / 2 + np.max(spacing) / 2
    for voxel in wrong:
        faces = np.minimum(np.abs(voxel - corner + 0.5), np.abs(voxel - end - 0.5))
        assert (faces * np.array(spacing)).min() <= reach_mm + 1e-6
    np.testing.assert_allclose(
        np.argwhere(labels).mean(axis=0) * spacing,
        np.argwhere(block).mean(axis=0) * spacing,
        atol=np.max(grid_mm) / 4,
    )


def test_on_its_own_grid_a_scan_keeps_every_class():
    scores = torch.randn(5, 9, 8, 7, generator=torch.Generator().manual_seed(3))
    volume = Volume(np.zeros((9, 8, 7), np.int16), np.diag([-1.5, -1.5, 2.0, 1.0]))
    grid = resample(volume, volume.spacing_mm)
    slabs = [Slab(0, scores[:, :4]), Slab(4, scores[:, 4:5]), Slab(5, scores[:, 5:])]
    expected = scores.argmax(dim=0).numpy()[::-1, ::-1, :]
    np.testing.assert_array_equal(native_labels(volume, slabs, grid), expected)


def test_work_is_left_out_only_where_all_is_background():
    """The shortcut around labelled voxels gives what full interpolation and argmax give."""
    random = torch.Generator().manual_seed(5)
    scores = torch.randn(4, 6, 7, 8, generator=random) * 3
    scores[0] += 4
    fine = Volume(np.zeros((16, 19, 22), np.int16), np.diag([1.0, 1.0, 1.0, 1.0]))
    grid = Volume(np.zeros((6, 7, 8), np.int16), np.diag([3.0, 3.0, 3.0, 1.0]))
    got = native_labels(fine, [Slab(0, scores)], grid)
    chances = scores.softmax(dim=0).numpy().astype(np.float64)
    expected = np.zeros(fine.shape_XYZ, np.uint8)
    for voxel in itertools.product(*map(range, fine.shape_XYZ)):
        position = np.array(voxel) / 3
        low = np.minimum(np.floor(position).astype(int), np.array(grid.shape_XYZ) - 1)
        mixed = np.zeros(4)
        for corner in itertools.product((0, 1), repeat=3):
            at = np.minimum(low + corner, np.array(grid.shape_XYZ) - 1)
            share = position - low
            mixed += np.prod(np.where(corner, share, 1 - share)) * chances[:, *at]
        expected[voxel] = mixed.argmax()
    assert 0 < (expected > 0).sum() < expected.size
    np.testing.assert_array_equal(got, expected)


def test_a_voxel_outside_the_foreground_is_background():
    volume = Volume(np.zeros((10, 10, 10), np.int16), np.eye(4))
    grid = crop(resample(volume, Spacing(1, 1, 1)), Box(Size(3, 2, 4), Size(4, 5, 3)))
    labels = native_labels(
        volume, [Slab(0, torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 4, 5, 3))], grid
    )
    expected = np.zeros((10, 10, 10), np.uint8)
    expected[3:7, 2:7, 4:7] = 1
    np.testing.assert_array_equal(labels, expected)
