import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from vocodata.errors import GeometryError, UnreadableScanError
from vocodata.geometry import orient_ras
from vocodata.readers import read_header, read_labels, read_volume

HU = np.random.default_rng(0).integers(-1024, 3000, (9, 7, 5)).astype(np.int16)


def image(data_XYZ=HU):
    made = sitk.GetImageFromArray(np.ascontiguousarray(data_XYZ.transpose(2, 1, 0)))
    made.SetSpacing((0.75, 0.8, 2.5))
    made.SetOrigin((-10, 20, -300))
    made.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    return made


def refused(path, kind, match, code, read=read_volume):
    with pytest.raises(kind, match=match) as caught:
        read(path)
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_place_in_the_patient_is_that_of_the_same_scan_as_nifti(tmp_path, name, compressed):
    sitk.WriteImage(image(), str(tmp_path / name), compressed)
    sitk.WriteImage(image(), str(tmp_path / "b.nii.gz"))
    ours, nifti = read_volume(tmp_path / name), read_volume(tmp_path / "b.nii.gz")
    assert ours.data_XYZ.dtype == np.int16
    assert np.array_equal(ours.data_XYZ, HU)
    assert np.array_equal(orient_ras(ours).data_XYZ, orient_ras(nifti).data_XYZ)
    assert orient_ras(ours).affine == pytest.approx(orient_ras(nifti).affine, abs=1e-4)
    assert ours.affine == pytest.approx(nib.load(tmp_path / "b.nii.gz").affine, abs=1e-4)
    assert read_header(tmp_path / name).shape_XYZ == HU.shape


def test_labels_come_as_uint8(tmp_path):
    sitk.WriteImage(image(HU % 5), str(tmp_path / "a.nrrd"))
    assert read_labels(tmp_path / "a.nrrd").data_XYZ.dtype == np.uint8


@pytest.mark.parametrize(("name", "code"), [("a.nrrd", "truncated_file"), ("a.mha", None)])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_stops_is_refused(tmp_path, name, code, compressed):
    sitk.WriteImage(image(), str(tmp_path / name), compressed)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-40])
    if code is None:
        code = "truncated_gzip" if compressed else "truncated_file"
    match = "end too early" if code == "truncated_gzip" else "cannot be read|do not fit"
    refused(tmp_path / name, UnreadableScanError, match, code)


def test_a_wrong_checksum_in_a_compressed_metaimage_is_refused(tmp_path):
    sitk.WriteImage(image(), str(tmp_path / "a.mha"), True)
    content = bytearray((tmp_path / "a.mha").read_bytes())
    content[-2] ^= 1
    (tmp_path / "a.mha").write_bytes(content)
    refused(tmp_path / "a.mha", UnreadableScanError, "are damaged", "corrupt_gzip")


def test_a_nrrd_without_a_space_is_refused(tmp_path):
    sitk.WriteImage(image(), str(tmp_path / "a.nrrd"))
    content = (tmp_path / "a.nrrd").read_bytes()
    content = content.replace(b"space: left-posterior-superior\n", b"space dimension: 3\n")
    (tmp_path / "a.nrrd").write_bytes(content)
    refused(tmp_path / "a.nrrd", GeometryError, "no field `space`", "no_geometry")


def with_axes(path, matrix):
    sitk.WriteImage(image(), str(path))
    content = path.read_bytes()
    line = next(row for row in content.splitlines() if row.startswith(b"TransformMatrix"))
    path.write_bytes(content.replace(line, b"TransformMatrix = " + matrix))
    return path


def test_axes_that_lean_beyond_any_gantry_are_refused(tmp_path):
    path = with_axes(tmp_path / "a.mha", b"1 0 0 0 1 0 0 0.6 0.8")
    refused(path, GeometryError, r"36\.9 degrees to their normal", "sheared_grid")


def test_leaning_axes_are_put_straight(tmp_path):
    path = with_axes(tmp_path / "a.mha", b"1 0 0 0 1 0 0 0.28 0.96")
    assert read_volume(path).affine[:3, 2] == pytest.approx((0, 0, 0.96 * 2.5))


def test_axes_in_one_plane_are_refused(tmp_path):
    path = with_axes(tmp_path / "a.mha", b"1 0 0 0 1 0 0 1 0")
    refused(path, GeometryError, "plane|determinant", "bad_affine")


def test_colours_and_time_are_refused(tmp_path):
    rgb = sitk.GetImageFromArray(np.zeros((3, 3, 3, 3), np.uint8), isVector=True)
    sitk.WriteImage(rgb, str(tmp_path / "a.mha"))
    refused(tmp_path / "a.mha", UnreadableScanError, "vector of 8-bit", "unsupported_dtype")
    series = sitk.GetImageFromArray(np.zeros((2, 3, 3, 3), np.int16), isVector=False)
    sitk.WriteImage(series, str(tmp_path / "b.mha"))
    refused(tmp_path / "b.mha", UnreadableScanError, "Choose one time", "not_three_dimensional")
