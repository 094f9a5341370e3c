import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from tests.strategies import ORIENTATIONS, affine_of, rotation_of
from tests.vocodata.dicom_series import write_enhanced, write_series
from vocodata.errors import GeometryError
from vocodata.geometry import Header, Size, Volume, orient_ras, shear_degrees
from vocodata.readers import read_header, read_labels, read_volume
from vocodata.straightening import AIR_HU, lean_of, leaning_again, straight_header, straightened

SIZE = (40, 44, 18)
STEP_MM = (0.8, 0.7, 2.5)
# The phantom's second derivatives are below 0.6 HU a mm^2, so linear interpolation is off by less
# than 0.8^2 / 8 * 2 * 0.6; rounding of the phantom and of the result adds half a HU each.
ERROR_HU = 1.1


def phantom(points_mm):
    """HU at places in the patient: no two directions alike, nothing symmetric."""
    x, y, z = np.moveaxis(points_mm, -1, 0)
    return 3 * x - 2 * y + 4 * z + 60 * np.sin(x / 11) + 40 * np.cos(y / 9 + z / 20)


def places(affine, shape):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def leaning(tilt_degrees, *, along=(0.0, 1.0), orientation=ORIENTATIONS[0], rotation=None):
    """Affine of slices stacked along voxel axis 2, leaning by an angle towards the others."""
    affine = affine_of(orientation, STEP_MM, (-12, 30, 8), rotation)
    lean = affine[:3, :2] / STEP_MM[:2] @ np.array(along)
    affine[:3, 2] += STEP_MM[2] * np.tan(np.radians(tilt_degrees)) * lean
    return affine


def sampled(affine, shape=SIZE):
    return Volume(np.rint(phantom(places(affine, shape))).astype(np.int16), affine)


def assert_is_phantom(volume, least_share=0.5):
    """Every voxel is the phantom's value at its place, or air."""
    expected = phantom(places(volume.affine, volume.shape_XYZ))
    inside = volume.data_XYZ != AIR_HU
    assert inside.mean() > least_share
    assert np.abs(volume.data_XYZ[inside] - expected[inside]).max() < ERROR_HU


@pytest.mark.parametrize("tilt", [-20.5, 0.0, 31.0])
def test_labels_lean_again_as_they_did(tilt):
    values = np.random.default_rng(3).integers(0, 9, SIZE).astype(np.uint8)
    volume = Volume(values, leaning(tilt, along=(0.6, 0.8)))
    straight = straightened(volume, is_labels=True)
    np.testing.assert_array_equal(leaning_again(straight.data_XYZ, volume), values)


orientations, angles = st.sampled_from(ORIENTATIONS), st.floats(-34, 34)


@given(orientations, angles, st.sampled_from([(0, 1), (1, 0), (0.6, 0.8)]), st.floats(-0.4, 0.4))
def test_a_tilted_stack_gives_back_what_it_was_taken_of(orientation, tilt, along, turn):
    affine = leaning(
        tilt, along=along, orientation=orientation, rotation=rotation_of((turn, -turn, turn / 2))
    )
    straight = straightened(sampled(affine))
    assert shear_degrees(straight.affine) <= 0.3
    assert_is_phantom(straight, least_share=0.3)
    assert_is_phantom(orient_ras(straight), least_share=0.3)


@pytest.mark.parametrize("tilt", [-20, 20])
def test_no_voxel_is_lost_and_slices_keep_their_number_and_distance(tilt):
    volume = sampled(leaning(tilt))
    straight = straightened(volume)
    assert straight.spacing_mm == pytest.approx(STEP_MM)
    assert straight.shape_XYZ.x, straight.shape_XYZ.z == (SIZE[0], SIZE[2])
    grown = np.ceil((SIZE[2] - 1) * STEP_MM[2] * np.tan(np.radians(20)) / STEP_MM[1])
    assert straight.shape_XYZ.y == SIZE[1] + grown
    # The first slice is not moved at all.
    first = straight.data_XYZ[:, :, 0]
    assert (first != AIR_HU).sum() == SIZE[0] * SIZE[1]
    assert np.array_equal(first[first != AIR_HU], volume.data_XYZ[:, :, 0].ravel())
    # Each other one keeps all of its rows but one, half of which lies in each of two.
    rows = (straight.data_XYZ != AIR_HU).any(0).sum(0)
    assert set(rows[1:].tolist()) <= {SIZE[1], SIZE[1] - 1}


def test_the_plan_from_the_header_is_the_grid_of_the_volume():
    affine = leaning(13, along=(0.6, 0.8), orientation=ORIENTATIONS[17])
    header = straight_header(Header(Size(*SIZE), affine, np.dtype(np.int16)))
    straight = straightened(sampled(affine))
    assert header.shape_XYZ == straight.shape_XYZ
    assert np.array_equal(header.affine, straight.affine)
    assert header.tilt_degrees == pytest.approx(13)


def test_a_straight_grid_and_one_that_leans_by_rounding_are_left_alone():
    for tilt in (0, 0.2):
        volume = sampled(leaning(tilt))
        assert straightened(volume) is volume
        header = Header(volume.shape_XYZ, volume.affine, np.dtype(np.int16))
        assert straight_header(header) is header


def test_a_whole_shift_moves_voxels_unchanged_whatever_their_kind():
    affine = np.diag([1.0, 1, 4, 1])
    affine[0, 2] = -2
    rng = np.random.default_rng(0)
    data = rng.integers(-32768, 32767, (9, 7, 5)).astype(np.int16)
    for volume in (Volume(data, affine), Volume(np.asfortranarray(data) / np.float32(3), affine)):
        straight = straightened(volume)
        assert straight.data_XYZ.dtype == volume.data_XYZ.dtype
        assert straight.shape_XYZ == (9 + 8, 7, 5)
        for z in range(5):
            start = 8 - 2 * z
            got = straight.data_XYZ[start : start + 9, :, z]
            assert np.array_equal(got, volume.data_XYZ[:, :, z])
        assert (straight.data_XYZ == AIR_HU).sum() >= 8 * 7 * 5


def test_values_never_leave_the_range_of_their_slice():
    rng = np.random.default_rng(1)
    data = rng.choice(np.array([-32768, 32767], np.int16), (12, 13, 6))
    data[:, :, 2], data[:, :, 3] = 32767, -32768
    straight = straightened(Volume(data, leaning(17, along=(0.6, 0.8)))).data_XYZ
    assert set(np.unique(straight[:, :, 2])) == {32767, AIR_HU}
    assert set(np.unique(straight[:, :, 3])) == {-32768, AIR_HU}


def test_labels_stay_labels_and_lie_where_the_image_has_them():
    affine = leaning(-24, along=(1, 0))
    hu = sampled(affine)
    labels = Volume((hu.data_XYZ > 0).astype(np.uint8) * 7, affine)
    straight = straightened(labels, is_labels=True)
    image = straightened(hu)
    assert straight.shape_XYZ == image.shape_XYZ
    assert set(np.unique(straight.data_XYZ)) == {0, 7}
    # Half a voxel across the steepest slope may fall on either side.
    clear = (np.abs(image.data_XYZ) > 10) & (image.data_XYZ != AIR_HU)
    assert np.array_equal(straight.data_XYZ[clear] > 0, image.data_XYZ[clear] > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({(1, 2): 2.5 * np.tan(np.radians(36))}, "36.0 degrees to their normal; expected at most"),
        ({(1, 2): 0.5, (0, 1): 0.3, (0, 2): 0.5}, "no two of them form straight slices"),
        ({(1, 0): 0.1, (2, 0): 0.1, (2, 1): 0.1}, "no two of them form straight slices"),
    ],
)
def test_what_no_gantry_does_is_refused(change, words):
    affine = np.diag([0.8, 0.7, 2.5, 1])
    for at, value in change.items():
        affine[at] = value
    with pytest.raises(GeometryError, match=words) as caught:
        lean_of(Size(*SIZE), affine)
    assert caught.value.code == "sheared_grid"


def dicom(folder, tilt_degrees, said=None, row=(1, 0, 0), column=(0, 1, 0)):
    """A series of the phantom, sampled at its own places; DICOM counts to the left and back."""
    row, column = np.array(row, float), np.array(column, float)
    normal = np.cross(row, column)
    step = STEP_MM[2] * (normal + np.tan(np.radians(tilt_degrees)) * column)
    at = np.array([-15.0, -12.0, 40.0]) + np.arange(SIZE[2])[:, None] * step
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2], lps[:3, 3] = row * 0.8, column * 0.7, step, at[0]
    ras = np.diag([-1.0, -1, 1, 1]) @ lps
    hu = np.rint(phantom(places(ras, SIZE))).astype(np.int16)
    change = {"PixelSpacing": [0.7, 0.8], "ImageOrientationPatient": [*row, *column]}
    if said is not None:
        change["GantryDetectorTilt"] = said
    return write_series(folder, hu, positions_mm=at, change=lambda _: change)


@pytest.mark.parametrize(("tilt", "said"), [(-22.5, None), (15, 15), (15, -15), (15, 14), (8, 0)])
def test_a_series_of_a_tilted_gantry_is_read_straight(tmp_path, tilt, said):
    folder = dicom(tmp_path / "s", tilt, said)
    volume, header = read_volume(folder), read_header(folder)
    assert_is_phantom(orient_ras(volume))
    assert volume.spacing_mm == pytest.approx((0.8, 0.7, 2.5))
    assert header.tilt_degrees == pytest.approx(abs(tilt), abs=0.01)
    assert header.shape_XYZ == volume.shape_XYZ
    assert header.affine == pytest.approx(volume.affine)


def test_oblique_slices_stacked_along_their_normal_may_say_that_they_are_tilted(tmp_path):
    s, c = np.sin(np.radians(20)), np.cos(np.radians(20))
    volume = read_volume(dicom(tmp_path / "s", 0, 20, column=(0, c, s)))
    assert volume.shape_XYZ == SIZE
    assert_is_phantom(volume)


@pytest.mark.parametrize(("tilt", "said"), [(0, 15), (10, 20), (20, 10)])
def test_a_tilt_that_positions_do_not_show_is_refused(tmp_path, tilt, said):
    folder = dicom(tmp_path / "s", tilt, said)
    with pytest.raises(GeometryError, match=f"tilted by {said} degrees") as caught:
        read_header(folder)
    assert caught.value.code == "gantry_tilt"


def test_an_enhanced_ct_says_its_tilt_in_a_group_of_its_frames(tmp_path):
    def tilted(made):
        group = Dataset()
        group.GantryDetectorTilt = 12
        made.SharedFunctionalGroupsSequence[0].CTAcquisitionDetailsSequence = [group]

    with pytest.raises(GeometryError, match="tilted by 12 degrees"):
        read_header(write_enhanced(tmp_path / "s", change=tilted))


def test_a_series_beyond_any_gantry_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"40\.00 degrees to their normal") as caught:
        read_volume(dicom(tmp_path / "s", 40))
    assert caught.value.code == "gantry_tilt"


def test_a_nifti_with_a_leaning_sform_is_read_straight_with_its_labels(tmp_path):
    affine = leaning(-18)
    hu = sampled(affine)
    labels = (hu.data_XYZ > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(hu.data_XYZ, affine), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "b.nii.gz")
    volume, straight = read_volume(tmp_path / "a.nii.gz"), read_labels(tmp_path / "b.nii.gz")
    assert_is_phantom(volume)
    assert straight.shape_XYZ == volume.shape_XYZ
    assert np.array_equal(straight.affine, volume.affine)
    assert read_header(tmp_path / "a.nii.gz").tilt_degrees == pytest.approx(18, abs=0.01)


def test_a_grid_that_no_memory_holds_is_refused():
    affine = leaning(30)
    affine[:3, 1] *= 1e-9
    with pytest.raises(
        GeometryError, match=r"Put straight, the slices have .* at most 2\^31"
    ) as caught:
        lean_of(Size(*SIZE), affine)
    assert caught.value.code == "implausible_size"
