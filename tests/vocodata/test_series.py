"""Slices of one DICOM series in several folders are one scan, copies, or left out by name."""

import dataclasses
import io
import json

import numpy as np
import pytest

from tests.vocodata import test_discover
from tests.vocodata.archives.test_archives import contents
from tests.vocodata.dicom_series import GAP_MM, HU, dataset, rewrite, write_enhanced, write_series
from tests.vocodata.packing import pack, write_zip
from vocodata.archives import unpacked
from vocodata.archives.tars import close_stream
from vocodata.building import build
from vocodata.errors import REASONS, UnreadableScanError
from vocodata.forecast import forecast_scan
from vocodata.initial import guess_sources
from vocodata.readers import read_header, read_volume, slice_mark
from vocodata.recipe import scan_recipe

ALL = range(HU.shape[2])


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def scans(root, names="path", **keys):
    """Those of a source whose folders tell nobody's name."""
    return test_discover.scans(root, names=names, **keys)


def write_part(folder, slices, uid="1.2.840.7", hu=HU, **changes):
    """Slices of a series under the names that each folder has."""
    return write_series(
        folder,
        hu[:, :, list(slices)],
        positions_mm=[(-10, 20, -300 + GAP_MM * z) for z in slices],
        change=lambda _: {"SeriesInstanceUID": uid, **changes},
    )


def write_parts(root, parts):
    for name, slices in parts.items():
        write_part(root / name, slices)


def voxels(scan):
    with unpacked(scan) as files:
        return read_volume(files.image, files=files.files).data_XYZ


WAYS = {
    "alternate": {"p1/a": ALL[::2], "p1/b": ALL[1::2]},
    "halves": {"p1/part1": ALL[:4], "p1/part2": ALL[4:]},
    "one each": {f"p1/IM{z}": [z] for z in ALL},
    "within": {"p1": ALL[3:], "p1/more/rest": ALL[:3]},
}


@pytest.mark.parametrize("parts", WAYS.values(), ids=WAYS)
def test_folders_with_other_slices_of_a_series_are_one_scan(root, caplog, parts):
    write_parts(root, parts)
    write_part(root / "p2", ALL, "1.2.840.8")
    one, other = scans(root)
    assert (one.image, len(one.files)) == (root / "p1", len(ALL))
    assert (one.id[:5], other.id, other.files) == ("a/p1-", "a/p2", ())
    assert "840" not in one.id + caplog.text
    assert "slices of 1 DICOM series lie in more than one folder, the first in p1" in caplog.text
    assert ": 1 put together to one scan each." in caplog.text
    assert np.array_equal(voxels(one), HU)
    assert read_header(one.image, files=one.files).shape_XYZ == HU.shape
    assert [guess.count for guess in guess_sources(root)] == [2]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_folders_of_an_archive_are_put_together_as_those_of_a_disk(tmp_path, root, kind):
    write_parts(root, WAYS["halves"])
    write_part(root / "p2", ALL, "1.2.840.8", HU + np.int16(3))
    one, other = scans(pack(contents(root), tmp_path / "packed", kind))
    assert [scan.id for scan in scans(root)] == [one.id, other.id]
    assert np.array_equal(voxels(one), HU)
    assert np.array_equal(voxels(other), HU + 3)
    with unpacked(one, head_only=True) as files:
        assert read_header(files.image, files=files.files).shape_XYZ == HU.shape
    close_stream()


def test_two_series_in_the_same_two_folders_are_two_scans(root):
    for number, uid in enumerate(("1.2.840.7", "1.2.840.8")):
        for folder, slices in WAYS["alternate"].items():
            write_part(root / "aside" / folder, slices, uid, HU + np.int16(number))
            for path in (root / "aside" / folder).iterdir():
                (root / folder).mkdir(parents=True, exist_ok=True)
                path.rename(root / folder / f"{number}-{path.name}")
    found = scans(root)
    assert len({scan.id for scan in found}) == 2
    got = {scan.files[0][:3]: voxels(scan) for scan in found}
    assert np.array_equal(got["a/0"], HU)
    assert np.array_equal(got["a/1"], HU + 1)


def test_a_series_beside_another_that_is_put_together_keeps_its_name(root):
    write_part(root / "p1/a", ALL[:4])
    names = [f"other{z}" for z in ALL]
    write_series(root / "p1/a", change=lambda _: {"SeriesInstanceUID": "1.2.840.8"}, names=names)
    (before,) = (scan for scan in scans(root) if "other0" in scan.files)
    write_part(root / "p1/b", ALL[4:])
    assert before in scans(root)
    assert len(scans(root)) == 2


def test_whole_copies_are_scans_of_their_own(root, caplog):
    for folder in ("p1/ct", "p2/ct"):
        write_part(root / folder, ALL)
    rewrite(root / "p2/ct/0000.dcm", ImagePositionPatient=["-10", "20.000", "-3.0e2"])
    found = scans(root)
    assert [(scan.id, scan.files) for scan in found] == [("a/p1-ct", ()), ("a/p2-ct", ())]
    assert all(np.array_equal(voxels(scan), HU) for scan in found)
    assert "the first in p1/ct, p2/ct: 1 in whole copies, each a scan of its own." in caplog.text


def refused(scan, match, code="scattered_series"):
    with pytest.raises(UnreadableScanError, match=match) as caught:
        voxels(scan)
    assert caught.value.code == code


def test_parts_that_overlap_are_left_out_with_their_folders(root, caplog):
    write_parts(root, {"p1/a": ALL[:5], "p1/b": ALL[3:]})
    found = scans(root)
    assert [scan.id for scan in found] == ["a/p1-a", "a/p1-b"]
    for scan in found:
        refused(scan, r"lie in p1/a, p1/b: some are the same, others are not; expected parts")
        assert forecast_scan(scan).reason == "scattered_series"
    assert ": 1 neither, so that parts are left out." in caplog.text


def test_a_part_of_a_copy_is_left_out_and_the_whole_is_read(root):
    write_parts(root, {"p1": ALL, "backup/p1": ALL[:5]})
    part, whole = scans(root)
    assert np.array_equal(voxels(whole), HU)
    refused(part, "lie in backup/p1, p1: some are the same")


def test_parts_in_two_archives_are_left_out(root):
    parts = {name: write_part(root.parent / name, WAYS["halves"][f"p1/{name}"])
             for name in ("part1", "part2")}  # fmt: skip
    for name, folder in parts.items():
        files = {f"p1/{key}": content for key, content in contents(folder).items()}
        write_zip(root / f"{name}.zip", files)
    for scan in scans(root):
        refused(scan, "lie in part1.zip/p1, part2.zip/p1, in more than one archive; expected one")


def test_folders_are_not_named_where_names_are_hidden(root, caplog):
    write_parts(root, {"doe^jane/a": ALL[:5], "doe^jane/b": ALL[3:], "doe^john": ALL[1:]})
    for scan in scans(root, names="hashed"):
        assert scan.scattered.startswith("Slices of its series lie in 3 folders: some are")
    assert "doe" not in caplog.text
    write_parts(root, {f"1.2.840.113619.2.55.{z}": [z] for z in ALL})
    sentences = {scan.scattered for scan in scans(root)}
    assert [text.count("(uid)") for text in sentences] == [4]
    assert all("840" not in text and " and 7 more:" in text for text in sentences)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_a_series_is_of_one_patient_and_study(root, keyword):
    for number, slices in enumerate((ALL[:4], ALL[4:])):
        for folder, some in (("a", slices[::2]), ("b", slices[1::2])):
            write_part(root / f"{folder}{number}", some, **{keyword: f"1.{number}"})
    found = scans(root)
    assert len({scan.id for scan in found}) == 2
    assert sorted(voxels(scan).shape[2] for scan in found) == [4, 4]


def test_a_folder_of_two_patients_leaves_none_of_its_series_to_be_half_a_scan(root):
    write_part(root / "p1/a", ALL[:3], PatientID="1")
    write_part(root / "p1/b", ALL[5:], PatientID="2")
    write_part(root / "p1/c", ALL[3:5], PatientID="1")
    rewrite(root / "p1/c/0001.dcm", PatientID="2")
    write_part(root / "p2", ALL, PatientID="3")
    mixed, whole = scans(root)
    assert (len(mixed.files), whole.id) == (len(ALL), "a/p2")
    refused(mixed, "slices of more than one patient", "mixed_patients")


@pytest.mark.parametrize(
    ("name", "content"), [("0004.dcm", b""), ("IM4", b"<html>"), ("x.ima", b"")]
)
def test_a_slice_that_never_arrived_does_not_shorten_a_series_of_two_folders(root, name, content):
    write_parts(root, WAYS["halves"])
    for path in list(root.rglob("*.dcm")) if name.startswith("IM") else []:
        path.rename(path.with_name(f"IM{int(path.stem)}"))
    (root / "p1/part2" / name).write_bytes(content)
    (root / "p1/part2/notes.txt").write_text("no image")
    (scan,) = scans(root)
    refused(scan, f"{name} does not start as a DICOM file", "corrupt_dicom")


def test_objects_of_many_frames_in_folders_of_their_own_are_scans_of_their_own(root):
    first = write_enhanced(root / "p1/a") / "enhanced.dcm"
    (root / "p1/b").mkdir()
    (root / "p1/b/copy.dcm").write_bytes(first.read_bytes())
    assert [scan.id for scan in scans(root)] == ["a/p1-a", "a/p1-b"]
    (root / "p1/b/copy.dcm").unlink()
    write_enhanced(root / "p1/b")
    assert [voxels(scan).shape for scan in scans(root)] == [HU.shape, HU.shape]


@pytest.mark.parametrize(
    "changes", [{"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"ImagePositionPatient": None}]
)
def test_a_scout_or_a_picture_of_a_screen_in_another_folder_costs_no_scan(root, changes):
    write_part(root / "p1/ct", ALL)
    write_part(root / "p1/x", [0], **changes)
    one, _ = scans(root)
    assert (one.id, one.files) == ("a/p1-ct", ())
    assert np.array_equal(voxels(one), HU)


@pytest.mark.parametrize("axis", range(3))
def test_positions_that_python_hashes_alike_are_two(axis):
    def mark(at_mm):
        position = [0.0, 0.0, 0.0]
        position[axis] = at_mm
        file = io.BytesIO()
        dataset(HU[:, :, 0], position).save_as(file)
        return slice_mark(file.getvalue())

    assert hash(-1.0) == hash(-2.0)
    assert mark(-1.0).place != mark(-2.0).place
    assert mark(-0.0).place == mark(0.0).place


def test_what_makes_a_scan_out_of_folders_is_part_of_its_recipe(root):
    write_parts(root, WAYS["halves"])
    (scan,) = scans(root)
    before = scan_recipe(scan, "zstd")
    assert before == scan_recipe(scan, "zstd")
    (root / "p1/other").mkdir()
    assert scan_recipe(scan, "zstd") == before
    assert scan_recipe(dataclasses.replace(scan, scattered="x"), "zstd") != before
    rewrite(root / "p1/part2/0001.dcm", PatientName="x")
    assert scan_recipe(scan, "zstd") != before


def test_a_build_accounts_for_all_and_goes_on_when_folders_are_put_right(tmp_path, root):
    x, y, z = np.indices((40, 36, 24))
    body = ((x - 20) ** 2 + (y - 18) ** 2 < 200) & (z > 2) & (z < 22)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    size = {"hu": hu, "PixelSpacing": [4, 4]}
    write_part(root / "p1/a", range(0, 24, 2), **size)
    write_part(root / "p1/b", range(1, 24, 2), **size)
    write_part(root / "p2/a", range(14), "1.2.840.8", **size)
    write_part(root / "p2/b", range(10, 24), "1.2.840.8", **size)
    source = {"name": "a", "root": str(root), "preset": "demo", "names": "path"}
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"version": 1, "sources": [source]}))
    report = build(manifest, tmp_path / "s.zarr", workers=0)
    assert (report.found, report.stored) == (3, 1)
    assert {(row.scan, row.reason) for row in report.excluded_rows} == {
        ("p2-a", "scattered_series"), ("p2-b", "scattered_series"),
    }  # fmt: skip
    assert all("p2/a, p2/b" in row.detail for row in report.excluded_rows)
    for number in range(10, 14):
        (root / f"p2/b/{number - 10:04}.dcm").unlink()
    again = build(manifest, tmp_path / "s.zarr", workers=0, resume=True)
    assert (again.found, again.stored, again.skipped_done) == (2, 2, 1)
    assert REASONS["scattered_series"].endswith("do not add up.")
