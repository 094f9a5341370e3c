"""Archives that lie beside folders: `voco data init` reads them, a build says that it does not."""

import json

import pytest

from tests.vocodata.packing import KINDS, pack, write_zip
from tests.vocodata.test_discover import scans, touch, touch_dicom
from tests.vocodata.test_initial import guessed
from vocodata.initial import guess_sources

FILES = {f"s/{n}.nii.gz": bytes(range(200)) for n in range(4)}
FORMS = [kind for kind in KINDS if kind != "zips"]
ENDINGS = {
    "zip": ".zip",
    "zip64": ".zip",
    "tar": ".tar",
    "tar.gz": ".gz",
    "tar.xz": ".xz",
    "zip.001": ".zip.001, .zip.002, .zip.003, .zip.004, .zip.005",
    "tar.001": ".tar.001, .tar.002, .tar.003, .tar.004, .tar.005",
    "z01": ".z01, .z02, .zip",
    "pieces": "pieces of an archive",
}


@pytest.fixture(params=FORMS)
def kind(request):
    return request.param


@pytest.fixture(params=["scans", "nnunet", "dicom"])
def root(request, tmp_path, kind):
    """A folder of one scan, and beside it an archive of four."""
    made = tmp_path / "data"
    if request.param == "dicom":
        touch_dicom(made, "BTCV/1.dcm", "BTCV/2.dcm")
    else:
        touch(made, f"BTCV/imagesTr/img1{'_0000' * (request.param == 'nnunet')}.nii.gz")
    touch(made, "README.txt", "LICENSE", "._all.zip")
    pack(FILES, made, kind)
    return made


def test_an_archive_beside_a_folder_is_a_source_of_its_own(root, tmp_path):
    sources, found = guessed(root, tmp_path)
    counts = {source.root.name: source.expected for source in sources}
    (name,) = counts.keys() - {"BTCV"}
    assert name.startswith(("all.", "x.zip", "NLST_v188"))
    assert (counts[name], counts["BTCV"]) == (4, 1)
    assert len(found) == 5
    assert "passes over" not in (tmp_path / "m.yaml").read_text()


def test_a_build_of_the_whole_folder_says_that_it_does_not_read_the_archive(root, kind, caplog):
    assert len(scans(root)) == 1
    count = len([path for path in root.iterdir() if path.is_file() and path.name[0] in "aNx"])
    files = f"{count} file{'s' * (count > 1)}"
    assert f"passes over {files} that may hold scans: {ENDINGS[kind]}" in caplog.text


def test_pieces_deep_below_a_root_are_told_and_dicom_is_not_taken_for_them(tmp_path, caplog):
    root = tmp_path / "data"
    touch_dicom(root, "p1/1.2.3", "p1/1.2.4", "p2/IM1", "p2/IM2")
    pack(FILES, root / "p2", "pieces")
    assert len(scans(root, names="path")) == 2
    told = "passes over 4 files that may hold scans: pieces of an archive"
    assert f"{told} (p2/NLST_v188)" in caplog.text
    caplog.clear()
    scans(root, names="hashed")
    assert f"{told}. Give them" in caplog.text
    (guess,) = guess_sources(root)
    assert told in guess.doubt


def test_an_archive_among_the_files_of_a_known_layout_is_said_by_init_and_build(tmp_path, caplog):
    root = tmp_path / "data"
    touch(root, "imagesTr/a_0000.nii.gz", "imagesTs/t_0000.nii.gz", "imagesTr.tar")
    (guess,) = guess_sources(root)
    told = "passes over 1 file that may hold scans: .tar (imagesTr.tar)"
    assert guess.layout == "nnunet"
    assert told in guess.doubt
    assert len(scans(root, layout="nnunet")) == 1
    assert told in caplog.text


def test_a_part_that_is_missing_is_one_doubt_beside_the_other_sources(tmp_path):
    root = tmp_path / "data"
    touch(root, "BTCV/imagesTr/a_0000.nii.gz")
    pack(FILES, root, "zip.001")
    (root / "all.zip.002").unlink()
    doubted, read = guess_sources(root)
    assert (doubted.name, doubted.count, read.name) == ("all", 0, "btcv")
    assert "part 2 is missing of parts 1 to 5" in doubted.doubt
    (root / "all.zip.001").unlink()
    doubted, _ = guess_sources(root)
    assert "part 1 is missing of parts 1 to 5" in doubted.doubt


def test_scans_labels_and_dicom_of_one_archive_are_all_found(tmp_path):
    folder = tmp_path / "data"
    files = {"img/1.nii.gz": b"1", "label/1.nii.gz": b"2", "p/1": bytes(128) + b"DICM"}
    folder.mkdir()
    write_zip(folder / "a.zip", files)
    touch(folder, "BTCV/imagesTr/a_0000.nii.gz")
    sources, found = guessed(folder, tmp_path)
    assert {(source.root.name, source.layout) for source in sources} == {
        ("a.zip", "glob"),
        ("a.zip", "dicom"),
        ("BTCV", "nnunet"),
    }
    assert len(found) == 3


def test_a_listed_source_says_nothing_of_the_rest_when_it_is_built(tmp_path, caplog):
    root = tmp_path / "data"
    touch(root, "a.nii.gz", "b.nii.gz", "c.zip")
    (root / "l.json").write_text(json.dumps({"training": ["a.nii.gz"]}))
    assert len(scans(root, layout="datalist", scans=str(root / "l.json"))) == 1
    assert not caplog.text


def test_a_closed_folder_that_a_layout_need_not_look_into_is_said_and_no_end(
    tmp_path, monkeypatch, caplog
):
    root = tmp_path / "data"
    touch(root, "imagesTr/a_0000.nii.gz", "lost+found/x")

    def closed(folder, onerror):
        onerror(PermissionError(13, "Permission denied", f"{folder}/lost+found"))
        return iter(())

    monkeypatch.setattr("vocodata.tree.os.walk", closed)
    assert len(scans(root, layout="nnunet")) == 1
    assert "lost+found cannot be listed (Permission denied)" in caplog.text
    (guess,) = guess_sources(root)
    assert (guess.layout, guess.count) == ("nnunet", 1)
    assert "lost+found cannot be listed" in guess.doubt
