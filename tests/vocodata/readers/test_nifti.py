import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from tests.strategies import ORIENTATIONS, affine_of
from vocodata.errors import GeometryError, ImplausibleScanError, UnreadableScanError
from vocodata.readers import read_header, read_labels, read_volume

AFFINE = affine_of(ORIENTATIONS[11], (0.75, 0.8, 2.5), (-10, 20, -300))
RNG = np.random.default_rng(0)
HU = RNG.integers(-1024, 3000, (9, 7, 5)).astype(np.int16)


def save(path, data=HU, affine=AFFINE, change=None, kind=nib.Nifti1Image):
    image = kind(data, affine)
    if change is not None:
        change(image.header)
    nib.save(image, path)
    return path


def patched(path, at, form, *values):
    """Overwrite header fields of an uncompressed file where nibabel would refuse to."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, *values)
    path.write_bytes(content)
    return path


def refused(path, kind, match, code, read=read_volume):
    with pytest.raises(kind, match=match) as caught:
        read(path)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_and_affine_are_those_of_the_file(tmp_path, name, kind):
    path = save(tmp_path / "x.nii", kind=kind)
    if name.lower().endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    else:
        path.rename(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.data_XYZ.dtype == np.int16
    assert np.array_equal(volume.data_XYZ, HU)
    assert volume.affine == pytest.approx(AFFINE)
    header = read_header(tmp_path / name)
    assert header.shape_XYZ == HU.shape
    assert header.affine == pytest.approx(AFFINE)


def test_big_endian_files_read_the_same(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(HU.astype(">i2"), AFFINE, header), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.data_XYZ.dtype == np.dtype("=i2")
    assert np.array_equal(volume.data_XYZ, HU)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, np.float32, np.float64])
def test_whole_hu_of_any_kind_become_int16(tmp_path, dtype):
    data = np.abs(HU % 200).astype(dtype)
    volume = read_volume(save(tmp_path / "a.nii.gz", data))
    assert volume.data_XYZ.dtype == np.int16
    assert np.array_equal(volume.data_XYZ, data)


def test_slope_and_intercept_are_applied_and_whole_results_stay_int16(tmp_path):
    path = save(tmp_path / "a.nii", (HU + 1024).astype(np.uint16))
    volume = read_volume(patched(path, 112, "<2f", 1.0, -1024.0))
    assert volume.data_XYZ.dtype == np.int16
    assert np.array_equal(volume.data_XYZ, HU)


def test_a_slope_that_is_not_one_gives_float_hu(tmp_path):
    volume = read_volume(patched(save(tmp_path / "a.nii"), 112, "<2f", 0.3, 7.0))
    assert volume.data_XYZ.dtype == np.float32
    assert volume.data_XYZ == pytest.approx(HU * np.float32(0.3) + 7, abs=1e-3)


def test_a_slope_of_zero_means_no_scaling(tmp_path):
    volume = read_volume(patched(save(tmp_path / "a.nii"), 112, "<2f", 0.0, 5.0))
    assert np.array_equal(volume.data_XYZ, HU)


def test_a_scaling_of_infinity_is_refused(tmp_path):
    path = patched(save(tmp_path / "a.nii"), 112, "<2f", 1.0, np.inf)
    refused(path, UnreadableScanError, "intercept inf", "corrupt_header")


def test_hu_beyond_int16_stay_float(tmp_path):
    data = HU.astype(np.int32)
    data[0, 0, 0] = 40000
    assert read_volume(save(tmp_path / "a.nii.gz", data)).data_XYZ.max() == 40000


def test_one_time_point_is_a_volume_and_two_are_not(tmp_path):
    one = read_volume(save(tmp_path / "a.nii.gz", HU[..., None]))
    assert np.array_equal(one.data_XYZ, HU)
    two = save(tmp_path / "b.nii.gz", np.stack([HU, HU], axis=-1))
    refused(two, UnreadableScanError, "Choose one time point", "not_three_dimensional")
    flat = save(tmp_path / "c.nii.gz", HU[..., 0])
    refused(flat, UnreadableScanError, "has 2 axes", "not_three_dimensional")


def test_the_sform_goes_before_the_qform_and_the_qform_before_nothing(tmp_path):
    other = affine_of(ORIENTATIONS[0], (0.75, 0.8, 2.5), (1, 2, 3))

    def both(header):
        header.set_sform(AFFINE, 1)
        header.set_qform(other, 1)

    def only_qform(header):
        header.set_sform(None, 0)
        header.set_qform(AFFINE, 1)

    def neither(header):
        header.set_sform(None, 0)
        header.set_qform(None, 0)

    image = nib.Nifti1Image(HU, None)
    for name, change in (("b", both), ("q", only_qform), ("n", neither)):
        change(image.header)
        nib.save(image, tmp_path / f"{name}.nii")
    assert read_volume(tmp_path / "b.nii").affine == pytest.approx(AFFINE)
    assert read_volume(tmp_path / "q.nii").affine == pytest.approx(AFFINE, abs=1e-4)
    refused(tmp_path / "n.nii", GeometryError, "neither sform nor qform", "no_geometry")


def test_metres_become_millimetres(tmp_path):
    path = save(tmp_path / "a.nii", affine=np.diag([0.001, 0.001, 0.002, 1]))
    assert read_volume(patched(path, 123, "B", 1)).spacing_mm == pytest.approx((1, 1, 2))


def test_an_affine_of_nan_is_refused(tmp_path):
    path = patched(save(tmp_path / "a.nii"), 280, "<f", np.nan)
    refused(path, GeometryError, "4x4 finite numbers", "bad_affine")
    refused(path, GeometryError, "4x4 finite numbers", "bad_affine", read_header)


def test_a_zero_spacing_is_refused_in_sform_and_qform(tmp_path):
    def only_qform(header):
        header.set_qform(np.diag([1, 1, 2, 1]), 1)
        header.set_sform(None, 0)

    path = save(tmp_path / "s.nii", affine=np.eye(4))
    refused(patched(path, 280, "<f", 0.0), GeometryError, "0 mm along x", "zero_spacing")
    path = save(tmp_path / "q.nii", affine=None, change=only_qform)
    refused(patched(path, 88, "<f", 0.0), GeometryError, "0 mm along z", "zero_spacing")


def test_a_qform_that_is_no_rotation_is_refused(tmp_path):
    def only_qform(header):
        header.set_qform(np.eye(4), 1)
        header.set_sform(None, 0)

    path = save(tmp_path / "a.nii", affine=None, change=only_qform)
    path = patched(path, 256, "<3f", 2.0, 2.0, 2.0)
    refused(path, GeometryError, "not a rotation", "bad_affine")


def test_a_gzip_that_stops_is_refused_wherever_it_stops(tmp_path):
    content = gzip.compress(save(tmp_path / "a.nii").read_bytes())
    for keep in (len(content) - 1, len(content) - 8, len(content) // 2, 30):
        (tmp_path / "b.nii.gz").write_bytes(content[:keep])
        refused(tmp_path / "b.nii.gz", UnreadableScanError, "ends too early", "truncated_gzip")


def test_one_flipped_bit_in_a_gzip_is_refused(tmp_path):
    content = gzip.compress(save(tmp_path / "a.nii").read_bytes())
    codes = set()
    for at in (len(content) // 2, len(content) - 6, len(content) - 2):
        damaged = bytearray(content)
        damaged[at] ^= 4
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        with pytest.raises(UnreadableScanError) as caught:
            read_volume(tmp_path / "b.nii.gz")
        codes.add(caught.value.code)
    assert codes <= {"corrupt_gzip", "truncated_gzip"}
    assert "corrupt_gzip" in codes


def test_gzip_in_several_members_is_one_file(tmp_path):
    content = save(tmp_path / "a.nii").read_bytes()
    half = len(content) // 2
    (tmp_path / "b.nii.gz").write_bytes(
        gzip.compress(content[:half]) + gzip.compress(content[half:])
    )
    assert np.array_equal(read_volume(tmp_path / "b.nii.gz").data_XYZ, HU)


def test_a_plain_file_that_stops_is_refused(tmp_path):
    path = save(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, UnreadableScanError, "its header promises 982", "truncated_file")


def test_name_and_content_must_agree(tmp_path):
    path = save(tmp_path / "a.nii")
    path.rename(tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", UnreadableScanError, "is not gzip", "wrong_magic")
    (tmp_path / "b.nii").write_bytes(gzip.compress(b"x" * 999))
    refused(tmp_path / "b.nii", UnreadableScanError, "is gzip", "wrong_magic")


def test_what_is_no_nifti_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"<html>not found</html>" * 40))
    refused(tmp_path / "a.nii.gz", UnreadableScanError, "does not start as", "wrong_magic")
    path = patched(save(tmp_path / "b.nii"), 344, "4s", b"ni1\0")
    refused(path, UnreadableScanError, "half of a .hdr/.img pair", "wrong_magic")


def test_headers_that_contradict_themselves_are_refused(tmp_path):
    path = patched(save(tmp_path / "a.nii"), 42, "<h", -9)
    refused(path, UnreadableScanError, "The header is damaged", "corrupt_header")
    path = patched(save(tmp_path / "b.nii"), 70, "<h", 999)
    refused(path, UnreadableScanError, "data type code 999", "corrupt_header")


def test_colours_are_refused(tmp_path):
    rgb = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = save(tmp_path / "a.nii.gz", rgb)
    refused(path, UnreadableScanError, "RGB or complex", "unsupported_dtype")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_of_nan_or_infinity_are_refused(tmp_path, value):
    data = HU.astype(np.float32)
    data[3, 2, 1] = value
    path = save(tmp_path / "a.nii.gz", data)
    refused(path, ImplausibleScanError, "NaN or infinite", "non_finite_hu")


def test_labels_are_small_whole_numbers(tmp_path):
    labels = (HU % 7).astype(np.float64)
    path = save(tmp_path / "a.nii.gz", labels)
    assert read_labels(path).data_XYZ.dtype == np.uint8
    assert np.array_equal(read_labels(path).data_XYZ, labels)
    assert read_labels(save(tmp_path / "b.nii.gz", HU % 7 + 300)).data_XYZ.dtype == np.uint16


@pytest.mark.parametrize("bad", [HU, HU / 7, np.full((3, 3, 3), 70000, np.int32)])
def test_labels_that_are_no_labels_are_refused(tmp_path, bad):
    path = save(tmp_path / "a.nii.gz", bad)
    refused(path, UnreadableScanError, "Is it a label file", "labels_not_integers", read_labels)


@pytest.mark.parametrize("offset", [-40, 20, 1e12, np.nan, np.inf])
def test_voxels_that_begin_nowhere_are_refused(tmp_path, offset):
    path = save(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    path.write_bytes(content)
    refused(path, UnreadableScanError, "puts its voxels at byte", "corrupt_header")
