import json

import nibabel as nib
import numpy as np
import pytest

from tests.vocodata.bodies import body
from vocodata.building import build
from vocodata.duplicates import Link, all_but_first, clusters, find_duplicates, find_leaks, plain
from vocodata.errors import ManifestError, StoreError
from vocodata.store import open_store
from vocodata.store.catalog import CATALOG_NAME


def save(folder, name, data, spacing_mm=(4, 4, 5)):
    folder.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([*spacing_mm, 1.0])), folder / f"{name}.nii")


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """Two sources: `a` with three scans, `b` with two of them again and one that is new."""
    folder = tmp_path_factory.mktemp("doubled")
    for seed in range(3):
        save(folder / "a", f"s{seed}", body(seed).data_XYZ)
    # The same voxels mirrored and under spacings of 1 mm; slices of another, clipped.
    save(folder / "b", "forced", body(1).data_XYZ[::-1], (1, 1, 1))
    save(folder / "b", "part", np.clip(body(2).data_XYZ[:, :, 12:50], -175, 250))
    save(folder / "b", "other", body(9).data_XYZ)
    sources = [
        {"name": name, "root": name, "preset": "demo", "layout": "glob", "images": "*.nii"}
        for name in "ab"
    ]
    manifest = folder / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": sources}))
    build(manifest, folder / "ct.zarr", workers=0)
    only_a = folder / "a.yaml"
    only_a.write_text(json.dumps({"version": 1, "sources": sources[:1]}))
    build(only_a, folder / "a.zarr", workers=0)
    return folder


def test_copies_are_found_across_sources_and_others_left_alone(doubled):
    assert plain(find_duplicates(doubled / "ct.zarr")) == {
        "clusters": [
            {"kind": "exact", "scans": ["a/s1", "b/forced"]},
            {"kind": "near", "scans": ["a/s2", "b/part"]},
        ]
    }


@pytest.mark.parametrize("against", ["b", "ct.zarr", "a.yaml"])
def test_leaks_are_found_in_a_folder_a_store_and_a_manifest(doubled, against):
    report = find_leaks(doubled / "a.zarr", doubled / against)
    leaking = {"b": ("a/s1", "a/s2")}.get(against, ("a/s0", "a/s1", "a/s2"))
    assert report.scans == leaking
    kinds = {(leak.scan, leak.kind) for leak in report.leaks}
    assert ("a/s1", "exact") in kinds
    assert report.unreadable == {}


def test_a_file_that_cannot_be_read_is_said_to_be_unchecked(doubled, tmp_path):
    save(tmp_path / "there", "good", body(9).data_XYZ)
    (tmp_path / "there" / "bad.nii").write_bytes(b"no scan")
    report = find_leaks(doubled / "a.zarr", tmp_path / "there")
    assert (report.checked, report.leaks) == (1, ())
    assert list(report.unreadable) == ["against/bad"]


def test_a_folder_that_is_not_there_is_refused(doubled, tmp_path):
    with pytest.raises(ManifestError, match="expected a store, a manifest or a folder"):
        find_leaks(doubled / "a.zarr", tmp_path / "nowhere")


def test_a_catalogue_of_another_version_is_refused(built):
    import pyarrow.parquet as pq

    table = open_store(built).catalog()
    at = table.column_names.index("fingerprint")
    old = table.set_column(at, "fingerprint", [["v1:A:A"] * table.num_rows])
    pq.write_table(old, built / CATALOG_NAME)
    with pytest.raises(StoreError, match="Another version wrote the catalogue"):
        find_duplicates(built)


def test_clusters_join_what_hangs_together():
    found = [
        Link("exact", "a/1", "b/1", ""),
        Link("near", "b/1", "c/1", ""),
        Link("near", "d/1", "d/2", ""),
        Link("exact", "e/1", "e/2", ""),
    ]
    got = clusters(found)
    assert [(each.kind, each.scans) for each in got] == [
        ("exact", ("a/1", "b/1")),
        ("near", ("a/1", "b/1", "c/1")),
        ("near", ("d/1", "d/2")),
        ("exact", ("e/1", "e/2")),
    ]
    assert all_but_first(got) == ["b/1", "c/1", "d/2", "e/2"]
