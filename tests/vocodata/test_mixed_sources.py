"""Sources as hospitals have them: what is not read as meant is told, or refused."""

import json

import pytest

from tests.vocodata.packing import write_zip
from tests.vocodata.test_discover import scans, touch
from vocodata.errors import ManifestError


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "data"
    made.mkdir()
    return made


def test_one_label_file_is_not_taken_for_all_scans(root):
    touch(root, "img/a.nii.gz", "img/b.nii.gz", "labels/a.nii.gz")
    with pytest.raises(ManifestError, match="one file for 2 scans; expected a template"):
        scans(root, layout="glob", images="img/*.nii.gz", labels="labels/a.nii.gz")
    (root / "img/b.nii.gz").unlink()
    (scan,) = scans(root, layout="glob", images="img/*.nii.gz", labels="labels/a.nii.gz")
    assert scan.labels == root / "labels/a.nii.gz"


@pytest.mark.parametrize("name", ["a.nii.gz", "b.mha", "c.dcm"])
def test_a_scan_is_no_root(root, name):
    touch(root, name)
    with pytest.raises(ManifestError, match=rf"{name} is called as one scan is; expected a folder"):
        scans(root / name)


def test_several_scans_of_a_folder_may_share_its_labels(root):
    touch(root, "p1/early.nii.gz", "p1/late.nii.gz", "p1/seg.nii.gz")
    found = scans(root, layout="glob", images="*/*.nii.gz", labels="{folder}/seg.nii.gz")
    assert [scan.labels for scan in found] == [root / "p1/seg.nii.gz"] * 2


def test_a_list_under_other_keys_is_refused_with_those_that_are_read(root):
    (root / "l.json").write_text(json.dumps({"train": [{"image": "a.nii.gz"}], "seed": 1}))
    told = "has the keys train, seed; expected scans under training or validation"
    with pytest.raises(ManifestError, match=told):
        scans(root, layout="datalist", scans=str(root / "l.json"))


def test_the_first_channel_is_that_of_the_lowest_number(root):
    touch(root, "imagesTr/a_0000.nii.gz")
    for channels, is_ct in (({"1": "PET", "0": "CT"}, True), ({"10": "CT", "9": "PET"}, False)):
        (root / "dataset.json").write_text(json.dumps({"channel_names": channels}))
        if is_ct:
            assert len(scans(root)) == 1
            continue
        with pytest.raises(ManifestError, match="images are PET; expected CT"):
            scans(root)


def test_files_that_may_hold_scans_are_not_passed_over_without_a_word(root, caplog):
    touch(root, "a.nii.gz", "p1/day1/more.zip", "old/b.hdr", "old/b.img", "notes.txt")
    assert len(scans(root)) == 1
    assert "passes over 2 files that may hold scans: .hdr, .zip (old/b.hdr)" in caplog.text
    caplog.clear()
    scans(root, names="hashed")
    assert "passes over 2 files that may hold scans: .hdr, .zip. Give them" in caplog.text
    caplog.clear()
    scans(root, layout="glob", images="*.nii.gz")
    assert not caplog.text


def test_scan_files_that_are_no_ct_by_their_bids_name_are_not_passed_over_without_a_word(
    root, caplog
):
    touch(root, "sub-1/ct/sub-1_ct.nii.gz", "sub-2/scan.nii.gz", "sub-2/T1w.mha")
    for layout in ("auto", "bids"):
        caplog.clear()
        assert len(scans(root, layout=layout)) == 1
        told = "passes over 2 files that may hold scans: .mha, .nii.gz (sub-2/T1w.mha)"
        assert told in caplog.text


def test_an_archive_in_an_archive_is_not_passed_over_without_a_word(root, caplog):
    path = write_zip(root / "a.zip", {"x.nii": b"1", "in/b.zip": b"2"})
    assert len(scans(path)) == 1
    assert "passes over 1 file that may hold scans: .zip (in/b.zip)" in caplog.text
