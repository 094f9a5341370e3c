import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from tests.vocodata.dicom_series import GAP_MM, HU, rewrite, write_series
from vocodata.errors import GeometryError, ImplausibleScanError, UnreadableScanError
from vocodata.readers import read_header, read_volume
from vocodata.readers.dicom import dicom_files


def refused(folder, kind, match, code, *, header_too=True):
    for read in (read_volume, read_header) if header_too else (read_volume,):
        with pytest.raises(kind, match=match) as caught:
            read(folder)
        assert caught.value.code == code


def places(z_mm):
    return [(-10, 20, z) for z in z_mm]


def test_voxels_and_place_are_those_that_simpleitk_gives(tmp_path):
    folder = write_series(tmp_path / "s")
    volume = read_volume(folder)
    assert volume.data_XYZ.dtype == np.int16
    assert np.array_equal(volume.data_XYZ, HU)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in dicom_files(folder)])
    image = reader.Execute()
    for voxel in ((0, 0, 0), (5, 0, 0), (0, 4, 0), (0, 0, 7)):
        x, y, z = image.TransformIndexToPhysicalPoint(voxel)
        assert volume.affine @ [*voxel, 1] == pytest.approx([-x, -y, z, 1])
    header = read_header(folder)
    assert header.shape_XYZ == volume.shape_XYZ
    assert header.affine == pytest.approx(volume.affine)


def test_positions_are_the_truth_not_names_numbers_or_thickness(tmp_path):
    order = [3, 0, 7, 5, 1, 6, 2, 4]
    folder = write_series(
        tmp_path / "s",
        change=lambda z: {"InstanceNumber": 8 - z, "SliceThickness": 9},
        names=[f"{order[z]}" for z in range(8)],
    )
    volume = read_volume(folder)
    assert np.array_equal(volume.data_XYZ, HU)
    assert volume.spacing_mm == pytest.approx((0.7, 0.8, GAP_MM))


def test_an_oblique_series_is_stacked_along_its_normal(tmp_path):
    c, s = np.cos(0.3), np.sin(0.3)
    normal = np.cross((1, 0, 0), (0, c, s))
    folder = write_series(
        tmp_path / "s",
        positions_mm=[(5, 6, 7) + GAP_MM * z * normal for z in range(8)],
        change=lambda _: {"ImageOrientationPatient": [1, 0, 0, 0, c, s]},
    )
    volume = read_volume(folder)
    assert np.array_equal(volume.data_XYZ, HU)
    assert volume.affine[:3, 2] == pytest.approx(np.array([-1, -1, 1]) * normal * GAP_MM)


def test_each_slice_has_its_own_rescaling(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda z: {"RescaleSlope": 2} if z == 3 else {})
    volume = read_volume(folder)
    assert np.array_equal(volume.data_XYZ[:, :, 2], HU[:, :, 2])
    assert np.array_equal(volume.data_XYZ[:, :, 3], HU[:, :, 3] * 2 + 1024)


def test_a_broken_slope_gives_float_hu_for_the_whole_series(tmp_path):
    folder = write_series(
        tmp_path / "s", change=lambda z: {"RescaleSlope": "0.5"} if z == 3 else {}
    )
    volume = read_volume(folder)
    assert volume.data_XYZ.dtype == np.float32
    assert np.array_equal(volume.data_XYZ[:, :, 2], HU[:, :, 2])


def test_a_slice_that_int16_cannot_hold_makes_floats_of_those_before_it(tmp_path):
    stored = HU.astype(np.int32).transpose(2, 1, 0) + 1024
    stored[4, 1, 2] = 65535
    folder = write_series(
        tmp_path / "s", change=lambda z: {"PixelData": stored[z].astype("<u2").tobytes()}
    )
    hu = read_volume(folder).data_XYZ
    assert hu.dtype == np.float32
    assert np.array_equal(hu.transpose(2, 1, 0), stored - 1024)


def test_contours_and_text_beside_the_series_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "s")
    contours = pydicom.dcmread(folder / "0000.dcm")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(contours, keyword)
    kind = pydicom.uid.RTStructureSetStorage
    contours.file_meta.MediaStorageSOPClassUID = contours.SOPClassUID = kind
    contours.Modality, contours.SeriesInstanceUID = "RTSTRUCT", "9.9"
    contours.save_as(folder / "contours.dcm", enforce_file_format=True)
    (folder / "readme.txt").write_text("hello")
    assert np.array_equal(read_volume(folder).data_XYZ, HU)


def test_lossless_jpeg_2000_reads_the_same(tmp_path):
    folder = write_series(tmp_path / "s", np.tile(HU, (8, 8, 1)))
    expected = read_volume(folder).data_XYZ
    for path in dicom_files(folder):
        made = pydicom.dcmread(path)
        made.compress(pydicom.uid.JPEG2000Lossless, generate_instance_uid=False)
        made.save_as(path, enforce_file_format=True)
    assert np.array_equal(read_volume(folder).data_XYZ, expected)


def test_a_folder_without_dicom_is_refused(tmp_path):
    refused(tmp_path, UnreadableScanError, "holds no DICOM image", "no_dicom")


def test_two_series_are_refused(tmp_path):
    folder = write_series(tmp_path / "s")
    rewrite(folder / "0003.dcm", SeriesInstanceUID="1.2.4")
    refused(folder, UnreadableScanError, "holds 2 series", "mixed_series")


def test_another_modality_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"Modality": "MR"})
    refused(folder, ImplausibleScanError, "modality MR; expected CT", "not_ct")


def test_a_localizer_is_refused(tmp_path):
    folder = write_series(
        tmp_path / "s", change=lambda _: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    )
    refused(folder, ImplausibleScanError, "localizer", "localizer")


@pytest.mark.parametrize("missing", [[3], [3, 4], [2, 5]])
def test_missing_slices_are_refused_and_counted(tmp_path, missing):
    folder = write_series(tmp_path / "s")
    for z in missing:
        (folder / f"{z:04}.dcm").unlink()
    refused(folder, GeometryError, f"lacks {len(missing)} slices", "missing_slices")


def test_the_same_place_twice_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", positions_mm=places([0, 1, 2, 3, 3, 4, 5, 6]))
    refused(folder, GeometryError, "lie at 3 mm", "duplicate_slices")


def test_two_phases_in_one_series_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", positions_mm=places([0, 0, 1, 1, 2, 2, 3, 3]))
    refused(folder, GeometryError, "several phases", "duplicate_slices")


def test_uneven_gaps_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", positions_mm=places([0, 1, 2, 3.3, 4.1, 5, 6, 7]))
    refused(folder, GeometryError, "expected them equal", "uneven_slices")


def test_gaps_that_change_half_way_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", positions_mm=places([0, 1, 2, 3, 4.5, 6, 7.5, 9]))
    refused(folder, GeometryError, "expected them equal", "uneven_slices")


def test_positions_rounded_to_a_tenth_are_even_enough(tmp_path):
    folder = write_series(tmp_path / "s", positions_mm=places(np.arange(8) * 3.3))
    assert read_volume(folder).spacing_mm.z == pytest.approx(3.3)
    rounded = write_series(tmp_path / "t", positions_mm=places((np.arange(8) * 3.33).round(1)))
    assert read_volume(rounded).spacing_mm.z == pytest.approx(3.33, abs=0.02)


@pytest.mark.parametrize("beside", [(2, 0), (0, -0.4)])
def test_a_slice_beside_the_others_is_refused(tmp_path, beside):
    positions = [(beside[0] * (z == 4), beside[1] * (z == 4), 2.5 * z) for z in range(8)]
    folder = write_series(tmp_path / "s", positions_mm=positions)
    words = f"0004.dcm in s lies {max(map(abs, beside)):.2f} mm beside the line"
    refused(folder, GeometryError, words, "shifted_slices")


def test_one_slice_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", HU[:, :, :1])
    refused(folder, GeometryError, "holds one slice", "single_slice")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"PixelSpacing": [0.8, 0.9]}, "differ in spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "differ in orientation"),
        ({"Rows": 4, "PixelData": bytes(4 * 6 * 2)}, "differ in size"),
    ],
)
def test_slices_that_differ_are_refused(tmp_path, changes, match):
    folder = write_series(tmp_path / "s")
    rewrite(folder / "0005.dcm", **changes)
    refused(folder, GeometryError, match, "mixed_geometry")


def test_axes_that_are_no_directions_are_refused(tmp_path):
    folder = write_series(
        tmp_path / "s", change=lambda _: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}
    )
    refused(folder, GeometryError, "two unit vectors", "bad_affine")


@pytest.mark.parametrize(
    "keyword",
    ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleIntercept"],
)
def test_a_missing_attribute_is_refused_and_named(tmp_path, keyword):
    folder = write_series(tmp_path / "s", change=lambda z: {keyword: None} if z == 2 else {})
    refused(folder, UnreadableScanError, keyword, "corrupt_dicom")


def test_an_attribute_of_the_wrong_length_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"PixelSpacing": [1, 1, 1]})
    refused(folder, UnreadableScanError, "expected 2 finite numbers", "corrupt_dicom")


def test_many_frames_in_one_file_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"NumberOfFrames": 3})
    refused(folder, UnreadableScanError, "3 frames", "unsupported_dicom")


def test_a_file_that_stops_is_refused(tmp_path):
    folder = write_series(tmp_path / "s")
    content = (folder / "0004.dcm").read_bytes()
    (folder / "0004.dcm").write_bytes(content[:-7])
    refused(folder, UnreadableScanError, r"0004\.dcm", "corrupt_dicom", header_too=False)
    (folder / "0004.dcm").write_bytes(content[:400])
    refused(folder, UnreadableScanError, "ends before its pixels", "corrupt_dicom")


def test_an_unknown_compression_is_refused(tmp_path):
    folder = write_series(tmp_path / "s")
    made = pydicom.dcmread(folder / "0004.dcm")
    made.PixelData = pydicom.encaps.encapsulate([b"no picture"])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    made.save_as(folder / "0004.dcm", enforce_file_format=True)
    refused(folder, UnreadableScanError, "cannot be decoded", "unsupported_dicom", header_too=False)
