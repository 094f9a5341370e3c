"""Columns of the catalogue are read when asked for, all of one file."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vocodata.curation_report import page_of
from vocodata.duplicates import store_fingerprints
from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.store import open_store, verify
from vocodata.store.catalog import (
    CATALOG_NAME,
    CATALOG_SCHEMA,
    CURATION_COLUMNS,
    catalog_rows,
    read_catalog,
)
from vocodata.store.columns import Columns
from vocodata.store.root import publish
from vocotrain.scan_table import read_scan_table


@pytest.fixture
def asked(monkeypatch):
    """Names of columns in the order in which catalogues are read for them."""
    names, unchecked = [], Columns.unchecked

    def noted(self, wanted):
        if self.path.name == CATALOG_NAME:
            names.extend(wanted)
        return unchecked(self, wanted)

    monkeypatch.setattr(Columns, "unchecked", noted)
    return names


def test_opening_reads_ids_and_training_no_fingerprint(built, asked):
    store = open_store(built)
    assert len(store) == len(store.ids()) == 6
    assert asked == ["id"]
    read_scan_table(store, Size(64, 64, 16))
    store.read("btcv/case0", (0, 0, 0), (4, 4, 4))
    assert store.has_labels("btcv/case0")
    assert store.info("abdo/case0").voxels > 0
    page_of(store, [])
    assert not set(asked) & set(CURATION_COLUMNS)
    assert len(asked) == len(set(asked))
    store_fingerprints(store)
    assert asked[-1] == "fingerprint"


def test_all_columns_are_those_of_the_rows_in_their_order(built):
    store = open_store(built)
    store.catalog(["hu_mean"])
    assert store.catalog().schema == CATALOG_SCHEMA
    assert store.catalog() == read_catalog(built)
    assert store.catalog(["bytes", "id"]).column_names == ["bytes", "id"]
    for row in catalog_rows(store.catalog()):
        assert store.row(row.id) == row
        assert store.brief_row(row.id) == replace(row, **CURATION_COLUMNS)


def test_a_store_goes_on_with_the_catalogue_it_opened(built):
    store = open_store(built)
    ids = store.ids()
    rows = catalog_rows(read_catalog(built))
    publish(built, rows[2:], [], found=len(rows), recipe_digest="")
    assert store.catalog()["id"].to_pylist() == ids
    assert [row.digest for row in rows] == store.catalog(["digest"])["digest"].to_pylist()
    assert open_store(built).ids() == ids[2:]


def test_threads_may_ask_at_once(built):
    store, names = open_store(built), CATALOG_SCHEMA.names
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda name: store.catalog([name, "bytes"]), names))
    assert [table.column_names[0] for table in tables] == names
    assert all(table.columns[0] == store.catalog()[table.column_names[0]] for table in tables)


def test_a_file_cut_short_after_opening_is_told(built):
    store = open_store(built)
    store.ids()
    path = built / "catalog.parquet"
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(StoreError, match="cannot be read"):
        store.catalog()


def _is_sound(store):
    try:
        return verify(store).ok
    except StoreError:
        return False


@pytest.mark.parametrize("name", ["catalog.parquet", "excluded.parquet"])
def test_a_flipped_byte_anywhere_in_a_table_is_a_finding(built, name):
    whole = (built / name).read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 100)):
        (built / name).write_bytes(whole[:at] + bytes([whole[at] ^ 0x80]) + whole[at + 1 :])
        assert not _is_sound(built)


def test_columns_of_other_types_are_told(built):
    table = pq.read_table(built / CATALOG_NAME)
    at = table.column_names.index("shape_xyz")
    wrong = table.set_column(at, "shape_xyz", pa.array([[["x"]]] * table.num_rows))
    pq.write_table(wrong, built / CATALOG_NAME)
    with pytest.raises(StoreError, match="cannot be read"):
        open_store(built).catalog()
