import nibabel as nib
import numpy as np
import pytest
from hypothesis import given

from tests.strategies import ORIENTATIONS, affine_of, affines, volumes
from vocodata.errors import GeometryError
from vocodata.geometry import (
    Box,
    Size,
    Spacing,
    Volume,
    axis_order,
    moved_affine,
    orient_ras,
    shear_degrees,
)


def place(volume, voxel):
    return (volume.affine @ [*voxel, 1])[:3]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_corner_keeps_its_place_in_all_48_orientations(orientation):
    data = np.zeros((4, 5, 6), np.int16)
    data[-1, 0, 0], data[0, -1, 0], data[0, 0, -1], data[0, 0, 0] = 1, 2, 3, 4
    volume = Volume(data, affine_of(orientation, (0.7, 1.1, 2.5), (10, -20, 30)))
    turned = orient_ras(volume)
    assert np.all(np.diag(turned.affine)[:3] > 0)
    for value in (1, 2, 3, 4):
        before = place(volume, np.argwhere(volume.data_XYZ == value)[0])
        after = place(turned, np.argwhere(turned.data_XYZ == value)[0])
        assert before == pytest.approx(after)


@given(affines)
def test_the_axis_order_is_nibabels(affine):
    expected = nib.io_orientation(affine)
    order = axis_order(affine)
    for target, (source, flip) in enumerate(zip(*order, strict=True)):
        assert expected[source].tolist() == [target, -1 if flip else 1]


@given(volumes())
def test_orienting_copies_nothing_and_twice_is_once(volume):
    turned = orient_ras(volume)
    assert np.shares_memory(turned.data_XYZ, volume.data_XYZ)
    again = orient_ras(turned)
    assert np.array_equal(again.data_XYZ, turned.data_XYZ)
    assert np.allclose(again.affine, turned.affine)


def test_an_affine_with_nan_is_refused():
    affine = np.eye(4)
    affine[0, 3] = np.nan
    with pytest.raises(GeometryError, match="4x4 finite numbers") as caught:
        Volume(np.zeros((2, 2, 2), np.int16), affine)
    assert caught.value.code == "bad_affine"


def test_a_spacing_of_zero_is_refused():
    with pytest.raises(GeometryError, match="Spacing is 0 mm along y") as caught:
        Volume(np.zeros((2, 2, 2), np.int16), np.diag([1.0, 0, 1, 1]))
    assert caught.value.code == "zero_spacing"


def test_axes_in_one_plane_are_refused():
    affine = np.eye(4)
    affine[:3, 2] = (1, 1, 0)
    with pytest.raises(GeometryError, match="lie in one plane"):
        Volume(np.zeros((2, 2, 2), np.int16), affine)


def test_four_axes_are_refused():
    with pytest.raises(GeometryError, match="3 axes"):
        Volume(np.zeros((2, 2, 2, 2), np.int16), np.eye(4))


def test_a_volume_shows_size_and_spacing_and_no_voxels():
    volume = Volume(np.zeros((2, 3, 4), np.int16), np.diag([0.75, 1, 2.5, 1]))
    assert repr(volume) == "Volume(2x3x4 int16, 0.75 1 2.5 mm)"
    assert volume.spacing_mm == Spacing(0.75, 1, 2.5)
    assert not volume.affine.flags.writeable


def test_shear_is_measured_in_degrees():
    affine = np.eye(4)
    affine[:3, 2] = (0, np.sin(np.radians(10)), np.cos(np.radians(10)))
    assert shear_degrees(affine) == pytest.approx(10)
    assert shear_degrees(np.diag([0.7, 0.7, 5, 1])) == pytest.approx(0)


def test_a_box_cut_out_lies_where_it_lay():
    affine = affine_of(ORIENTATIONS[13], (1, 2, 3), (5, 6, 7))
    box = Box(Size(2, 3, 4), Size(1, 1, 1))
    assert moved_affine(affine, box.start)[:3, 3] == pytest.approx((affine @ [2, 3, 4, 1])[:3])
    assert np.zeros((9, 9, 9))[box.slices].shape == (1, 1, 1)
