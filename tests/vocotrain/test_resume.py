import json

import pytest

from tests.training_store import small_run
from vocotrain.config import PretrainConfig, config_yaml
from vocotrain.errors import CheckpointError, ConfigError, ResumeMismatchError
from vocotrain.resume import (
    MAY_CHANGE_ON_RESUME,
    changed_processes,
    check_resumable,
    check_same_exclusions,
    load_run_config,
    saved_recipe,
)
from vocotrain.settings import keys_of


@pytest.fixture
def run(tmp_path):
    """Papers of a run on a store with digest `abc`."""
    config = small_run(tmp_path / "ct.zarr", tmp_path)
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    (tmp_path / "data.json").write_text(json.dumps({"store_digest": "abc"}))
    return tmp_path


def test_a_run_says_itself_how_to_go_on(run):
    config = load_run_config(run)
    assert config == small_run(run / "ct.zarr", run)
    check_resumable(config, "abc")


def test_a_run_that_moved_writes_where_it_is_now(run, tmp_path_factory):
    there = tmp_path_factory.mktemp("moved")
    (there / "config.yaml").write_text((run / "config.yaml").read_text())
    assert load_run_config(there).out == str(there)


def test_a_run_of_the_other_command_is_told_by_its_name(run):
    with pytest.raises(CheckpointError, match="Go on by `voco train pretrain --resume"):
        saved_recipe(run, "finetune")
    (run / "config.yaml").write_text("task: {name: btcv}")
    with pytest.raises(CheckpointError, match="is a run of `voco train finetune`; expected one of"):
        saved_recipe(run, "pretrain")
    assert saved_recipe(run, "finetune") == run / "config.yaml"


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run"):
        saved_recipe(tmp_path, "pretrain")


def test_a_longer_run_may_be_asked_for(run):
    config = load_run_config(run, ["train.steps=9", "data.workers=2"])
    check_resumable(config, "abc")
    assert config.train.steps == 9


def test_what_may_change_are_keys_that_exist():
    assert set(keys_of(PretrainConfig)) >= MAY_CHANGE_ON_RESUME


def test_an_unknown_key_is_told_on_resume_too(run):
    with pytest.raises(ConfigError, match=r"train\.step: no such key. Did you mean 'train\.steps'"):
        load_run_config(run, ["train.step=9"])


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_damaged_bill_is_told(run, text):
    (run / "data.json").write_text(text)
    with pytest.raises(
        CheckpointError, match=r"data\.json is damaged; expected the store's digest"
    ):
        check_resumable(load_run_config(run), "abc")


def test_lists_may_move_but_not_leave_out_other_scans(run):
    check_same_exclusions(run, [])
    (run / "data.json").write_text(json.dumps({"store_digest": "abc", "excluded": ["a/1"]}))
    config = load_run_config(run, ["data.exclude=[elsewhere.txt]"])
    check_resumable(config, "abc")
    check_same_exclusions(run, ["a/1"])
    for now in ([], ["a/1", "a/2"]):
        with pytest.raises(ResumeMismatchError, match=r"started without 1 scans that data\.excl"):
            check_same_exclusions(run, now)


def test_another_number_of_processes_is_told(run):
    assert changed_processes(run, 2) == []
    (run / "environment.json").write_text(json.dumps({"processes": 2}))
    assert changed_processes(run, 2) == []
    (told,) = changed_processes(run, 1)
    assert "had 2 processes before and has 1 now" in told
