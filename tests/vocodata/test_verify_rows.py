"""A wrong row of the catalogue is found and named, whichever column of it is wrong."""

import hashlib
import json
import math
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vocodata.building import build
from vocodata.hu_statistics import statistics_of, value_counts
from vocodata.store import CatalogRow, open_store, verify
from vocodata.store.catalog import ROW_DIGEST, catalog_rows, read_catalog
from vocodata.store.metadata import document_bytes
from vocodata.store.root import publish, root_bytes

COLUMNS = [field.name for field in fields(CatalogRow)]
OF_TEXT = {"label_names": '{"2": "other"}', "quality": '{"slices": 1}'}


def _scan(column):
    return "abdo/case0" if column.startswith("field_") else "btcv/case1"


def _other(value):
    """Another value of the same kind."""
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [_other(value[0]), *value[1:]] if value else ["other"]
    return value + 1


def _change(root, scan, column, value):
    table = pq.read_table(root / "catalog.parquet")
    rows = table.to_pylist()
    (row,) = (row for row in rows if row["id"] == scan)
    assert row[column] != value
    row[column] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), root / "catalog.parquet")


def _wrong_value(root, column):
    (row,) = (row for row in read_catalog(root).to_pylist() if row["id"] == _scan(column))
    return OF_TEXT[column] if column in OF_TEXT else _other(row[column])


def _republish(root, change):
    rows = [change(row) for row in catalog_rows(read_catalog(root))]
    publish(root, rows, [], found=len(rows), recipe_digest="")


def _named(root, *, deep=True):
    return {problem.scan for problem in verify(root, deep=deep).problems}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_changed_afterwards_names_its_scan(built, column):
    scan, value = _scan(column), _wrong_value(built, column)
    _change(built, scan, column, value)
    named = _named(built, deep=False)
    assert scan in named
    assert named <= {"", scan, *([value] if column == "id" else [])}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_wrong_when_it_was_published_names_its_scan(built, column):
    scan = _scan(column)
    value = _wrong_value(built, column)
    if column == "label_names":
        value = {2: "other"}
    value = tuple(value) if isinstance(value, list) else value
    _republish(built, lambda row: replace(row, **{column: value}) if row.id == scan else row)
    assert scan in _named(built)


def _as_an_older_build(root):
    """The store without what older builds did not write: second copies, and digests of rows."""
    for scan in open_store(root).ids():
        path = root / "scans" / scan / "zarr.json"
        document = json.loads(path.read_text())
        del document["attributes"]["voco"]["catalog"]
        path.write_bytes(document_bytes(document))
    _drop_row_digests(root)


def _drop_row_digests(root):
    catalog = root / "catalog.parquet"
    pq.write_table(pq.read_table(catalog).drop_columns([ROW_DIGEST]), catalog)
    _sign(root)


def _sign(root):
    """Let the root say of the catalogue's file what it is now."""
    attributes = json.loads((root / "zarr.json").read_text())["attributes"]["voco"]
    del attributes["check"]
    data = (root / "catalog.parquet").read_bytes()
    attributes["files"]["catalog.parquet"] = hashlib.sha256(data).hexdigest()
    (root / "zarr.json").write_bytes(root_bytes(attributes))


@pytest.mark.parametrize("deep", [True, False])
def test_a_store_of_an_older_build_is_not_accused(built, deep):
    _as_an_older_build(built)
    assert verify(built, deep=deep).problems == []


@pytest.mark.parametrize("column", ["hu_min", "hu_mean", "hu_p50", "body_fraction", "voxels"])
def test_of_an_older_build_too_the_voxels_are_compared(built, column):
    _as_an_older_build(built)
    scan, value = _scan(column), _wrong_value(built, column)
    _republish(built, lambda row: replace(row, **{column: value}) if row.id == scan else row)
    _drop_row_digests(built)
    (problem,) = verify(built).problems
    assert (problem.scan, problem.kind) == (scan, "wrong_row")
    assert column in problem.detail


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label_names", "[1"),
        ("label_names", '{"a": "b"}'),
        ("label_names", "3"),
        ("weight", math.nan),
        ("hu_mean", math.inf),
        ("shape_xyz", None),
        ("shape_xyz", []),
        ("shape_xyz", [20, None, 20]),
        ("shape_xyz", [2**60, 2**60, 2**60]),
        ("shape_xyz", [-1, 3, 4]),
        ("shape_xyz", [10**6] * 3),
        ("affine", [1.0]),
        ("digest", None),
        ("label_digest", None),
        ("label_dtype", None),
        ("label_dtype", "object"),
        ("codec", "zstdx"),
        ("name", None),
    ],
)
def test_a_row_that_is_none_is_a_finding_and_hides_no_other(built, column, value):
    _change(built, "btcv/case1", column, value)
    (built / "scans/btcv/case3/0/c.0.0.0").unlink()
    assert {"btcv/case1", "btcv/case3"} <= _named(built) <= {"", "btcv/case1", "btcv/case3"}
    assert verify(built).scans_checked == 6


@pytest.mark.parametrize(
    "scan", ["no-folder", "../case1", "btcv/..", "a" * 400, "btcv/" + "a" * 400, None]
)
def test_an_id_that_is_no_folder_is_a_finding(built, scan):
    _change(built, "btcv/case1", "id", scan)
    report = verify(built)
    assert scan is None or any(problem.scan == scan for problem in report.problems)
    assert ("btcv/case1", "extra_scan") in [problem[:2] for problem in report.problems]


def test_the_words_that_differ_are_named(built):
    _republish(built, lambda row: replace(row, quality="{}") if row.id == "btcv/case1" else row)
    (problem,) = verify(built, deep=False).problems
    assert problem.kind == "metadata_mismatch"
    assert problem.detail.endswith("is not what the catalogue's row implies: quality differ.")


def test_sources_may_have_weights_of_their_own(built):
    _republish(built, lambda row: replace(row, weight=3.0 if row.source == "abdo" else 2.0))
    assert verify(built).ok


def test_counts_of_parts_add_up():
    hu = np.random.default_rng(0).integers(-1024, 3071, (7, 6, 5)).astype(np.int16)
    parts = value_counts(hu[:3]) + value_counts(hu[3:])
    assert statistics_of(parts) == statistics_of(value_counts(hu))
    assert parts.sum() == hu.size


def test_a_weight_that_the_manifest_changed_is_no_damage(make_sources, tmp_path):
    build(make_sources(1), tmp_path / "ct.zarr", workers=0)
    build(make_sources(1, weight=3.0), tmp_path / "ct.zarr", workers=0, resume=True)
    assert open_store(tmp_path / "ct.zarr").info("btcv/case0").weight == 3.0
    assert verify(tmp_path / "ct.zarr").ok
