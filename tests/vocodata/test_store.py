"""A built store, as training and as strangers' tools see it."""

import json
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from vocodata.building import build
from vocodata.discover import Scan
from vocodata.errors import DiskFullError, StoreError, StoreUnwritableError
from vocodata.geometry import Volume
from vocodata.ingest import process_scan
from vocodata.presets import preset
from vocodata.store import open_store
from vocodata.store.atomic import write_atomic
from vocodata.store.metadata import IMAGE_SHARD, SCHEMA_VERSION
from vocodata.store.store import Store
from vocodata.store.writer import scan_folder, write_scan


def test_a_store_reads_like_its_zarr_arrays(built):
    store = open_store(built)
    assert store.ids() == ["abdo/case0", *(f"btcv/case{n}" for n in range(5))]
    for scan in store.ids():
        array = zarr.open_array(built / "scans" / scan / "0", mode="r")
        info = store.info(scan)
        assert info.shape_XYZ == array.shape[::-1]
        whole = store.read(scan, (0, 0, 0), info.shape_XYZ)
        np.testing.assert_array_equal(whole, array[:].transpose(2, 1, 0))
        assert whole.dtype == np.int16


def test_voxels_stay_where_they_are_in_the_patient(make_sources, tmp_path):
    manifest = make_sources(1)
    build(manifest, tmp_path / "ct.zarr", workers=0)
    store = open_store(f"file://{tmp_path / 'ct.zarr'}")
    info = store.info("btcv/case0")
    data = store.read("btcv/case0", (0, 0, 0), info.shape_XYZ)
    bright = np.argwhere(data > 500).mean(axis=0)
    # The bright corner of the phantom: voxels 6..11, 5..9, 4..7 at 2, 2.5, 3 mm from its origin.
    middle_mm = np.array([-30 + 2 * 8.5, 12.5 + 2.5 * 7, 7 + 3 * 5.5])
    np.testing.assert_allclose(info.affine[:3, :3] @ bright + info.affine[:3, 3], middle_mm, atol=3)


def test_labels_and_fields_are_found_and_read(built):
    store = open_store(built)
    assert store.has_labels("btcv/case1")
    assert not store.has_labels("abdo/case0")
    info = store.info("btcv/case1")
    assert info.label_names == {2: "marker"}
    labels = store.read_label("btcv/case1", (-2, 0, 0), (info.shape_XYZ.x + 2, *info.shape_XYZ[1:]))
    assert labels.dtype == np.uint8
    assert (labels[:2] == 0).all()
    array = zarr.open_array(built / "scans/btcv/case1/labels/structures/0", mode="r")
    np.testing.assert_array_equal(labels[2:], array[:].transpose(2, 1, 0))
    hu = store.read("btcv/case1", (0, 0, 0), info.shape_XYZ)
    assert set(np.unique(labels)) == {0, 2}
    assert hu[labels[2:] == 2].mean() > hu[labels[2:] == 0].mean() + 300
    assert store.has_field("abdo/case0")
    assert not store.has_field("btcv/case1")
    field = store.read_field("abdo/case0")
    assert field.shape == tuple(preset("abdomen-squeezed").squeeze_vox)
    array = zarr.open_array(built / "scans/abdo/case0/field", mode="r")
    np.testing.assert_array_equal(field, array[:].transpose(2, 1, 0))


def test_wide_labels_keep_their_values(make_sources, tmp_path):
    build(make_sources(1, labels="uint16"), tmp_path / "ct.zarr", workers=0)
    store = open_store(tmp_path / "ct.zarr")
    info = store.info("btcv/case0")
    labels = store.read_label("btcv/case0", (0, 0, 0), info.shape_XYZ)
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {0, 300}
    assert info.label_names == {300: "marker"}


def test_the_store_is_an_ome_zarr_of_few_files(built, tree):
    root = zarr.open_group(built, mode="r")
    assert sorted(root["scans"].group_keys()) == ["abdo", "btcv"]
    assert sorted(root["scans/btcv"].group_keys()) == [f"case{n}" for n in range(5)]
    ome = root["scans/btcv/case2"].attrs["ome"]
    assert ome["version"] == "0.5"
    (scale,) = ome["multiscales"]
    assert [axis["name"] for axis in scale["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in scale["axes"]} == {"millimeter"}
    row = pq.read_table(built / "catalog.parquet").to_pylist()[3]
    assert row["id"] == "btcv/case2"
    (dataset,) = scale["datasets"]
    scaling, translation = dataset["coordinateTransformations"]
    assert scaling["scale"] == row["spacing_mm"][::-1]
    assert translation["translation"] == [row["affine"][11], row["affine"][7], row["affine"][3]]
    array = root["scans/btcv/case2"][dataset["path"]]
    assert array.metadata.dimension_names == ("z", "y", "x")
    assert root["scans/btcv/case2/labels"].attrs["ome"]["labels"] == ["structures"]
    label = root["scans/btcv/case2/labels/structures"].attrs["ome"]["image-label"]
    assert label["properties"] == [{"label-value": 2, "name": "marker"}]
    files = tree(built / "scans/abdo/case0")
    assert sorted(files) == [
        "0/c.0.0.0",
        "0/zarr.json",
        "field/c.0.0.0",
        "field/zarr.json",
        "zarr.json",
    ]


def test_the_store_tells_no_path(make_sources, tree, tmp_path):
    built = tmp_path / "ct.zarr"
    report = build(make_sources(3, broken=[1]), built, workers=0)
    assert report.excluded_rows[0].detail
    for name, data in tree(built).items():
        assert str(tmp_path).encode() not in data, name
    for table in ("catalog.parquet", "excluded.parquet"):
        text = json.dumps(pq.read_table(built / table).to_pylist())
        assert str(tmp_path) not in text


def test_a_store_travels_as_its_path(built):
    store = open_store(built)
    before = store.read("btcv/case0", (0, 0, 0), (9, 8, 7))
    data = pickle.dumps(store)
    assert len(data) < 500
    after = pickle.loads(data)
    np.testing.assert_array_equal(after.read("btcv/case0", (0, 0, 0), (9, 8, 7)), before)
    assert after.digest == store.digest


def _sum_in_child(store, answers):
    answers.put(int(store.read("btcv/case1", (0, 0, 0), (16, 16, 16)).sum()))


@pytest.mark.parametrize(
    "method",
    [
        # What a data loader does on Linux; this test is about surviving exactly that.
        pytest.param(
            "fork", marks=pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
        ),
        "spawn",
    ],
)
def test_a_worker_process_goes_on_reading(built, method):
    store = open_store(built)
    expected = int(store.read("btcv/case1", (0, 0, 0), (16, 16, 16)).sum())
    context = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=_sum_in_child, args=(store, answers))
    child.start()
    child.join(60)
    hung = child.is_alive()
    if hung:
        child.kill()
        child.join()
    assert not hung, "the child hung"
    assert child.exitcode == 0
    assert answers.get() == expected
    assert int(store.read("btcv/case1", (0, 0, 0), (16, 16, 16)).sum()) == expected


def test_threads_read_at_once(built):
    store = open_store(built)
    boxes = [(f"btcv/case{n % 5}", (n % 7, n % 5, n % 3), (12, 9, 8)) for n in range(200)]
    expected = [store.read(*box) for box in boxes]
    gate = threading.Barrier(4)

    def read(part):
        gate.wait(30)
        return [store.read(*box) for box in boxes[part::4]]

    with ThreadPoolExecutor(4) as pool:
        for part, results in enumerate(pool.map(read, range(4))):
            for result, wanted in zip(results, expected[part::4], strict=True):
                np.testing.assert_array_equal(result, wanted)


DESCRIPTORS = Path("/proc/self/fd")


def _open_shards():
    links = list(DESCRIPTORS.iterdir())
    return sum(link.is_symlink() and "c.0.0.0" in str(link.readlink()) for link in links)


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts descriptors through /proc")
def test_few_files_are_open_at_a_time_and_none_afterwards(built):
    before = _open_shards()
    store = Store(built, open_shards=2)
    for _ in range(2):
        for scan in store.ids():
            store.read(scan, (0, 0, 0), (4, 4, 4))
    assert _open_shards() == before + 2
    del store
    assert _open_shards() == before


def test_opening_reads_no_shard(built):
    for shard in built.rglob("c.0.0.0"):
        shard.unlink()
    store = open_store(built)
    assert store.info("btcv/case0").voxels > 0
    assert store.summary()["scans"] == 6
    with pytest.raises(StoreError, match=r"Scan 'btcv/case0' .* shard .* is missing"):
        store.read("btcv/case0", (0, 0, 0), (4, 4, 4))


def test_a_damaged_shard_names_its_scan(built):
    shard = built / "scans/btcv/case2" / IMAGE_SHARD
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(StoreError, match=r"Scan 'btcv/case2'.*truncated or damaged"):
        open_store(built).read("btcv/case2", (0, 0, 0), (4, 4, 4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda store: store.info("btcv/csae1"), "Did you mean 'btcv/case1'"),
        (lambda store: store.read("no", (0, 0, 0), (1, 1, 1)), "'no' is not among the 6 scans"),
        (lambda store: store.read("btcv/case1", (0, 0, 0), (0, 4, 4)), "at least 1 each"),
        (lambda store: store.read_label("abdo/case0", (0, 0, 0), (4, 4, 4)), "has no labels"),
        (lambda store: store.read_field("btcv/case1"), "has no field.*'abdomen' does not squeeze"),
    ],
    ids=["near", "unknown", "empty_box", "no_labels", "no_field"],
)
def test_what_is_not_there_is_said(built, call, words):
    with pytest.raises(StoreError, match=words):
        call(open_store(built))


def test_a_folder_that_is_no_store_is_refused(tmp_path, built):
    with pytest.raises(StoreError, match=r"is no store: it has no zarr\.json"):
        open_store(tmp_path)
    with pytest.raises(StoreError, match=r"is no store: it is not there, seen from /"):
        open_store("nowhere.zarr")
    with pytest.raises(StoreError, match=r"is no store: it is a file"):
        open_store(built / "zarr.json")
    with pytest.raises(StoreError, match="a web server is read only"):
        open_store("https://host/ct.zarr")
    root = built / "zarr.json"
    good = root.read_text()
    root.write_text(good.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 9'))
    with pytest.raises(StoreError, match="has schema 9; this version reads "):
        open_store(built)
    root.write_text(good.replace("voco-store", "other"))
    with pytest.raises(StoreError, match="not a store of this toolkit"):
        open_store(built)
    root.write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(built)
    root.write_text(good)
    (built / "catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"catalog\.parquet cannot be read"):
        open_store(built).ids()
    pq.write_table(open_store(built).excluded(), built / "catalog.parquet")
    with pytest.raises(StoreError, match="lacks the columns id"):
        open_store(built).ids()
    (built / "catalog.parquet").unlink()
    with pytest.raises(StoreError, match="build has not finished"):
        open_store(built).ids()


def test_writing_twice_gives_the_same_and_drops_what_was(make_sources, tmp_path, tree):
    make_sources(1, labels=True)
    image = tmp_path / "sources/btcv/images/case0.nii.gz"
    labels = tmp_path / "sources/btcv/labels/case0.nii.gz"
    scan = Scan("btcv/case0", "btcv", "case0", image, labels, {2: "marker"}, "abdomen")
    processed = process_scan(scan, preset("abdomen"))
    row = write_scan(tmp_path / "a", scan, processed, "zstd")
    first = tree(tmp_path / "a")
    assert write_scan(tmp_path / "a", scan, processed, "zstd") == row
    assert tree(tmp_path / "a") == first
    bare = Scan("btcv/case0", "btcv", "case0", image, None, None, "abdomen")
    write_scan(tmp_path / "a", bare, process_scan(bare, preset("abdomen")), "zstd")
    assert not (tmp_path / "a/scans/btcv/case0/labels").exists()
    wrong = Volume(processed.hu.data_XYZ.astype(np.int32), processed.hu.affine)
    spoiled = type(processed)(**{**processed.__dict__, "hu": wrong})
    with pytest.raises(StoreError, match="would hold int32; expected int16"):
        write_scan(tmp_path / "b", scan, spoiled, "zstd")


@pytest.mark.parametrize("scan", ["one", "a/../b", "a/b/c", "a/", "../b"])
def test_an_id_that_would_leave_the_store_is_refused(tmp_path, scan):
    with pytest.raises(StoreError, match="cannot be a folder"):
        scan_folder(tmp_path, scan)


def test_a_full_disk_leaves_nothing_half(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            DiskFullError, match=r"No room to write .*file: No space left"
        ) as caught:
            write_atomic(tmp_path / "file", b"new")
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_a_fault_of_the_machine(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnwritableError, match="below cannot be written") as caught:
        write_atomic(tmp_path / "file" / "below", b"new")
    assert caught.value.exit_code == 4
