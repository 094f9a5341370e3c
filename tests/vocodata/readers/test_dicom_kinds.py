"""DICOM as it comes: every compression, many frames in a file, many series in a folder."""

import io
import json
import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.vocodata.dicom_series import HU, dataset, write_enhanced, write_series
from tests.vocodata.jpeg_lossless import encode as encode_jpeg_lossless
from vocodata.discover import find_scans
from vocodata.errors import ImplausibleScanError, UnreadableScanError
from vocodata.ingest import process_scan
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.readers import dicom_pixels, read_header, read_volume, slice_mark
from vocodata.readers.dicom import dicom_files

BIG = np.tile(HU, (8, 8, 1))


def resave(folder, syntax):
    """The series again in another uncompressed or deflated syntax, or compressed by pydicom."""
    for path in dicom_files(folder):
        made = pydicom.dcmread(path)
        if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
            made.compress(syntax, generate_instance_uid=False)
            made.save_as(path, enforce_file_format=True)
            continue
        if syntax == ExplicitVRBigEndian:
            made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
        made.file_meta.TransferSyntaxUID = syntax
        order = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian}
        pydicom.dcmwrite(path, made, enforce_file_format=True, **order)


@pytest.mark.filterwarnings("ignore:.*will be removed in v4.0:DeprecationWarning")
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_a_series_reads_the_same_however_it_is_written(tmp_path, syntax):
    folder = write_series(tmp_path / "s", BIG)
    resave(folder, syntax)
    assert pydicom.dcmread(folder / "0003.dcm").file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_volume(folder).data_XYZ, BIG)
    assert read_header(folder).shape_XYZ == BIG.shape


def encapsulated(folder, syntax, encode, **changes):
    for path in dicom_files(folder):
        made = pydicom.dcmread(path)
        for keyword, value in changes.items():
            setattr(made, keyword, value)
        pixels = np.frombuffer(made.PixelData, "<u2").reshape(made.Rows, made.Columns)
        made.PixelData = encapsulate([encode(pixels)])
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = syntax
        made.save_as(path, enforce_file_format=True)


def test_lossless_jpeg_reads_the_same(tmp_path):
    folder = write_series(tmp_path / "s")
    encapsulated(folder, JPEGLosslessSV1, encode_jpeg_lossless)
    assert np.array_equal(read_volume(folder).data_XYZ, HU)


def test_pixels_of_more_bits_than_the_header_says_are_taken_as_a_decoder_gives_them(
    tmp_path, monkeypatch
):
    """Today's pydicom cuts them off; nothing here trusts that."""

    def whole(made, index):
        assert index is None
        return np.frombuffer(made.PixelData, "<u2").reshape(made.Rows, made.Columns)

    stored = HU.astype(np.int32) + 1024
    stored[1, 2, 4] = 65535
    change = {"BitsStored": 12, "HighBit": 11}
    folder = write_series(
        tmp_path / "s",
        change=lambda z: change | {"PixelData": stored[:, :, z].T.astype("<u2").tobytes()},
    )
    assert read_volume(folder).data_XYZ[1, 2, 4] == 4095 - 1024
    monkeypatch.setattr(dicom_pixels, "pixel_array", whole)
    assert read_header(folder).hu_dtype == np.int16
    hu = read_volume(folder).data_XYZ
    assert hu.dtype == np.float32
    assert np.array_equal(hu, stored - 1024)


def test_baseline_jpeg_of_eight_bits_reads_nearly_the_same(tmp_path):
    ramp = np.add.outer(np.arange(64), np.arange(48))[:, :, None] + np.arange(8)
    hu = (ramp - 1024).astype(np.int16)

    def encode(pixels):
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, "jpeg", quality=100)
        return file.getvalue()

    folder = write_series(tmp_path / "s", hu)
    encapsulated(folder, JPEGBaseline8Bit, encode, BitsAllocated=8, BitsStored=8, HighBit=7)
    assert np.abs(read_volume(folder).data_XYZ - hu.astype(int)).max() <= 2


def series_of_own(folder, name):
    """Three slices of a file that pydicom brings along, where no encoder is at hand."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not bring {name} along")
    source = pydicom.dcmread(path)
    source.SOPClassUID = source.file_meta.MediaStorageSOPClassUID = CTImageStorage
    source.Modality, source.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    source.SeriesInstanceUID, source.RescaleType = "1.2.3", "HU"
    source.RescaleSlope, source.RescaleIntercept, source.PixelSpacing = 1, 0, [1, 1]
    source.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    folder.mkdir()
    for z in range(3):
        source.ImagePositionPatient = [0, 0, z]
        source.save_as(folder / f"{z}.dcm", enforce_file_format=True)
    return folder, source


def test_jpeg_ls_reads_the_same(tmp_path):
    stored = {}
    for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        folder, source = series_of_own(tmp_path / name, name)
        stored[name] = read_volume(folder).data_XYZ
    assert source.file_meta.TransferSyntaxUID == JPEGLSLossless
    one, other = stored.values()
    assert len(np.unique(one)) > 100
    assert np.array_equal(one, other)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    ("name", "syntax", "bits"),
    [
        ("JPGExtended.dcm", JPEGExtended12Bit, 12),
        ("JPEGLSNearLossless_08.dcm", JPEGLSNearLossless, 8),
        ("JPEGLSNearLossless_16.dcm", JPEGLSNearLossless, 16),
        ("JPEG2000.dcm", JPEG2000, 16),
        ("693_J2KI.dcm", JPEG2000, 14),
    ],
)
def test_what_was_compressed_with_loss_is_kept_as_another_decoder_gives_it(
    tmp_path, name, syntax, bits
):
    folder, source = series_of_own(tmp_path / "s", name)
    assert (source.file_meta.TransferSyntaxUID, source.BitsStored) == (syntax, bits)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "0.dcm")))[0]
    hu = read_volume(folder).data_XYZ
    assert expected.min() < expected.max()
    # Cosines of the old JPEG may be rounded either way.
    apart = 1 if syntax == JPEGExtended12Bit else 0
    for z in range(3):
        assert np.abs(hu[:, :, z].T - expected.astype(int)).max() <= apart


def test_a_stream_of_12_bits_that_no_decoder_takes_is_refused_by_name(tmp_path):
    folder, source = series_of_own(tmp_path / "s", "JPEG-lossy.dcm")
    assert source.file_meta.TransferSyntaxUID == JPEGExtended12Bit
    with pytest.raises(UnreadableScanError, match=r"0\.dcm: its compression cannot be") as caught:
        read_volume(folder)
    assert caught.value.code == "unsupported_dicom"


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=lambda s: s.name)
def test_damaged_compression_is_refused(tmp_path, syntax):
    folder = write_series(tmp_path / "s", BIG)
    resave(folder, syntax)
    made = pydicom.dcmread(folder / "0002.dcm")
    made.PixelData = encapsulate([b"\1\0\0\0" + bytes(90)])
    made.save_as(folder / "0002.dcm", enforce_file_format=True)
    with pytest.raises(UnreadableScanError, match=r"0002\.dcm") as caught:
        read_volume(folder)
    assert caught.value.code in {"corrupt_dicom", "unsupported_dicom"}


def test_the_frames_of_an_enhanced_ct_are_slices_in_order_of_position(tmp_path):
    folder = write_enhanced(tmp_path / "s", order=[3, 0, 7, 5, 1, 6, 2, 4])
    classic = read_volume(write_series(tmp_path / "t"))
    volume = read_volume(folder)
    assert np.array_equal(volume.data_XYZ, classic.data_XYZ)
    assert volume.affine == pytest.approx(classic.affine)
    assert read_header(folder).shape_XYZ == HU.shape


def test_a_compressed_enhanced_ct_is_read_frame_by_frame(tmp_path):
    folder = write_enhanced(tmp_path / "s", BIG)
    resave(folder, JPEG2000Lossless)
    assert np.array_equal(read_volume(folder).data_XYZ, BIG)


def test_a_series_may_be_spread_over_enhanced_files(tmp_path):
    folder = write_enhanced(tmp_path / "s", order=[0, 1, 2, 3])
    other = write_enhanced(tmp_path / "t", order=[4, 5, 6, 7])
    shutil.copy(other / "enhanced.dcm", folder / "more.dcm")
    assert np.array_equal(read_volume(folder).data_XYZ, HU)


def test_an_enhanced_ct_that_lacks_a_frames_place_is_refused(tmp_path):
    def forget(made):
        del made.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence

    folder = write_enhanced(tmp_path / "s", change=forget)
    with pytest.raises(UnreadableScanError, match="ImagePositionPatient is missing") as caught:
        read_header(folder)
    assert caught.value.code == "corrupt_dicom"


def test_an_enhanced_ct_that_describes_too_few_frames_is_refused(tmp_path):
    def forget(made):
        made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[:3]

    folder = write_enhanced(tmp_path / "s", change=forget)
    with pytest.raises(UnreadableScanError, match="describes 3 of 8 frames") as caught:
        read_header(folder)
    assert caught.value.code == "corrupt_dicom"


def test_a_series_that_is_not_scaled_to_hu_is_refused(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"RescaleType": "Z_EFF"})
    with pytest.raises(ImplausibleScanError, match="scaled to Z_EFF; expected HU") as caught:
        read_volume(folder)
    assert caught.value.code == "not_hu"


# Several series in one folder


def scans(root, **keys):
    row = {"name": "a", "root": str(root), "preset": "demo", "layout": "dicom"}
    row |= {"names": "path"} | keys
    manifest = root.parent / "m.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [row]}))
    return find_scans(load_manifest(manifest))


def add_series(folder, uid, prefix, hu=HU, **changes):
    names = [f"{prefix}{z:03}" for z in range(hu.shape[2])]
    return write_series(
        folder, hu, change=lambda _: {"SeriesInstanceUID": uid, **changes}, names=names
    )


def test_series_of_one_folder_are_scans_of_their_own(tmp_path):
    folder = tmp_path / "d" / "p1"
    add_series(folder, "1.2.840.7.1", "a")
    add_series(folder, "1.2.840.7.2", "b", HU + np.int16(7))
    add_series(folder, "1.2.840.7.3", "c", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add_series(folder, "1.2.840.7.4", "d", Modality="PT")
    found = scans(tmp_path / "d")
    assert len({scan.id for scan in found}) == 4
    assert all(scan.name.startswith("p1-") for scan in found)
    assert not any("840" in scan.id for scan in found)
    results = {}
    for scan in found:
        try:
            results[scan.files[0][0]] = read_volume(scan.image, files=scan.files).data_XYZ
        except ImplausibleScanError as error:
            results[scan.files[0][0]] = error.code
    assert np.array_equal(results["a"], HU)
    assert np.array_equal(results["b"], HU + 7)
    assert (results["c"], results["d"]) == ("localizer", "not_ct")


def test_the_name_of_a_series_stays_when_others_come(tmp_path):
    folder = tmp_path / "d" / "p1"
    add_series(folder, "1.1", "a")
    add_series(folder, "1.2", "b")
    before = {scan.files: scan.id for scan in scans(tmp_path / "d")}
    add_series(folder, "1.0", "0")
    after = {scan.files: scan.id for scan in scans(tmp_path / "d")}
    assert before.items() <= after.items()
    assert len(after) == 3


def test_a_file_that_may_belong_to_any_series_is_missed_by_none(tmp_path):
    folder = tmp_path / "d" / "p1"
    add_series(folder, "1.1", "a")
    add_series(folder, "1.2", "b")
    content = (folder / "a003").read_bytes()
    (folder / "a003").write_bytes(content[:200])
    for scan in scans(tmp_path / "d"):
        with pytest.raises(UnreadableScanError, match="a003") as caught:
            read_volume(scan.image, files=scan.files)
        assert caught.value.code == "corrupt_dicom"


def test_contours_and_reports_make_no_series(tmp_path):
    folder = add_series(tmp_path / "d" / "p1", "1.1", "a")
    contours = dataset(HU[:, :, 0].T, (0, 0, 0), "1.9")
    kind = pydicom.uid.RTStructureSetStorage
    contours.file_meta.MediaStorageSOPClassUID = contours.SOPClassUID = kind
    contours.save_as(folder / "rt", enforce_file_format=True)
    (scan,) = scans(tmp_path / "d")
    assert (scan.name, scan.files) == ("p1", ())


def test_the_series_is_told_from_the_first_bytes(tmp_path):
    path = write_series(tmp_path / "s", BIG) / "0000.dcm"
    content = path.read_bytes()
    mark = slice_mark(content[:1500])
    assert (mark.series, mark.place != 0) == ("1.2.3", True)
    # Cut within its position, and within the UID.
    assert slice_mark(content[: content.index(b"-10.0") + 9]) == mark._replace(place=0)
    assert slice_mark(content[: content.index(b"1.2.3\0") + 3]).series == ""
    assert slice_mark(content[:150]).series == ""
    assert slice_mark(b"x" * 200) is None


def test_a_series_among_others_is_processed(tmp_path):
    x, y, z = np.indices((40, 36, 24))
    body = ((x - 20) ** 2 + (y - 18) ** 2 < 200) & (z > 2) & (z < 22)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    folder = tmp_path / "d" / "p1"
    for number in (1, 2):
        add_series(folder, f"1.{number}", f"{number}-", hu, PixelSpacing=[4, 4])
    for scan in scans(tmp_path / "d"):
        assert process_scan(scan, preset("demo")).stats.hu_max >= 60
