import pytest

from tests.training_store import SHAPES, small_run, write_store
from vocodata.errors import StoreError
from vocotrain.errors import ConfigError, ModelSizeError
from vocotrain.training_data import look_up_data


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looked") / "ct.zarr"
    return write_store(folder, SHAPES, weights={"clinic/c": 0.0})


def test_the_bill_accounts_for_every_scan(store, tmp_path):
    bill = look_up_data(small_run(store, tmp_path)).bill
    assert bill["counts"] == {"trained_on": 2, "held_out": 1, "unused": 1}
    assert (bill["held_out"], bill["unused"]) == (["trial/d"], ["clinic/c"])
    assert bill["licences"] == {"CC-BY-4.0": 2}
    assert bill["trained_on"][0].keys() == {
        *("id", "source", "licence", "weight", "window_hu", "digest"),
    }
    assert len(bill["store_digest"]) == 64


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 3), (2, 2), (6, 4)])
def test_volumes_that_do_not_share_out_are_refused(store, tmp_path, batch_size, processes):
    config = small_run(store, tmp_path, f"train.batch_size={batch_size}")
    told = rf"train\.batch_size is {batch_size} for {processes} processes; expected a multiple of"
    with pytest.raises(ConfigError, match=told):
        look_up_data(config, processes=processes)


def test_volumes_that_share_out_are_taken(store, tmp_path):
    config = small_run(store, tmp_path, "train.batch_size=8")
    assert look_up_data(config, processes=4).training


def test_what_is_not_there_is_told_before_anything_is_written(store, tmp_path):
    with pytest.raises(StoreError, match="is no store"):
        look_up_data(small_run(tmp_path / "none", tmp_path / "run"))
    with pytest.raises(ModelSizeError, match="There is no model size 'tyni'"):
        look_up_data(small_run(store, tmp_path / "run", "model.size=tyni"))
    assert not (tmp_path / "run").exists()
