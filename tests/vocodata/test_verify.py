"""Every kind of damage is found and named, and an undamaged store is not accused."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vocodata.errors import StoreError
from vocodata.store import open_store, verify
from vocodata.store.metadata import FIELD_SHARD, IMAGE_SHARD, LABEL_SHARD


def _found(store, deep=True):
    return [(problem.scan, problem.kind) for problem in verify(store, deep=deep).problems]


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_store_is_ok(built, deep):
    seen = []
    report = verify(built, deep=deep, on_scan=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.problems == []
    assert report.scans_checked == 6
    assert (report.bytes_read > 0) is deep
    assert seen == [(n, 6) for n in range(1, 7)]
    assert verify(open_store(built), deep=deep).ok


@pytest.mark.parametrize(
    ("scan", "place"),
    [("btcv/case3", IMAGE_SHARD), ("btcv/case3", LABEL_SHARD), ("abdo/case0", FIELD_SHARD)],
    ids=["image", "labels", "field"],
)
def test_a_flipped_bit_anywhere_in_a_shard_is_named(built, scan, place):
    shard = built / "scans" / scan / place
    good = shard.read_bytes()
    for at in (0, len(good) // 2, len(good) - 30, len(good) - 1):
        shard.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        ((named, kind),) = _found(built)
        assert named == scan
        assert kind in {"corrupt_chunk", "corrupt_index", "digest_mismatch"}, at
    shard.write_bytes(good)
    assert verify(built).ok


def test_a_flipped_bit_in_a_chunk_says_which_chunk(built):
    shard = built / "scans/btcv/case3" / IMAGE_SHARD
    data = bytearray(shard.read_bytes())
    data[100] ^= 4
    shard.write_bytes(data)
    (problem,) = verify(built).problems
    assert problem.kind == "corrupt_chunk"
    assert "chunk (z 0, y 0, x 0)" in problem.detail
    assert verify(built, deep=False).ok


@pytest.mark.parametrize("deep", [True, False])
def test_a_truncated_and_a_missing_shard_are_named(built, deep):
    truncated = built / "scans/btcv/case0" / IMAGE_SHARD
    truncated.write_bytes(truncated.read_bytes()[:-1])
    (built / "scans/btcv/case1" / LABEL_SHARD).unlink()
    longer = built / "scans/btcv/case2" / IMAGE_SHARD
    longer.write_bytes(longer.read_bytes() + b"\0")
    assert _found(built, deep) == [
        ("btcv/case0", "truncated_shard"),
        ("btcv/case1", "missing_shard"),
        ("btcv/case2", "size_mismatch"),
    ]


def _rewrite(built, change):
    table = pq.read_table(built / "catalog.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), built / "catalog.parquet")


def test_a_shard_swapped_for_another_is_named(built):
    other = (built / "scans/btcv/case2" / IMAGE_SHARD).read_bytes()
    (built / "scans/btcv/case0" / IMAGE_SHARD).write_bytes(other)

    def same_size(rows):
        (row,) = (row for row in rows if row["id"] == "btcv/case0")
        row["image_bytes"] = len(other)

    _rewrite(built, same_size)
    assert ("btcv/case0", "digest_mismatch") in _found(built)


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("shape_xyz", [19, 14, 19], "metadata_mismatch"),
        ("spacing_mm", [4.0, 4.0, 4.5], "metadata_mismatch"),
        ("digest", "0" * 64, "digest_mismatch"),
        ("licence", "MIT", "metadata_mismatch"),
        ("label_dtype", "uint16", "metadata_mismatch"),
        ("hu_mean", 12.0, None),
    ],
)
def test_a_wrong_row_of_the_catalogue_is_named(built, column, value, kind):
    def change(rows):
        (row,) = (row for row in rows if row["id"] == "btcv/case4")
        assert row[column] != value
        row[column] = value

    _rewrite(built, change)
    found = _found(built)
    assert ("", "catalog_digest") in found
    if kind is not None:
        assert ("btcv/case4", kind) in found
    assert {scan for scan, _ in found} <= {"", "btcv/case4"}


def test_a_scan_beyond_the_catalogue_is_named(built):
    shutil.copytree(built / "scans/btcv/case0", built / "scans/btcv/ghost")
    assert _found(built, deep=False) == [("btcv/ghost", "extra_scan")]


def test_a_scan_twice_and_a_scan_short_are_named(built):
    _rewrite(built, lambda rows: rows.append(rows[-1]))
    assert ("", "duplicate_id") in _found(built)
    _rewrite(built, lambda rows: rows.__delitem__(slice(4, None)))
    found = _found(built)
    assert {("", "accounting"), ("", "incomplete")} < set(found)
    assert ("btcv/case4", "extra_scan") in found


def test_strange_and_missing_files_are_named(built):
    scan = built / "scans/btcv/case0"
    (scan / "0" / "c.0.0.1").write_bytes(b"")
    (scan / "0" / "c.0.0.0.tmp-123-0123abcd").write_bytes(b"half")
    (built / "scans/btcv/case1/0/zarr.json").unlink()
    document = built / "scans/btcv/case2/zarr.json"
    document.write_text(json.dumps(json.loads(document.read_text())))
    assert sorted(_found(built, deep=False)) == [
        ("", "stray_file"),
        ("btcv/case0", "stray_file"),
        ("btcv/case1", "missing_metadata"),
        ("btcv/case2", "metadata_mismatch"),
    ]


def test_what_is_no_store_cannot_be_verified(tmp_path):
    with pytest.raises(StoreError, match="is no store"):
        verify(tmp_path)


@pytest.mark.parametrize("damage", ["bit", "gone", "cut"])
def test_no_file_of_a_store_can_be_damaged_unnoticed(built, damage):
    files = sorted(path for path in built.rglob("*") if path.is_file())
    for path in files:
        data = path.read_bytes()
        path.unlink()
        if damage != "gone":
            middle = len(data) // 2
            cut = b"" if damage == "cut" else data[middle + 1 :]
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + cut)
        assert not verify(built).ok, path
        path.write_bytes(data)
    assert verify(built).ok


def test_every_bit_of_what_a_store_says_of_itself_counts(built):
    path = built / "zarr.json"
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 97):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert not verify(built, deep=False).ok, (bit, bytes(flipped))
