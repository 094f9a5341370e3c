import pytest

from tests.training_store import SHAPES, write_store
from vocodata.geometry import Size, Spacing
from vocodata.store import open_store
from vocotrain.errors import ConfigError
from vocotrain.scan_table import ScanRow, ScanTable, read_scan_table, split_holdout


def table(*weights):
    return ScanTable(
        tuple(
            ScanRow(f"s/{i}", Size(1, 1, 1), Spacing(1, 1, 1), (0.0, 1.0), weight=w)
            for i, w in enumerate(weights)
        )
    )


def test_a_row_holds_what_the_store_says(tmp_path):
    store = open_store(write_store(tmp_path / "s", SHAPES, weights={"clinic/b": 8.0}))
    rows = {row.id: row for row in read_scan_table(store, Size(32, 32, 32)).rows}
    assert list(rows) == sorted(SHAPES)
    assert rows["clinic/b"].weight == 8.0
    assert rows["clinic/b"].shape_XYZ == SHAPES["clinic/b"]
    assert rows["clinic/b"].window_hu == (-175.0, 250.0)
    assert rows["clinic/b"].spacing_mm == Spacing(4.0, 4.0, 4.0)
    assert rows["clinic/b"].licence == "CC-BY-4.0"
    assert rows["clinic/b"].digest == store.info("clinic/b").digest


def test_weights_part_the_line_from_zero_to_one():
    scans = table(1.0, 0.0, 3.0)
    assert [scans.drawn(u).id for u in (0.0, 0.2499, 0.25, 0.9999)] == ["s/0", "s/0", "s/2", "s/2"]


def test_the_holdout_takes_ids_and_patterns():
    scans = table(1.0, 1.0, 1.0)
    train, held = split_holdout(scans, ("s/1",))
    assert [row.id for row in train.rows] == ["s/0", "s/2"]
    assert [row.id for row in held.rows] == ["s/1"]
    train, held = split_holdout(scans, ("s/[01]", "s/1"))
    assert [row.id for row in train.rows] == ["s/2"]
    assert len(held) == 2


def test_a_scan_of_no_weight_is_neither():
    train, held = split_holdout(table(1.0, 0.0), ())
    assert [row.id for row in train.rows] == ["s/0"]
    assert len(held) == 0


def test_a_holdout_that_matches_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"data\.holdout 's/11' matches no scan.*mean 's/1'"):
        split_holdout(table(1.0, 1.0), ("s/11",))


def test_nothing_left_to_train_on_is_refused():
    with pytest.raises(ConfigError, match=r"No scan is left to train on: the store has 2, 2 of"):
        split_holdout(table(1.0, 1.0), ("s/*",))
