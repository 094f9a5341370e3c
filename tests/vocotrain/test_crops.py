import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocodata.geometry import Size
from vocotrain.crops import base_starts, field_size, overlap_labels, random_starts
from vocotrain.errors import CropOutsideGridError

RELEASED = {"grid": Size(3, 3, 1), "crop_vox": Size(64, 64, 64)}
grids = st.builds(Size, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def counted_labels(start, grid, crop_vox):
    """Count voxels one cell at a time: slow, plain, on its own."""
    ranges = [range(s, s + n) for s, n in zip(start, crop_vox, strict=True)]
    labels = []
    for cell in itertools.product(*(range(n) for n in grid)):
        inside = [
            sum(v // n == c for v in r) for r, c, n in zip(ranges, cell, crop_vox, strict=True)
        ]
        labels.append(np.prod(inside) / np.prod(crop_vox))
    return labels


def test_base_cells_tile_the_field_exactly():
    grid, crop_vox = Size(3, 2, 2), Size(4, 5, 6)
    hits = np.zeros(field_size(grid, crop_vox), dtype=int)
    for x, y, z in base_starts(grid, crop_vox):
        hits[x : x + 4, y : y + 5, z : z + 6] += 1
    assert (hits == 1).all()


def test_cells_are_ordered_as_in_the_released_code():
    starts = base_starts(**RELEASED)
    for i, j in itertools.product(range(3), range(3)):
        assert starts[3 * i + j].tolist() == [64 * i, 64 * j, 0]


@given(
    grids,
    st.sampled_from([Size(4, 4, 4), Size(8, 6, 5)]),
    st.lists(st.floats(0, 0.999999), min_size=3, max_size=3),
)
def test_labels_equal_a_count_of_voxels_and_add_up_to_one(grid, crop_vox, uniform):
    start = random_starts(np.array([uniform]), grid=grid, crop_vox=crop_vox, reach_last=True)
    labels = overlap_labels(start, grid=grid, crop_vox=crop_vox)[0]
    np.testing.assert_allclose(labels, counted_labels(start[0], grid, crop_vox), atol=1e-6)
    assert labels.sum() == pytest.approx(1.0, abs=1e-6)


def test_a_base_cell_is_labelled_as_itself():
    labels = overlap_labels(base_starts(**RELEASED), **RELEASED)
    np.testing.assert_array_equal(labels, np.eye(9, dtype=np.float32))


def test_the_released_draw_never_reaches_the_last_position_and_ours_does():
    almost_one = np.full((1, 3), np.nextafter(1.0, 0.0))
    ours = random_starts(almost_one, **RELEASED, reach_last=True)
    released = random_starts(almost_one, **RELEASED, reach_last=False)
    assert ours.tolist() == [[128, 128, 0]]
    assert released.tolist() == [[127, 127, 0]]  # centres 32..159, depth fixed


def test_all_positions_are_drawn_equally_often():
    uniform = np.repeat((np.arange(129)[:, None] + 0.5) / 129, 3, axis=1)
    starts = random_starts(uniform, **RELEASED, reach_last=True)
    assert starts[:, 0].tolist() == list(range(129))
    assert set(starts[:, 2]) == {0}


def test_labels_have_the_published_statistics():
    starts = random_starts(
        np.random.default_rng(0).random((20000, 3)), **RELEASED, reach_last=False
    )
    labels = overlap_labels(starts, **RELEASED)
    touched = (labels > 0).sum(axis=1)
    assert np.mean(touched == 4) == pytest.approx(0.969, abs=0.01)
    assert labels.max(axis=1).mean() == pytest.approx(0.56, abs=0.01)


@pytest.mark.parametrize("start", [[-1, 0, 0], [0, 129, 0], [0, 0, 1]])
def test_a_crop_outside_the_grid_is_refused(start):
    with pytest.raises(
        CropOutsideGridError, match=r"starts at voxel .* expected 0 to \[128, 128, 0"
    ):
        overlap_labels(np.array([[5, 5, 0], start]), **RELEASED)
