"""Names that hide identifiers: the salt is kept outside the store, and wanted again on resume."""

import json
import re
import stat

import numpy as np
import pytest

from tests.vocodata.conftest import write_sources
from tests.vocodata.dicom_series import dataset
from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import REASONS, SaltError
from vocodata.identifiers import Salt, hide_uids, keyed_hash, salt_beside, take_salt, without_uids
from vocodata.manifest import load_manifest

UID = "1.2.840.113619.2.55.3.2831"


@pytest.fixture(autouse=True)
def no_salt_in_the_environment(monkeypatch):
    monkeypatch.delenv("VOCO_SALT", raising=False)


def _series(folder, per_file=lambda n: f"{n}.dcm", series=2):
    folder.mkdir(parents=True)
    x, y, z = np.indices((24, 22, 16))
    body = ((x - 12) ** 2 + (y - 11) ** 2 < 64) & (z > 1) & (z < 15)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    for n in range(16 * series):
        made = dataset(
            hu[:, :, n // series].T, (-10, 20, 4.0 * (n // series)), f"{UID}.{n % series}"
        )
        made.PixelSpacing = [4, 4]
        made.save_as(folder / per_file(n), enforce_file_format=True)


def _manifest(folder, **keys):
    row = {"name": "a", "root": "d", "layout": "dicom", "preset": "demo"} | keys
    (folder / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
    return folder / "m.yaml"


def _ids(manifest, salt=b"0" * 16):
    return [scan.id for scan in find_scans(load_manifest(manifest), salt=salt)]


def test_the_same_salt_gives_the_same_names_and_another_gives_others(tmp_path):
    _series(tmp_path / "d/case")
    manifest = _manifest(tmp_path, names="path")
    one, other = _ids(manifest), _ids(manifest, b"1" * 16)
    assert one == _ids(manifest)
    assert len({*one, *other}) == 4
    assert all(re.fullmatch(r"a/case-[0-9a-f]{8}", name) for name in one)


def test_a_folder_named_by_a_uid_is_not_told(tmp_path):
    _series(tmp_path / f"d/p1/{UID}", series=1)
    (name,) = _ids(_manifest(tmp_path, names="path"))
    assert re.fullmatch(r"a/p1-uid-[0-9a-f]{8}", name)


def test_hashed_names_keep_no_word_of_a_path(tmp_path):
    folder = tmp_path / "sources/btcv/images"
    manifest = write_sources(tmp_path, 2, broken=[1])
    for number in range(2):
        (folder / f"case{number}.nii.gz").rename(folder / f"Zebulon^Patient{number}.nii.gz")
    document = json.loads(manifest.read_text())
    document["sources"][0]["names"] = "hashed"
    manifest.write_text(json.dumps(document))
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.stored, report.excluded) == (1, {"wrong_magic": 1})
    (row,) = report.excluded_rows
    assert re.fullmatch(r"[0-9a-f]{16}", row.scan)
    assert row.detail == REASONS["wrong_magic"]
    for path in report.store.rglob("*"):
        assert "Zebulon" not in str(path.relative_to(tmp_path))
        assert not path.is_file() or b"Zebulon" not in path.read_bytes()


def test_a_file_named_by_a_uid_is_not_told_by_a_reason(tmp_path):
    _series(tmp_path / "d/case", lambda n: f"{UID}.{n}.dcm", series=1)
    damaged = tmp_path / f"d/case/{UID}.7.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    manifest = _manifest(tmp_path, names="path")
    (row,) = build(manifest, tmp_path / "ct.zarr", workers=0).excluded_rows
    assert row.reason == "corrupt_dicom"
    assert "(uid).dcm" in row.detail
    assert UID not in row.detail


def test_a_first_build_makes_a_salt_that_only_its_owner_reads(tmp_path):
    report = build(write_sources(tmp_path, 1), tmp_path / "ct.zarr", workers=0)
    salt = tmp_path / "ct.zarr.salt"
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    secret = salt.read_bytes().strip()
    assert len(secret) == 64
    assert secret == salt_beside(tmp_path / "ct.zarr.ledger.sqlite")
    for path in [*report.store.rglob("*"), tmp_path / "ct.zarr.ledger.sqlite"]:
        assert not path.is_file() or secret not in path.read_bytes()


def test_overwrite_keeps_the_salt_and_so_the_names(tmp_path):
    _series(tmp_path / "d/case")
    manifest = _manifest(tmp_path)
    first = build(manifest, tmp_path / "ct.zarr", workers=0)
    second = build(manifest, tmp_path / "ct.zarr", workers=0, overwrite=True)
    assert first.digest == second.digest


def test_a_lost_salt_is_told_on_resume_and_not_made_anew(tmp_path):
    manifest = write_sources(tmp_path, 1)
    build(manifest, tmp_path / "ct.zarr", workers=0)
    salt = tmp_path / "ct.zarr.salt"
    secret = salt.read_text()
    salt.unlink()
    with pytest.raises(SaltError, match=r"ct.zarr.salt cannot be read .*--salt-file") as caught:
        build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert caught.value.exit_code == 2
    assert not salt.exists()
    (tmp_path / "kept").write_text(secret)
    build(manifest, tmp_path / "ct.zarr", workers=0, resume=True, salt_file=tmp_path / "kept")


def test_another_salt_is_refused_on_resume(tmp_path, monkeypatch):
    manifest = write_sources(tmp_path, 1)
    monkeypatch.setenv("VOCO_SALT", "one salt, long enough")
    build(manifest, tmp_path / "ct.zarr", workers=0)
    assert not (tmp_path / "ct.zarr.salt").exists()
    monkeypatch.setenv("VOCO_SALT", "another, long enough")
    with pytest.raises(SaltError, match="VOCO_SALT is not the one"):
        build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)


def test_a_salt_that_can_be_guessed_or_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("VOCO_SALT", "short")
    with pytest.raises(SaltError, match="has 5 bytes; expected at least 16"):
        take_salt(tmp_path / "l.sqlite")
    assert salt_beside(tmp_path / "l.sqlite") == b"short"
    monkeypatch.delenv("VOCO_SALT")
    with pytest.raises(SaltError, match="none cannot be read"):
        take_salt(tmp_path / "l.sqlite", file=tmp_path / "none")
    with pytest.raises(SaltError, match=r"cannot be written .*Give another --ledger"):
        Salt(b"x", tmp_path / "no/folder").keep()
    assert salt_beside(tmp_path / "l.sqlite") == b""


def test_a_refused_build_leaves_no_salt(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").touch()
    with pytest.raises(FileExistsError):
        build(write_sources(tmp_path, 1), tmp_path / "out", workers=0)
    assert not (tmp_path / "out.salt").exists()


def test_what_is_shaped_like_a_uid_is_found_in_any_text():
    assert without_uids(f"a {UID}, {UID}.dcm.") == "a (uid), (uid).dcm."
    assert (
        without_uids("1.5 mm, version 1.2.3, 10.20.30.40") == "1.5 mm, version 1.2.3, 10.20.30.40"
    )
    assert hide_uids(f"x/{UID}", b"k") == f"x/uid-{keyed_hash(b'k', UID, digits=8)}"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (f"CT.{UID}.dcm", "CT.(uid).dcm"),
        (f"7.{UID}", "7.(uid)"),
        ("2.25.329800735698586629295641978511506172918", "(uid)"),
        ("p_2_25_329800735698586629295641978511506172918.nii", "p_(uid).nii"),
        (UID.replace(".", "_"), "(uid)"),
        ("s-" + UID.replace(".", "-"), "s-(uid)"),
    ],
)
def test_uids_are_found_behind_a_modality_of_uuids_and_with_other_signs_for_dots(name, shown):
    assert without_uids(name) == shown
    assert UID not in hide_uids(name, b"k")


@pytest.mark.parametrize(
    "name", ["case_0_1_2_3", "2025-11-28-10-30-00", "liver_12_1_0000", "2.25.1", "v2_25_3"]
)
def test_what_only_looks_a_little_like_a_uid_stays(name):
    assert without_uids(name) == name


def test_a_salt_is_written_whole_or_not_at_all_and_never_over_another(tmp_path, monkeypatch):
    path = tmp_path / "ct.salt"
    with monkeypatch.context() as patch:
        patch.setattr("vocodata.identifiers.os.fsync", _full)
        with pytest.raises(SaltError, match="No space"):
            Salt(b"a" * 32, path).keep()
    assert list(tmp_path.iterdir()) == []
    Salt(b"a" * 32, path).keep()
    with pytest.raises(SaltError, match="another build has made one"):
        Salt(b"b" * 32, path).keep()
    assert path.read_bytes() == b"a" * 32 + b"\n"
    assert list(tmp_path.iterdir()) == [path]


def _full(_):
    raise OSError(28, "No space left on device")
