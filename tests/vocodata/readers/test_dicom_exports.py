"""Folders as a PACS, a CD or a broken copy leaves them."""

import json
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    MediaStorageDirectoryStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
)

from tests.vocodata.dicom_series import GAP_MM, HU, dataset, rewrite, write_series
from vocodata.discover import find_scans
from vocodata.errors import UnreadableScanError
from vocodata.ingest import process_scan
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.readers import read_header, read_volume


def scans(root):
    row = {"name": "src", "root": str(root), "preset": "demo", "names": "path"}
    manifest = root.parent / "manifest.json"
    manifest.write_text(json.dumps({"version": 1, "sources": [row]}))
    return find_scans(load_manifest(manifest))


def refused(folder, match, code="corrupt_dicom", files=()):
    with pytest.raises(UnreadableScanError, match=match) as caught:
        read_volume(folder, files=files)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("kind", "modality"),
    [(RTDoseStorage, "RTDOSE"), (SegmentationStorage, "SEG"), (MediaStorageDirectoryStorage, "")],
    ids=["dose", "segmentation", "directory"],
)
def test_objects_with_pixels_that_are_no_images_are_passed_over(tmp_path, kind, modality):
    folder = write_series(tmp_path / "d" / "p1")
    beside = dataset(np.zeros((4, 4), np.int16), (0, 0, 0), "1.9", Modality=modality)
    beside.file_meta.MediaStorageSOPClassUID = beside.SOPClassUID = kind
    beside.save_as(folder / "0099.dcm", enforce_file_format=True)
    (scan,) = scans(tmp_path / "d")
    assert np.array_equal(read_volume(scan.image, files=scan.files).data_XYZ, HU)


@pytest.mark.parametrize("way", ["implicit", "explicit", "with meta information"])
def test_files_without_a_preamble_are_found_and_read(tmp_path, way):
    folder = write_series(tmp_path / "d" / "p1")
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.preamble = None
        encoding = {}
        if way != "with meta information":
            del made.file_meta
            encoding = {"implicit_vr": way == "implicit", "little_endian": True}
        path.unlink()
        bare = path.with_suffix("")
        pydicom.dcmwrite(bare, made, enforce_file_format=False, **encoding)
        assert bare.read_bytes()[128:132] != b"DICM"
    (scan,) = scans(tmp_path / "d")
    assert np.array_equal(read_volume(scan.image, files=scan.files).data_XYZ, HU)
    assert read_header(scan.image).shape_XYZ == HU.shape


def test_text_that_begins_as_bare_dicom_may_is_passed_over(tmp_path):
    folder = write_series(tmp_path / "d" / "p1")
    (folder / "notes").write_bytes(b"\x08\0\x08\0" + b"some text, no element follows" * 40)
    (scan,) = scans(tmp_path / "d")
    assert np.array_equal(read_volume(scan.image).data_XYZ, HU)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"<html>404</html>" * 90, None],
    ids=["empty", "preamble", "page", "link"],
)
@pytest.mark.parametrize("ending", [".dcm", ""])
def test_a_last_slice_that_never_arrived_does_not_shorten_its_series(tmp_path, content, ending):
    names = [f"IM{z:04}{ending}" for z in range(HU.shape[2])]
    folder = write_series(tmp_path / "d" / "p1", names=names)
    (folder / names[-1]).unlink()
    if content is None:
        (folder / names[-1]).symlink_to("nowhere")
    else:
        (folder / names[-1]).write_bytes(content)
    (scan,) = scans(tmp_path / "d")
    with pytest.raises((UnreadableScanError, FileNotFoundError), match="IM0007"):
        read_volume(scan.image, files=scan.files)


def test_a_slice_that_cannot_be_read_is_named(tmp_path):
    folder = write_series(tmp_path / "d" / "p1")
    (folder / "0003.dcm").unlink()
    (folder / "0003.dcm").symlink_to("0003.dcm")
    (scan,) = scans(tmp_path / "d")
    with pytest.raises(
        UnreadableScanError, match=r"^src/p1: .*0003\.dcm cannot be read \(Too many"
    ):
        process_scan(scan, preset("demo"))


def test_a_damaged_file_named_dicom_counts_in_each_series_of_its_folder(tmp_path):
    folder = write_series(tmp_path / "d" / "p1")
    write_series(folder, change=lambda _: {"SeriesInstanceUID": "1.2.4"}, names="abcdefgh")
    (folder / "lost.DCM").write_bytes(b"")
    for scan in scans(tmp_path / "d"):
        refused(scan.image, "lost.DCM does not start as a DICOM file", files=scan.files)


def test_a_folder_of_files_that_are_dicom_by_name_only_is_accounted_for(tmp_path):
    (tmp_path / "d" / "p1").mkdir(parents=True)
    (tmp_path / "d" / "p1" / "a.dcm").write_bytes(b"")
    (scan,) = scans(tmp_path / "d")
    refused(scan.image, "a.dcm does not start as a DICOM file")


def test_what_a_cd_brings_along_is_passed_over(tmp_path):
    names = [f"IM{z:06}" for z in range(HU.shape[2])]
    folder = write_series(tmp_path / "d" / "DICOM" / "SE000000", names=names)
    for name in ("README.TXT", "Thumbs.db", ".DS_Store", "._IM000001", "LOCKFILE", "IM000001.jpg"):
        (folder / name).write_bytes(b"x" * 500)
    (tmp_path / "d" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (scan,) = scans(tmp_path / "d")
    assert np.array_equal(read_volume(scan.image, files=scan.files).data_XYZ, HU)


def test_two_reconstructions_half_a_gap_apart_are_no_volume(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"ConvolutionKernel": "B30f"})
    write_series(
        folder,
        positions_mm=[(-10, 20, -300 + GAP_MM * (z + 0.5)) for z in range(HU.shape[2])],
        change=lambda _: {"ConvolutionKernel": ["B80f", "3"]},
        names=[f"sharp{z}.dcm" for z in range(HU.shape[2])],
    )
    refused(folder, "of 2 reconstructions by turns", "mixed_series")


def test_a_stack_of_two_regions_may_have_two_kernels(tmp_path):
    kernels = ["H30", "H30", None, "B40", "B40", "B40", "B40", "B40"]
    folder = write_series(tmp_path / "s")
    for z, kernel in enumerate(kernels):
        rewrite(folder / f"{z:04}.dcm", **({"ConvolutionKernel": kernel} if kernel else {}))
    assert np.array_equal(read_volume(folder).data_XYZ, HU)


def test_values_that_begin_above_the_lowest_bit_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda _: {"BitsStored": 12})
    refused(folder, "stores 12 bits up to bit 15", "unsupported_dicom")


@pytest.mark.parametrize("tag", [b"\x28\0\x10\0US", b"\x08\0\x60\0CS", b"\x02\0\x02\0UI"])
def test_a_value_that_cannot_be_parsed_is_a_damaged_file(tmp_path, tag):
    folder = write_series(tmp_path / "d" / "p1")
    content = (folder / "0003.dcm").read_bytes()
    at = content.index(tag)
    # An unsigned short of one byte, or a type of value that there is not.
    changed = b"\x01\0" if tag.endswith(b"US") else b"\x02\0"
    kind = tag[:4] + (b"US" if tag.endswith(b"US") else b"Q7")
    content = content[:at] + kind + changed + content[at + 8 :]
    (folder / "0003.dcm").write_bytes(content)
    (scan,) = scans(tmp_path / "d")
    refused(scan.image, "0003.dcm", files=scan.files)


def test_a_table_of_frames_longer_than_the_file_is_a_damaged_file(tmp_path):
    folder = write_series(tmp_path / "s")
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        made.compress(RLELossless, generate_instance_uid=False)
        made.save_as(path, enforce_file_format=True)
    content = (folder / "0003.dcm").read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\0OB") + 12
    assert content[at : at + 4] == b"\xfe\xff\0\xe0"
    damaged = content[: at + 4] + (4096).to_bytes(4, "little") + content[at + 8 :]
    (folder / "0003.dcm").write_bytes(damaged)
    refused(folder, "0003.dcm: its pixels are damaged")


def test_no_value_of_a_header_is_shown_as_a_warning(tmp_path):
    folder = write_series(tmp_path / "s", HU[:, :, :2])
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.3\0", b"1.DOE\0"))
    code = f"from vocodata.readers import read_volume; print(read_volume({str(folder)!r}))"
    python = [sys.executable, "-W", "default", "-c", code]
    ended = subprocess.run(python, capture_output=True, text=True, check=True)
    assert "Volume(" in ended.stdout
    assert "DOE" not in ended.stderr
