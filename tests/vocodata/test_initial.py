import json
import os
from pathlib import Path

import pytest

from tests.vocodata.packing import pack
from tests.vocodata.test_discover import touch, touch_dicom
from vocodata.discover import find_scans
from vocodata.errors import ManifestError
from vocodata.initial import first_manifest, guess_sources
from vocodata.manifest import load_manifest


def guessed(root, folder):
    """The sources of the manifest that is written, and its scans."""
    (folder / "m.yaml").write_text(first_manifest(guess_sources(root), folder=folder))
    manifest = load_manifest(folder / "m.yaml")
    return manifest.sources, find_scans(manifest)


def test_each_subfolder_is_a_source_by_its_own_layout(tmp_path):
    root = tmp_path / "data"
    touch(root / "BTCV", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTr/b_0000.nii.gz")
    touch(root / "Task03", "imagesTr/x.nii.gz")
    listed = {"modality": {"0": "CT"}, "training": [{"image": "imagesTr/x.nii.gz"}]}
    (root / "Task03/dataset.json").write_text(json.dumps(listed))
    touch(root / "bids", "sub-1/ct/sub-1_ct.nii.gz")
    touch_dicom(root / "hospital", "p1/1", "p2/1", "p3/1")
    pack({"a/1.nii": b"1", "a/2.nii": b"2"}, root / "packed", "zip")
    (root / "packed/all.zip").rename(root / "My Set.zip")
    sources, scans = guessed(root, tmp_path)
    assert [(s.name, s.layout, s.expected) for s in sources] == [
        ("bids", "bids", 1),
        ("btcv", "nnunet", 2),
        ("dicom", "dicom", 3),
        ("my-set", "auto", 2),
        ("task03", "msd", 1),
    ]
    assert sources[0].root == root / "bids"
    assert len(scans) == 9
    assert "1 with labels" in (tmp_path / "m.yaml").read_text()


def test_a_folder_of_patients_is_one_source(tmp_path):
    touch_dicom(tmp_path / "data", "p1/ct/1", "p2/ct/1")
    ((source,), scans) = guessed(tmp_path / "data", tmp_path)
    assert (source.layout, source.expected, len(scans)) == ("dicom", 2, 2)


def test_files_and_dicom_folders_side_by_side_are_all_found(tmp_path):
    touch(tmp_path / "data", "a.nrrd")
    touch_dicom(tmp_path / "data", "p1/1", "p2/1")
    ((source,), scans) = guessed(tmp_path / "data", tmp_path)
    assert (source.layout, source.expected, len(scans)) == ("auto", 3, 3)


def test_dicom_folders_beside_files_with_labels_are_a_source_of_their_own(tmp_path):
    root = tmp_path / "data"
    touch(root, "img/1.nii.gz", "label/1.nii.gz")
    touch_dicom(root, "p1/1")
    sources, scans = guessed(root, tmp_path)
    assert [(s.name, s.layout) for s in sources] == [("data", "glob"), ("dicom", "dicom")]
    assert len(scans) == 2


def test_files_beside_the_folders_of_data_sets_are_not_passed_over(tmp_path):
    root = tmp_path / "data"
    touch(root, "BTCV/imagesTr/a_0000.nii.gz", "x.nii.gz", "y.nrrd", "notes.txt")
    sources, scans = guessed(root, tmp_path)
    assert [(s.name, s.images) for s in sources] == [
        ("btcv", None),
        ("data-nii-gz", "*.nii.gz"),
        ("data-nrrd", "*.nrrd"),
    ]
    assert len(scans) == 3


def test_labels_beside_the_folders_of_data_sets_are_left_to_the_user(tmp_path):
    root = tmp_path / "data"
    touch(root, "BTCV/imagesTr/a_0000.nii.gz", "x.nii.gz", "x_seg.nii.gz")
    assert [bool(guess.doubt) for guess in guess_sources(root)] == [False, True]


def test_folders_of_like_names_become_sources_of_different_names(tmp_path):
    root = tmp_path / "data"
    touch(root, *(f"{name}/imagesTr/a_0000.nii.gz" for name in ("pär", "pör", "p-r")))
    sources, _ = guessed(root, tmp_path)
    assert sorted(source.name for source in sources) == ["p-r", "p-r-2", "p-r-3"]


def test_one_file_name_in_every_folder_is_paired_with_its_labels(tmp_path):
    root = tmp_path / "data"
    touch(root, *(f"s{n}/{kind}.nii.gz" for n in range(3) for kind in ("ct", "segmentation")))
    ((source,), scans) = guessed(root, tmp_path)
    assert (source.images, source.labels) == ("**/ct.nii.gz", "{folder}/segmentation.nii.gz")
    assert [scan.labels.parent for scan in scans] == [scan.image.parent for scan in scans]


def test_folders_of_images_and_labels_are_paired_by_name(tmp_path):
    root = tmp_path / "data"
    touch(root, *(f"{kind}/{n}.nii.gz" for n in range(3) for kind in ("img", "label")))
    ((source,), scans) = guessed(root, tmp_path)
    assert (source.images, source.labels) == ("img/*.nii.gz", "label/{id}.nii.gz")
    assert "# label_names: {1: liver}" in (tmp_path / "m.yaml").read_text()
    assert len(scans) == 3


@pytest.mark.parametrize(
    ("names", "images", "labels"),
    [
        (["a.nii.gz", "b.nii.gz", "b_seg.nii.gz"], "**/*.nii.gz", "{folder}/{id}_seg.nii.gz"),
        (["c/p1_ct.nii", "c/p2_ct.nii", "c/p2_seg.nii"], "**/*_ct.nii", "{folder}/{id}_seg.nii"),
        (
            ["img/img01.mha", "img/img02.mha", "label/label02.mha"],
            "img/img*.mha",
            "label/label{id}.mha",
        ),
        (["i/a.nrrd", "i/b.nrrd", "mask/a_mask.nii.gz"], "i/*.nrrd", "mask/{id}_mask.nii.gz"),
        (["vol-1.nii", "vol-2.nii", "seg-1.nii"], "**/vol-*.nii", "{folder}/seg-{id}.nii"),
    ],
)
def test_labels_called_after_their_scans_are_paired(tmp_path, names, images, labels):
    touch(tmp_path / "data", *names)
    ((source,), scans) = guessed(tmp_path / "data", tmp_path)
    assert (source.images, source.labels) == (images, labels)
    assert len(scans) == len(names) - 1
    assert sum(scan.labels is not None for scan in scans) == 1


@pytest.mark.parametrize(
    "names",
    [
        ["img/1.nii.gz", "label/1.nii.gz", "more/2.nii.gz"],
        ["img/1.nii.gz", "img/2.nrrd", "label/1.nii.gz"],
        ["1.nii.gz", "2.nii.gz", "10_seg.nii.gz"],
        ["a.nii.gz", "a_liver_mask.nii.gz", "a_spleen_mask.nii.gz"],
    ],
)
def test_patterns_that_would_leave_something_out_are_not_proposed(tmp_path, names):
    touch(tmp_path / "data", *names)
    (guess,) = guess_sources(tmp_path / "data")
    assert "cannot be told apart" in guess.doubt


def test_what_cannot_be_told_apart_is_left_to_the_user_and_refused_by_the_build(tmp_path):
    root = tmp_path / "data"
    touch(root, "a.nii.gz", "b.nii.gz", "a_seg.nii.gz", "b_mask.nrrd")
    (guess,) = guess_sources(root)
    assert "cannot be told apart" in guess.doubt
    with pytest.raises(ManifestError, match="Say layout: glob, with images and labels"):
        guessed(root, tmp_path)
    assert "# Scans and labels cannot be told apart" in (tmp_path / "m.yaml").read_text()


def test_the_preset_is_marked_as_a_choice(tmp_path):
    touch(tmp_path / "data", "a.nii.gz")
    guessed(tmp_path / "data", tmp_path)
    text = (tmp_path / "m.yaml").read_text()
    assert "preset: abdomen  # choose the region's" in text
    assert "chest, headneck" in text


def test_a_folder_without_scans_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="holds no scan; expected NIfTI"):
        guess_sources(tmp_path)
    with pytest.raises(ManifestError, match="is not a folder or archive"):
        guess_sources(tmp_path / "gone")


def test_an_archive_that_cannot_be_listed_is_written_as_a_doubt_beside_the_others(tmp_path):
    root = tmp_path / "data"
    touch(root, "bids/sub-1/ct/sub-1_ct.nii.gz", "cut.zip")
    with pytest.raises(ManifestError, match=r"cut\.zip is neither a folder nor an archive"):
        guessed(root, tmp_path)
    text = (tmp_path / "m.yaml").read_text()
    assert "# Source 'cut.zip': " in text
    assert [source.name for source in load_manifest(tmp_path / "m.yaml").sources] == ["bids", "cut"]
    with pytest.raises(ManifestError, match=r"cut\.zip is neither a folder nor an archive"):
        guess_sources(root / "cut.zip")


def test_an_archive_that_cannot_be_listed_does_not_make_each_patient_a_source(tmp_path):
    root = tmp_path / "data"
    touch_dicom(root, "p1/1", "p2/1", "p3/1")
    touch(root, "notes.zip")
    guesses = guess_sources(root)
    assert [(guess.name, guess.count) for guess in guesses] == [("dicom", 3), ("notes", 0)]


def test_a_folder_that_cannot_be_listed_is_a_doubt_beside_the_others(tmp_path, monkeypatch):
    root = tmp_path / "data"
    touch(root, "bids/sub-1/ct/sub-1_ct.nii.gz", "closed/a.nii.gz", "loose.nii.gz")
    walk = os.walk

    def closed(folder, onerror):
        if Path(folder).name == "closed":
            onerror(PermissionError(13, "Permission denied", str(folder)))
        return walk(folder, onerror=onerror)

    monkeypatch.setattr("vocodata.tree.os.walk", closed)
    guesses = guess_sources(root)
    assert [guess.name for guess in guesses] == ["bids", "closed", "data-nii-gz"]
    assert "closed cannot be listed (Permission denied)" in guesses[1].doubt


@pytest.mark.parametrize("name", ["it's", "two\nlines", "tab\there", "Größe 1", "a: b # c"])
def test_names_of_folders_come_through_a_manifest(tmp_path, name):
    root = tmp_path / name
    touch(root, "a.nii.gz")
    ((source,), _) = guessed(root, tmp_path)
    assert source.root == root


@pytest.mark.parametrize("name", ["2024", "1.2.840", "2024-11-28", "null", "1e3", "on"])
def test_a_folder_called_like_a_number_is_a_name(tmp_path, name):
    touch(tmp_path / name, "a.nii.gz")
    ((source,), _) = guessed(tmp_path / name, tmp_path)
    assert isinstance(source.name, str)
    assert name.startswith(source.name)


def test_a_suspect_with_a_name_of_two_lines_stays_a_comment(tmp_path):
    touch(tmp_path / "data", "a.nii.gz", "c.nii.gz", "x\nb_seg.nii.gz")
    text = first_manifest(guess_sources(tmp_path / "data"), folder=tmp_path)
    assert "(x\\nb_seg.nii.gz looks like labels)" in text


def test_a_folder_whose_name_is_no_text_is_refused_in_words(tmp_path):
    root = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    touch(root, "a.nii.gz")
    with pytest.raises(ManifestError, match="is no UTF-8 text, which a manifest is; rename"):
        guessed(root, tmp_path)
