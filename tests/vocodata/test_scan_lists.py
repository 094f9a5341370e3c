"""MONAI datalists are found by `voco data init`, and what they leave out is said."""

import json

import pytest

from tests.vocodata.test_discover import touch, touch_dicom
from tests.vocodata.test_initial import guessed
from vocodata.initial import guess_sources


def write_list(path, **sections):
    """A datalist of names, or of pairs of image and label."""
    keys = ("image", "label")
    pairs = {k: [(i,) if isinstance(i, str) else i for i in items] for k, items in sections.items()}
    document = {k: [dict(zip(keys, pair, strict=False)) for pair in p] for k, p in pairs.items()}
    path.write_text(json.dumps(document))


@pytest.fixture
def root(tmp_path):
    """A folder of three scans, two with labels."""
    made = tmp_path / "data"
    touch(made, *(f"imagesTr/img{n}.nii.gz" for n in (1, 2, 3)))
    touch(made, *(f"labelsTr/label{n}.nii.gz" for n in (1, 2)))
    return made


PAIRS = [(f"imagesTr/img{n}.nii.gz", f"./labelsTr/label{n}.nii.gz") for n in (1, 2)]


def test_a_list_beside_its_scans_is_the_source(root, tmp_path):
    write_list(root / "dataset_0.json", training=PAIRS, validation=["./imagesTr/img3.nii.gz"])
    ((source,), scans) = guessed(root, tmp_path)
    assert (source.layout, source.scans, source.expected) == (
        "datalist",
        root / "dataset_0.json",
        3,
    )
    assert [scan.labels is not None for scan in scans] == [True, True, False]
    text = (tmp_path / "m.yaml").read_text()
    assert "    scans: 'data/dataset_0.json'\n" in text
    assert "Not " not in text
    assert "expected: 3  # found now, 2 with labels" in text


def test_each_subfolder_is_read_by_its_own_list(root, tmp_path):
    write_list(root / "dataset_0.json", training=PAIRS)
    touch(tmp_path / "other", "a.nii.gz")
    touch_dicom(tmp_path, "hospital/p1/1", "hospital/p2/1")
    write_list(tmp_path / "hospital/scans.json", validation=["p2"])
    found = {guess.root.name: guess for guess in guess_sources(tmp_path)}
    assert {name: (guess.layout, guess.count) for name, guess in found.items()} == {
        "data": ("datalist", 2),
        "hospital": ("datalist", 1),
        "other": ("auto", 1),
    }
    # Its folders may be called after patients.
    assert [name for name, guess in found.items() if guess.has_dicom] == ["hospital"]
    doubt = found["hospital"].doubt
    assert doubt.startswith("Not on the list, so not read: 1 of the files and DICOM folders")
    assert doubt.endswith("scans or labels.")


def test_what_a_list_leaves_out_is_said(root, tmp_path):
    touch(root, "more.zip", "t.mha", "labelsTr/label3.nii.gz")
    gone = ("imagesTr/gone.nii.gz", "labelsTr/gone.nii.gz")
    write_list(root / "datalist.json", training=[*PAIRS, gone], test=["t.mha"])
    ((source,), scans) = guessed(root, tmp_path)
    assert (source.layout, len(scans)) == ("datalist", 3)
    text = (tmp_path / "m.yaml").read_text()
    assert "Not there: 1 of the list's scans, the first imagesTr/gone.nii.gz." in text
    assert "Not read: its list test, of 1 scans." in text
    assert "Not on the list, so not read: 3 of the files and DICOM folders that may hold" in text
    assert "scans or labels, the first imagesTr/img3.nii.gz." in text


def test_of_several_lists_that_of_most_scans_is_taken_and_the_others_are_named(root):
    write_list(root / "a.json", training=PAIRS[:1])
    write_list(root / "b.json", training=PAIRS)
    write_list(root / "c.json", training=PAIRS)
    (guess,) = guess_sources(root)
    assert (guess.scans, guess.count) == (root / "b.json", 2)
    assert "Other lists of its scans, not read: c.json, a.json." in guess.doubt


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
def test_a_layout_with_a_dataset_json_goes_before_a_list_which_is_named(tmp_path, layout):
    root = tmp_path / "data"
    touch(root, f"imagesTr/a{'_0000' * (layout == 'nnunet')}.nii.gz")
    image = next((root / "imagesTr").iterdir()).relative_to(root).as_posix()
    for name in ("dataset.json", "fold_0.json"):
        write_list(root / name, training=[image])
    (guess,) = guess_sources(root)
    assert (guess.layout, guess.scans) == (layout, None)
    assert guess.doubt == "Other lists of its scans, not read: fold_0.json."


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"[1]",
        b"{}",
        b'{"training": 3}',
        b'{"training": [{"image": ["imagesTr/img1.nii.gz", "b"]}]}',
        b'{"training": [{"image": "elsewhere/a.nii.gz"}]}',
        b'{"training": [{"image": "\\u0000"}, {"image": "' + b"x" * 5000 + b'"}]}',
        b'{"train": [{"image": "imagesTr/img1.nii.gz"}]}',
    ],
)
def test_a_json_file_that_is_no_list_of_these_scans_changes_nothing(root, text):
    without = guess_sources(root)
    (root / "some.json").write_bytes(text)
    (root / "folder.json").mkdir()
    (root / "nowhere.json").symlink_to(root / "gone")
    assert guess_sources(root) == without
    assert "glob" in {guess.layout for guess in without}


def test_a_list_that_is_too_large_is_not_opened(root, monkeypatch):
    write_list(root / "list.json", training=PAIRS)
    monkeypatch.setattr("vocodata.scan_lists._MOST_BYTES", 40)
    assert [guess.layout for guess in guess_sources(root)] == ["glob"]


def test_texts_called_as_their_scans_do_not_hide_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr("vocodata.scan_lists._MOST_LISTS", 1)
    root = tmp_path / "data"
    touch(root, "a.nii.gz", "b.nii.gz", "a.json", "b.json")
    write_list(root / "list.json", training=["a.nii.gz", "b.nii.gz"])
    assert [guess.layout for guess in guess_sources(root)] == ["datalist"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"test": ["a.nii.gz"]}, "list.json has scans under test only, which are not read."),
        ({"training": ["a.nii.gz"], "modality": "MRI"}, "the images are MRI; expected CT"),
        ({"training": ["a.nii.gz", 3]}, r"list.json: training[1] is 3; expected an image"),
    ],
)
def test_a_list_that_a_build_would_refuse_is_said_and_the_scans_are_taken(tmp_path, document, told):
    root = tmp_path / "data"
    touch(root, "a.nii.gz", "b.nii.gz")
    (root / "list.json").write_text(json.dumps(document))
    (guess,) = guess_sources(root)
    assert (guess.layout, guess.count) == ("auto", 2)
    assert told in guess.doubt


def test_a_damaged_dataset_json_is_a_doubt_and_no_end(tmp_path):
    touch(tmp_path, "data/a.nii.gz", "good/b.nii.gz")
    (tmp_path / "data/dataset.json").write_text("{")
    touch(tmp_path, "bids/sub-1/ct/sub-1_ct.nii.gz")
    found = {guess.name: guess for guess in guess_sources(tmp_path)}
    assert set(found) == {"bids", "data", "good"}
    assert "dataset.json is not JSON" in found["data"].doubt
    (alone,) = guess_sources(tmp_path / "data")
    assert alone.doubt == found["data"].doubt
