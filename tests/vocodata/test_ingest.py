import dataclasses
import pickle

import nibabel as nib
import numpy as np
import pytest

from tests.strategies import ORIENTATIONS, affine_of
from tests.vocodata.dicom_series import write_series
from vocodata.discover import Scan
from vocodata.errors import DiskFullError, VocoDataError
from vocodata.geometry import Size, Spacing, Volume, shear_degrees
from vocodata.ingest import process_scan, scan_stats
from vocodata.presets import Preset
from vocodata.quality import QualityLimits

# The phantom is small and has no bone: only what a test asks for shall be flagged.
LIMITS = QualityLimits(min_field_mm=10, min_length_mm=10, max_back_to_front=None)
PRESET = Preset("test", "trunk", Spacing(2, 2, 2), (-175, 250), -175, None, LIMITS)
STEP_MM = (1.5, 1.25, 2.5)


def phantom(size=(48, 52, 30)):
    """Air with a body that touches no side, a bright corner in it, and labels of both."""
    rng = np.random.default_rng(0)
    hu = rng.normal(-1000, 10, size).astype(np.int16)
    hu[8:40, 10:44, 4:26] = rng.normal(40, 10, (32, 34, 22)).astype(np.int16)
    hu[8:16, 10:20, 4:8] = 900
    labels = np.zeros(size, np.uint8)
    labels[8:40, 10:44, 4:26] = 1
    labels[8:16, 10:20, 4:8] = 2
    return hu, labels


HU, LABELS = phantom()
AFFINE = affine_of(ORIENTATIONS[0], STEP_MM, (-30, 40, 100))


def scan(folder, hu=HU, labels=None, affine=AFFINE, labels_affine=None):
    nib.save(nib.Nifti1Image(hu, affine), folder / "ct.nii.gz")
    if labels is not None:
        where = affine if labels_affine is None else labels_affine
        nib.save(nib.Nifti1Image(labels, where), folder / "seg.nii.gz")
    path = None if labels is None else folder / "seg.nii.gz"
    return Scan("a/ct", "a", "ct", folder / "ct.nii.gz", path, None, "test")


def refused(scan, match, code, preset=PRESET):
    with pytest.raises(VocoDataError, match=match) as caught:
        process_scan(scan, preset)
    assert caught.value.code == code
    assert caught.value.detail.startswith("a/ct: ")
    assert pickle.loads(pickle.dumps(caught.value)).code == code


def test_a_scan_comes_out_cropped_to_the_patient_with_labels_on_the_same_voxels(tmp_path):
    done = process_scan(scan(tmp_path, labels=LABELS), PRESET)
    assert done.hu.data_XYZ.dtype == np.int16
    assert done.labels.data_XYZ.dtype == np.uint8
    assert done.hu.shape_XYZ == done.labels.shape_XYZ
    assert np.array_equal(done.hu.affine, done.labels.affine)
    assert np.allclose(np.array(done.hu.shape_XYZ) * 2, np.array((32, 34, 22)) * STEP_MM, atol=5)
    assert np.median(done.hu.data_XYZ[done.labels.data_XYZ == 2]) == 900
    assert np.median(done.hu.data_XYZ[done.labels.data_XYZ == 1]) == pytest.approx(40, abs=2)
    assert done.hu.data_XYZ[1, 1, 1] == 900
    assert done.hu.data_XYZ[-2, 1, 1] < 100
    assert (done.source_shape_XYZ, done.source_spacing_mm) == (HU.shape, pytest.approx(STEP_MM))
    assert done.field is None
    assert done.flags == ()


@pytest.mark.parametrize("index", [5, 18, 31, 47])
def test_the_orientation_of_the_files_does_not_matter(tmp_path, index):
    expected = process_scan(scan(tmp_path, labels=LABELS), PRESET)
    axes, signs = ORIENTATIONS[index]
    turn = tuple(slice(None, None, sign) for sign in signs)
    hu, labels = (np.ascontiguousarray(each.transpose(axes)[turn]) for each in (HU, LABELS))
    last = (np.array(HU.shape) - 1) * STEP_MM
    origin = np.array(AFFINE[:3, 3])
    for axis, sign in zip(axes, signs, strict=True):
        origin[axis] += last[axis] if sign < 0 else 0
    affine = affine_of((axes, signs), [STEP_MM[axis] for axis in axes], origin)
    got = process_scan(scan(tmp_path, hu, labels, affine), PRESET)
    difference = np.abs(got.hu.data_XYZ.astype(int) - expected.hu.data_XYZ)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert np.array_equal(got.labels.data_XYZ, expected.labels.data_XYZ)
    assert got.hu.affine == pytest.approx(expected.hu.affine)
    assert got.source_digest == expected.source_digest
    assert got.source_shape_XYZ == expected.source_shape_XYZ


def test_labels_in_another_orientation_than_the_scan_are_put_on_it(tmp_path):
    expected = process_scan(scan(tmp_path, labels=LABELS), PRESET)
    flipped = affine_of(((0, 1, 2), (-1, 1, 1)), STEP_MM, (-30 + 47 * 1.5, 40, 100))
    got = process_scan(scan(tmp_path, labels=LABELS[::-1], labels_affine=flipped), PRESET)
    assert np.array_equal(got.labels.data_XYZ, expected.labels.data_XYZ)


def test_a_dicom_series_and_its_nifti_have_one_digest(tmp_path):
    hu = np.maximum(HU, -1024)
    folder = write_series(
        tmp_path / "series", hu[:, ::-1], positions_mm=[(0, 0, 2.5 * z) for z in range(30)]
    )
    nifti = scan(tmp_path, hu[::-1])
    series = dataclasses.replace(nifti, image=folder)
    one, other = (process_scan(each, PRESET) for each in (nifti, series))
    assert one.source_digest == other.source_digest


def test_a_squeeze_gives_a_field_of_the_same_box(tmp_path):
    squeezed = dataclasses.replace(PRESET, squeeze_vox=Size(24, 20, 16))
    done = process_scan(scan(tmp_path), squeezed)
    assert done.field.shape_XYZ == (24, 20, 16)
    assert done.field.data_XYZ.dtype == np.int16
    last = np.array(done.hu.shape_XYZ) - 1
    assert done.field.affine @ [23, 19, 15, 1] == pytest.approx(done.hu.affine @ [*last, 1])


def test_without_a_threshold_nothing_is_cropped(tmp_path):
    done = process_scan(scan(tmp_path), dataclasses.replace(PRESET, foreground_above_hu=None))
    assert done.hu.shape_XYZ == (36, 33, 37)


def test_float_hu_are_rounded_and_said_to_be(tmp_path):
    done = process_scan(scan(tmp_path, (HU + 0.25).astype(np.float32)), PRESET)
    plain = process_scan(scan(tmp_path), PRESET)
    assert done.flags == ("rounded_hu",)
    assert np.abs(done.hu.data_XYZ.astype(int) - plain.hu.data_XYZ).max() <= 1


def test_metal_beyond_int16_is_clipped_and_said_to_be(tmp_path):
    hu = HU.astype(np.int32)
    hu[20:24, 20:24, 10] = 60000
    done = process_scan(scan(tmp_path, hu), PRESET)
    assert "clipped_hu" in done.flags
    assert done.stats.hu_max == 32767


def test_a_scan_without_air_is_flagged(tmp_path):
    assert "no_air" in process_scan(scan(tmp_path, np.maximum(HU, -400)), PRESET).flags


def test_statistics_are_numpys():
    hu = Volume(HU, np.eye(4))
    stats = scan_stats(hu)
    assert (stats.hu_min, stats.hu_max) == (HU.min(), HU.max())
    assert stats.hu_mean == pytest.approx(HU.mean())
    assert stats.hu_std == pytest.approx(HU.std())
    wanted = np.percentile(HU, [1, 50, 99], method="inverted_cdf")
    assert (stats.hu_p1, stats.hu_p50, stats.hu_p99) == pytest.approx(wanted)
    assert stats.body_fraction == pytest.approx((HU > -500).mean())


def test_the_same_scan_gives_the_same_bytes_twice(tmp_path):
    one, two = (process_scan(scan(tmp_path, labels=LABELS), PRESET) for _ in range(2))
    assert one.hu.data_XYZ.tobytes() == two.hu.data_XYZ.tobytes()
    assert (one.stats, one.fingerprint, one.source_digest) == (
        two.stats,
        two.fingerprint,
        two.source_digest,
    )


def test_air_alone_is_refused(tmp_path):
    air = np.random.default_rng(0).integers(-1020, -800, HU.shape).astype(np.int16)
    refused(scan(tmp_path, air), "No voxel is above -175 HU", "empty_foreground")


def test_one_bright_voxel_is_no_patient(tmp_path):
    hu = np.random.default_rng(0).integers(-1020, -900, HU.shape).astype(np.int16)
    hu[20:22, 20:22, 10:12] = 3000
    refused(scan(tmp_path, hu), "Is there a patient", "empty_foreground")


def test_a_constant_volume_is_refused(tmp_path):
    refused(scan(tmp_path, np.full(HU.shape, 7, np.int16)), "All voxels are 7", "constant_volume")


def test_a_normalised_scan_is_refused(tmp_path):
    scaled = ((HU + 1024) / 4000).astype(np.float32)
    refused(scan(tmp_path, scaled), "Was the scan normalised", "implausible_hu")


def test_values_far_beyond_hu_are_refused(tmp_path):
    refused(scan(tmp_path, HU.astype(np.int32) * 5000), "voxels lie outside", "implausible_hu")


@pytest.mark.parametrize("length", [0.01, 25])
def test_an_impossible_spacing_is_refused(tmp_path, length):
    affine = np.diag([1, 1, length, 1.0])
    refused(scan(tmp_path, affine=affine), "mm along z; expected 0.05", "implausible_spacing")


def test_a_sheared_grid_is_refused(tmp_path):
    affine = np.diag([1.5, 1.5, 2.5, 1])
    affine[1, 2] = affine[0, 1] = affine[0, 2] = 0.4
    refused(scan(tmp_path, affine=affine), "no two of them form straight slices", "sheared_grid")


def test_a_leaning_stack_is_stored_straight_with_its_labels_and_says_so(tmp_path):
    affine = AFFINE.copy()
    affine[1, 2] = STEP_MM[2] * np.tan(np.radians(14))
    hu = np.where(LABELS > 0, HU, -1000).astype(np.int16)
    done = process_scan(scan(tmp_path, hu, labels=LABELS, affine=affine), PRESET)
    assert done.flags[0] == "straightened"
    assert done.quality["tilt_degrees"] == 14
    assert np.abs(shear_degrees(done.hu.affine)) < 1e-6
    assert done.hu.data_XYZ[done.labels.data_XYZ == 2].mean() > 700
    assert done.hu.data_XYZ[done.labels.data_XYZ == 0].mean() < -700
    straight = process_scan(scan(tmp_path), PRESET)
    assert "straightened" not in straight.flags
    assert "tilt_degrees" not in straight.quality


def test_too_few_slices_are_refused(tmp_path):
    refused(scan(tmp_path, HU[:, :, :3]), "expected at least 8 along each", "implausible_size")


def test_a_size_that_no_memory_holds_is_refused_before_it_is_read(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((4000, 4000, 4000))
    header.set_sform(np.diag([1, 1, 1, 1.0]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "ct.nii").write_bytes(header.binaryblock + bytes(400))
    huge = Scan("a/ct", "a", "ct", tmp_path / "ct.nii", None, None, "test")
    refused(huge, r"expected at most 2\^31", "implausible_size")


def test_labels_of_another_size_or_place_are_refused(tmp_path):
    refused(scan(tmp_path, labels=LABELS[1:]), "Labels have .47, 52, 30", "label_grid_mismatch")
    moved = affine_of(ORIENTATIONS[0], STEP_MM, (-30, 40, 101))
    refused(
        scan(tmp_path, labels=LABELS, labels_affine=moved), "1.00 mm from", "label_grid_mismatch"
    )


def test_labels_that_cannot_be_read_are_refused_with_their_reason(tmp_path):
    one = scan(tmp_path, labels=LABELS)
    one.labels.write_bytes(one.labels.read_bytes()[:-20])
    refused(one, "Labels cannot be read", "labels_unreadable")
    one.labels.unlink()
    refused(one, "Labels cannot be read", "labels_missing")
    refused(scan(tmp_path, labels=HU), "Labels cannot be read", "labels_not_integers")


def test_a_scan_that_is_not_there_is_refused(tmp_path):
    one = scan(tmp_path)
    one.image.unlink()
    refused(one, "is not there", "file_missing")


def test_a_fault_of_the_file_system_is_a_reason_too(tmp_path, monkeypatch):
    one = scan(tmp_path)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("vocodata.ingest.read_header", fail)
    refused(one, "Input/output error", "unreadable")

    def fill(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vocodata.ingest.read_header", fill)
    with pytest.raises(DiskFullError, match="No room to process a/ct: No space left"):
        process_scan(one, PRESET)

    def vanish(*_, **__):
        raise FileNotFoundError(2, "No such file", str(one.image))

    monkeypatch.setattr("vocodata.ingest.read_header", vanish)
    refused(one, "is not there any more", "file_missing")
