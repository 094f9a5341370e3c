import pytest

from tests.training_store import SHAPES, small_run, write_store
from vocodata.errors import ManifestError, StoreError
from vocodata.exclusions import exclusion_text
from vocodata.store import open_store
from vocotrain.errors import ConfigError, InputShapeError, ModelSizeError
from vocotrain.training_data import look_up_data


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looked") / "ct.zarr"
    return write_store(folder, SHAPES, weights={"clinic/c": 0.0})


def test_the_bill_accounts_for_every_scan(store, tmp_path):
    bill = look_up_data(small_run(store, tmp_path)).bill
    assert bill["counts"] == {"trained_on": 2, "held_out": 1, "unused": 1, "excluded": 0}
    assert (bill["held_out"], bill["unused"]) == (["trial/d"], ["clinic/c"])
    assert (bill["excluded"], bill["exclusion_lists"], bill["leaks"]) == ([], [], None)
    assert bill["licences"] == {"CC-BY-4.0": 2}
    assert bill["trained_on"][0].keys() == {
        *("id", "source", "licence", "weight", "window_hu", "digest"),
    }
    assert len(bill["store_digest"]) == 64


def test_listed_scans_are_in_no_part_and_the_bill_says_by_which_list(store, tmp_path):
    digest = open_store(store).digest
    facts = {"checked": 9, "unreadable": 1, "leaked": 2, "leaking": 1, "store_digest": digest}
    leaks = tmp_path / "leaks.txt"
    leaks.write_text(exclusion_text(["clinic/a", "clinic/z"], why="leaks", facts=facts))
    twins = tmp_path / "twins.txt"
    twins.write_text(exclusion_text(["trial/d"], why="duplicates"))
    config = small_run(store, tmp_path, f"data.exclude=[{leaks}, {twins}]")
    data = look_up_data(config)
    assert [row.id for row in data.training.rows] == ["clinic/b"]
    assert len(data.held_out) == 0
    assert data.bill["counts"] == {"trained_on": 1, "held_out": 0, "unused": 1, "excluded": 2}
    assert data.bill["excluded"] == ["clinic/a", "trial/d"]
    figure = {"checked": 9, "unreadable": 1, "leaked": 2, "leaking": 1, "left_out": 1}
    assert data.bill["leaks"] == figure
    first, second = data.bill["exclusion_lists"]
    assert first == {
        "name": "leaks.txt", "why": "leaks", "facts": facts, "excluded": 1, "unknown": ["clinic/z"]
    }  # fmt: skip
    assert (second["excluded"], second["unknown"]) == (1, [])
    (warning,) = data.excluded.warnings
    assert warning.startswith("1 of the scans that leaks.txt (data.exclude) lists are not in")
    assert warning.endswith("the first is clinic/z.")


def test_a_check_of_another_store_is_no_figure_of_this_one(store, tmp_path):
    facts = {"checked": 9, "leaked": 2, "leaking": 1, "store_digest": "another"}
    (tmp_path / "l.txt").write_text(exclusion_text(["clinic/a"], why="leaks", facts=facts))
    bill = look_up_data(small_run(store, tmp_path, f"data.exclude=[{tmp_path}/l.txt]")).bill
    assert bill["leaks"] is None
    assert bill["exclusion_lists"][0]["facts"] == facts


def test_a_list_that_a_person_shortened_is_told_and_words_for_numbers_are_no_figure(
    store, tmp_path
):
    digest = open_store(store).digest
    facts = {"checked": 9, "unreadable": 0, "leaked": 2, "leaking": 2, "store_digest": digest}
    (tmp_path / "l.txt").write_text(exclusion_text(["clinic/a"], why="leaks", facts=facts))
    config = small_run(store, tmp_path, f"data.exclude=[{tmp_path}/l.txt]")
    data = look_up_data(config)
    assert (data.bill["leaks"]["leaking"], data.bill["leaks"]["left_out"]) == (2, 1)
    (warning,) = data.excluded.warnings
    assert warning.startswith("l.txt (data.exclude) lists 1 scans; its search had found 2.")
    facts |= {"leaked": "two"}
    (tmp_path / "l.txt").write_text(exclusion_text(["clinic/a"], why="leaks", facts=facts))
    assert look_up_data(config).bill["leaks"] is None


def test_lists_that_leave_nothing_or_are_not_there_are_refused(store, tmp_path):
    (tmp_path / "l.txt").write_text("clinic/a\nclinic/b\n")
    config = small_run(store, tmp_path, f"data.exclude=[{tmp_path}/l.txt]")
    with pytest.raises(ConfigError, match="the store has 4, 1 of them held out, 2 excluded by"):
        look_up_data(config)
    with pytest.raises(ManifestError, match=r"none\.txt, cannot be read"):
        look_up_data(small_run(store, tmp_path, f"data.exclude=[{tmp_path}/none.txt]"))


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


def test_a_crop_too_small_for_the_size_is_told_before_anything_is_written(store, tmp_path):
    config = small_run(store, tmp_path / "run", "objective.crop_vox=[8,8,8]")
    with pytest.raises(
        InputShapeError, match="A crop of 8x8x8 voxels is too small for size 'tiny'"
    ):
        look_up_data(config)


def test_scans_that_are_small_beside_a_field_are_told(store, tmp_path):
    assert look_up_data(small_run(store, tmp_path)).warnings == []
    config = small_run(store, tmp_path, "objective.crop_vox=[64,64,32]")
    (told,) = look_up_data(config).warnings
    assert "2 of 2 scans fill less than half of a field of 128 x 128 x 32 voxels, such as" in told
