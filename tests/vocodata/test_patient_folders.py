"""Folders called after patients: what `voco data init` and `build` make of them tells of nobody."""

import json
import re
import zipfile

import numpy as np
import pytest

from tests.vocodata.dicom_series import dataset
from tests.vocodata.told_words import WORDS, told
from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import REASONS, ManifestError
from vocodata.initial import first_manifest, guess_sources
from vocodata.leaks import find_leaks
from vocodata.ledger import Ledger
from vocodata.manifest import load_manifest
from vocodata.store import open_store

X, Y, Z = np.indices((24, 22, 16))
HU = np.where(((X - 12) ** 2 + (Y - 11) ** 2 < 64) & (Z > 1) & (Z < 15), 40 + X, -1000)


@pytest.fixture(autouse=True)
def no_salt_in_the_environment(monkeypatch):
    monkeypatch.delenv("VOCO_SALT", raising=False)


def _series(folder, *, shift_hu=0, series="1.2.840.7.1"):
    folder.mkdir(parents=True, exist_ok=True)
    hu = (HU + shift_hu).astype(np.int16)
    for n in range(16):
        made = dataset(hu[:, :, n].T, (-10, 20, 4.0 * n), series)
        made.PixelSpacing = [4, 4]
        made.save_as(folder / f"DOE_JOHN_{series}_{n}.dcm", enforce_file_format=True)


def _patients(root):
    """A good scan, a visit with two series of which one is damaged, and one of too few slices."""
    _series(root / "DOE_JOHN_19570412/MRN00123456_20190304")
    visit = root / "DOE_JANE_19570412/MRN00123457_20190304"
    _series(visit, shift_hu=1, series="1.2.840.7.2")
    _series(visit, shift_hu=2, series="1.2.840.7.3")
    damaged = visit / "DOE_JOHN_1.2.840.7.3_7.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    gap = root / "DOE_JOHN_19570412/MRN00123458_20190304"
    _series(gap, series="1.2.840.7.4")
    (gap / "DOE_JOHN_1.2.840.7.4_5.dcm").unlink()


def _first_manifest(root, folder):
    path = folder / "manifest.yaml"
    path.write_text(first_manifest(guess_sources(root), folder=folder))
    return path


def _rewrite(manifest, **keys):
    """The same manifest with keys of its source changed; of None, taken out."""
    document = _plain(manifest)
    (source,) = document["sources"]
    source.update(keys)
    document["sources"] = [{key: value for key, value in source.items() if value is not None}]
    manifest.write_text(json.dumps(document))
    return manifest


def _plain(manifest):
    (source,) = load_manifest(manifest).sources
    return {"version": 1, "sources": [source.model_dump(mode="json", exclude_defaults=True)]}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Patients' folders in a folder called after one, and a store of them as init has it."""
    folder = tmp_path_factory.mktemp("hospital")
    _patients(folder / "DOE_JOHN_19570412")
    manifest = _first_manifest(folder / "DOE_JOHN_19570412", folder)
    return folder, manifest, build(manifest, folder / "ct.zarr", workers=0)


def test_no_word_of_a_patients_folder_reaches_any_file_or_name_of_the_store(hospital):
    _, _, report = hospital
    assert (report.found, report.stored) == (4, 2)
    assert report.excluded == {"corrupt_dicom": 1, "missing_slices": 1}
    assert told(report.store) == set()
    ids = open_store(report.store).ids()
    assert all(re.fullmatch(r"dicom/[0-9a-f]{16}(-[0-9a-f]{8})?", name) for name in ids)


def test_the_search_sees_the_words_where_names_are_kept(hospital, tmp_path):
    folder, manifest, _ = hospital
    document = _plain(manifest)
    document["sources"][0]["names"] = "path"
    (folder / "kept.yaml").write_text(json.dumps(document))
    report = build(folder / "kept.yaml", tmp_path / "ct.zarr", workers=0)
    assert len(told(report.store) & set(WORDS)) > 4


def test_a_reason_is_general_in_the_store_and_whole_in_the_ledger(hospital):
    folder, _, report = hospital
    for row in report.excluded_rows:
        assert row.detail == REASONS[row.reason]
    with Ledger(folder / "ct.zarr.ledger.sqlite", read_only=True) as book:
        details = {row.reason: row.detail for row in book.excluded_rows()}
        images = [image for _, _, image in book.places("dicom")]
    assert "lacks 1 slices" in details["missing_slices"]
    assert "_7.dcm" in details["corrupt_dicom"]
    assert all("MRN0012345" in image for image in images)


def test_a_resumed_build_publishes_no_more_than_the_first(hospital, tmp_path):
    folder, manifest, report = hospital
    again = build(manifest, folder / "ct.zarr", workers=0, resume=True)
    assert (again.digest, again.excluded_rows) == (report.digest, report.excluded_rows)
    assert told(again.store) == set()
    assert not list(tmp_path.iterdir())


def test_init_writes_the_key_and_how_to_keep_names(hospital):
    _, manifest, _ = hospital
    text = manifest.read_text()
    assert "    names: hashed\n" in text
    assert "`names: path` keeps what" in text
    assert "name: dicom  # a folder of the store; call it after nobody" in text


def test_archives_called_after_patients_name_no_source(tmp_path):
    _series(tmp_path / "s")
    (tmp_path / "in").mkdir()
    for patient in ("DOE_JOHN_19570412", "DOE_JANE_19570412"):
        with zipfile.ZipFile(tmp_path / f"in/{patient}.zip", "w") as archive:
            for path in sorted((tmp_path / "s").iterdir()):
                archive.write(path, f"{patient}/{path.name}")
    (tmp_path / "in/set/sub-1").mkdir(parents=True)
    (tmp_path / "in/set/sub-1/sub-1_ct.nii").write_bytes(b"x")
    guesses = guess_sources(tmp_path / "in")
    assert [guess.name for guess in guesses] == ["dicom", "dicom-2", "set"]
    manifest = _first_manifest(tmp_path / "in", tmp_path)
    assert "names: hashed" in manifest.read_text()
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.stored, report.excluded) == (2, {"wrong_magic": 1})
    assert told(report.store) == set()


@pytest.mark.parametrize(
    "keys", [{}, {"layout": "dicom"}, {"layout": "glob", "images": "*/*"}, {"layout": "datalist"}]
)
def test_a_manifest_that_says_nothing_hides_dicom_series_in_every_layout(tmp_path, keys):
    place = "DOE_JOHN_19570412/MRN00123456_20190304"
    _series(tmp_path / "d" / place)
    if keys.get("layout") == "datalist":
        (tmp_path / "list.json").write_text(json.dumps({"training": [place]}))
        keys = keys | {"scans": "list.json"}
    row = {"name": "a", "root": "d", "preset": "demo"} | keys
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
    (scan,) = find_scans(load_manifest(tmp_path / "m.yaml"), salt=b"0" * 16)
    assert re.fullmatch(r"a/[0-9a-f]{16}", scan.id)
    assert scan.hides_names


def test_files_beside_dicom_series_keep_their_names_unless_the_manifest_hides_them(tmp_path):
    _series(tmp_path / "d/DOE_JOHN")
    (tmp_path / "d/case1.nii.gz").write_bytes(b"x")
    for keys, names in (({}, {"case1"}), ({"names": "hashed"}, set())):
        row = {"name": "a", "root": "d", "preset": "demo"} | keys
        (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
        found = find_scans(load_manifest(tmp_path / "m.yaml"), salt=b"0" * 16)
        plain = {scan.name for scan in found if not scan.hides_names}
        assert (len(found), plain) == (2, names)


def test_a_store_with_names_by_path_goes_on_only_when_the_manifest_says_so(tmp_path):
    _series(tmp_path / "d/case/ct")
    row = {"name": "a", "root": "d", "layout": "dicom", "preset": "demo", "names": "path"}
    manifest = tmp_path / "m.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [row]}))
    store = tmp_path / "ct.zarr"
    first = build(manifest, store, workers=0)
    _rewrite(manifest, names=None)
    told = r"'a': 1 DICOM series were named by their paths, the first a/case-ct; .*names: path"
    with pytest.raises(ManifestError, match=told):
        build(manifest, store, workers=0, resume=True)
    assert open_store(store).ids() == ["a/case-ct"]
    again = build(_rewrite(manifest, names="path"), store, workers=0, resume=True)
    assert (again.digest, again.skipped_done) == (first.digest, 1)
    hidden = build(_rewrite(manifest, names="hashed"), store, workers=0, resume=True)
    assert (hidden.stored, hidden.skipped_done) == (1, 0)
    (name,) = open_store(store).ids()
    assert re.fullmatch(r"a/[0-9a-f]{16}", name)
    after = build(_rewrite(manifest, names=None), store, workers=0, resume=True)
    assert (after.digest, after.skipped_done) == (hidden.digest, 1)


def test_a_store_with_names_by_path_whose_ledger_is_lost_is_not_renamed_unasked(tmp_path):
    _series(tmp_path / "d/case/ct")
    row = {"name": "a", "root": "d", "layout": "dicom", "preset": "demo", "names": "path"}
    manifest = tmp_path / "m.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [row]}))
    first = build(manifest, tmp_path / "ct.zarr", workers=0)
    (tmp_path / "ct.zarr.ledger.sqlite").unlink()
    _rewrite(manifest, names=None)
    with pytest.raises(ManifestError, match="named by their paths, the first a/case-ct;"):
        build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    _rewrite(manifest, names="path")
    again = build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert again.digest == first.digest


def test_a_leak_check_calls_the_other_side_by_its_paths(hospital, tmp_path):
    _, _, report = hospital
    _series(tmp_path / "tests/case7/ct")
    row = {"name": "t", "root": "tests", "layout": "dicom", "preset": "demo"}
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
    for against, name in ((tmp_path / "tests", "against"), (tmp_path / "m.yaml", "t")):
        found = find_leaks(report.store, against)
        assert found.leaked == (f"{name}/case7-ct",)
        assert set(found.scans) <= set(open_store(report.store).ids())
