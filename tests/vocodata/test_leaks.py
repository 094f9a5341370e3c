import json
import zipfile

import numpy as np
import pytest

from tests.vocodata.bodies import body, save_body
from vocodata.building import build
from vocodata.discover import Scan
from vocodata.errors import ManifestError
from vocodata.leaks import find_leaks
from vocodata.store import open_store


@pytest.mark.parametrize("against", ["b", "ct.zarr", "a.yaml"])
def test_leaks_are_found_in_a_folder_a_store_and_a_manifest(doubled, against):
    report = find_leaks(doubled / "a.zarr", doubled / against)
    leaking = {"b": ("a/s1", "a/s2")}.get(against, ("a/s0", "a/s1", "a/s2"))
    assert report.scans == leaking
    kinds = {(leak.scan, leak.kind) for leak in report.leaks}
    assert ("a/s1", "exact") in kinds
    assert report.unreadable == {}


def test_every_copy_of_a_leaked_scan_is_told(tmp_path):
    for place, name, seed in (("a", "x", 1), ("a", "y", 1), ("a", "z", 2), ("b", "u", 1)):
        save_body(tmp_path / place, name, body(seed).data_XYZ)
    save_body(tmp_path / "b", "v", body(1).data_XYZ)
    source = {"name": "a", "root": "a", "preset": "demo"}
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [source]}))
    build(tmp_path / "m.yaml", tmp_path / "ct.zarr", workers=0)
    report = find_leaks(tmp_path / "ct.zarr", tmp_path / "b")
    assert report.scans == ("a/x", "a/y")
    assert report.leaked == ("against/u", "against/v")
    assert len(report.leaks) == 4


def test_a_file_that_cannot_be_read_is_said_to_be_unchecked(doubled, tmp_path):
    save_body(tmp_path / "there", "good", body(9).data_XYZ)
    (tmp_path / "there" / "bad.nii").write_bytes(b"no scan")
    report = find_leaks(doubled / "a.zarr", tmp_path / "there")
    assert (report.checked, report.leaks) == (1, ())
    assert list(report.unreadable) == ["against/bad"]


def test_a_folder_that_is_not_there_is_refused(doubled, tmp_path):
    with pytest.raises(ManifestError, match="expected a store, a manifest or a folder"):
        find_leaks(doubled / "a.zarr", tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"gs://b cannot be compared with"):
        find_leaks(doubled / "a.zarr", "gs://b")


def test_a_folder_with_labels_is_refused_with_a_way_out(doubled, tmp_path):
    folder = tmp_path / "my tests"
    folder.mkdir()
    for name in ("a.nii.gz", "a_seg.nii.gz"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"a_seg.*looks like labels.*data init '.*tests'`"):
        find_leaks(doubled / "a.zarr", folder)


def test_leaks_are_found_in_a_list_of_scans_and_counted(doubled):
    paths = [doubled / "b" / f"{name}.nii" for name in ("forced", "other", "missing")]
    scans = [Scan(f"t/{p.stem}", "t", p.stem, p, None, None, "abdomen") for p in paths]
    report = find_leaks(open_store(doubled / "a.zarr"), scans)
    assert (report.scans, report.leaked) == (("a/s1",), ("t/forced",))
    digest = open_store(doubled / "a.zarr").digest
    counts = {"checked": 2, "unreadable": 1, "leaked": 1, "leaking": 1}
    assert report.facts == {**counts, "store_digest": digest}


def test_of_scans_that_hold_no_hu_nothing_is_known_but_exact_copies(tmp_path):
    grey = np.clip((body(1).data_XYZ + 160) * 0.6, 0, 255).astype(np.uint8)
    share = (np.clip(body(1).data_XYZ, -160, 240).astype(np.float32) + 160) / 400
    save_body(tmp_path / "a", "hu", body(1).data_XYZ)
    save_body(tmp_path / "a", "window", grey)
    for name, data in (("same", grey), ("other", grey[::-1] // 2), ("share", share)):
        save_body(tmp_path / "b", name, data)
    source = {"name": "a", "root": "a", "preset": "demo", "quality": {"screenshot": "flag"}}
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [source]}))
    build(tmp_path / "m.yaml", tmp_path / "ct.zarr", workers=0)
    report = find_leaks(tmp_path / "ct.zarr", tmp_path / "b")
    assert (report.scans, report.leaked, report.checked) == (("a/window",), ("against/same",), 1)
    assert report.unreadable == {"against/other": "screenshot", "against/share": "implausible_hu"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError, "out_of_memory"), (OSError, "io_error"), (KeyError, "unexpected_error")],
)
def test_a_scan_that_a_library_stumbles_over_does_not_end_the_check(
    error, reason, doubled, monkeypatch
):
    def stumble(*_, **__):
        raise error

    monkeypatch.setattr("vocodata.leaks.read_volume", stumble)
    report = find_leaks(doubled / "a.zarr", doubled / "b")
    assert (report.checked, set(report.unreadable.values())) == (0, {reason})


def test_voxels_of_a_metre_are_not_even_read(doubled, tmp_path, monkeypatch):
    monkeypatch.setattr("vocodata.leaks.read_volume", lambda *_, **__: pytest.fail("read"))
    save_body(tmp_path, "huge", body(1).data_XYZ, (1000, 1000, 1000))
    report = find_leaks(doubled / "a.zarr", tmp_path)
    assert report.unreadable == {"against/huge": "implausible_spacing"}


def test_leaks_are_found_in_an_archive_and_in_one_file(doubled, tmp_path):
    with zipfile.ZipFile(tmp_path / "test set.zip", "w") as archive:
        for name in ("forced", "other"):
            archive.write(doubled / "b" / f"{name}.nii", f"inner/{name}.nii")
    for against in (tmp_path / "test set.zip", doubled / "b" / "forced.nii"):
        report = find_leaks(doubled / "a.zarr", against)
        assert (report.scans, report.unreadable) == (("a/s1",), {})


@pytest.mark.parametrize("layout", ["nnunet", "msd"])
@pytest.mark.parametrize("way", ["folder", "manifest", "archive"])
def test_scans_that_a_data_set_keeps_apart_for_testing_are_looked_at(
    layout, way, doubled, tmp_path
):
    end = "_0000" if layout == "nnunet" else ""
    root = tmp_path / "set"
    save_body(root / "imagesTr", f"s{end}", body(9).data_XYZ)
    save_body(root / "imagesTs", f"s{end}", body(1).data_XYZ)
    (root / "imagesTs" / "notes.txt").write_text("no scan")
    if layout == "msd":
        training = [{"image": "./imagesTr/s.nii"}]
        (root / "dataset.json").write_text(json.dumps({"training": training, "test": []}))
    manifest, archive = tmp_path / "m.yaml", tmp_path / "set.zip"
    source = {"name": "t", "root": "set", "preset": "demo", "layout": layout}
    manifest.write_text(json.dumps({"version": 1, "sources": [source]}))
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(root.rglob("*.*")):
            packed.write(path, path.relative_to(root))
    against = {"folder": root, "manifest": manifest, "archive": archive}[way]
    report = find_leaks(doubled / "a.zarr", against)
    assert (report.scans, report.checked, report.unreadable) == (("a/s1",), 2, {})
    assert report.leaked == (f"{'t' if way == 'manifest' else 'against'}-imagesTs/s{end}",)
