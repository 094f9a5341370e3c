"""A task by name, and what a recipe changes of it."""

import pytest

from vocotrain.errors import ConfigError
from vocotrain.finetune_config import (
    check_roi,
    crop_settings,
    load_finetune_config,
    resolve_plan,
    resolve_task,
)
from vocotrain.sizes import model_size
from vocotrain.tasks import task

GIVEN = {"task.name": "btcv", "data.store": "ct.zarr", "out": "run", "model.size": "B"}


def load(*sets, **more):
    return load_finetune_config(None, sets, values={**GIVEN, **more})


def settings(config):
    return crop_settings(config.augment, resolve_task(config.task))


def test_the_row_of_the_task_fills_what_the_recipe_leaves_out():
    config = load()
    row = resolve_task(config.task)
    assert row == task("btcv")
    plan = resolve_plan(config, row, train_scans=24)
    assert (plan.steps, plan.warmup_steps) == (24 * 1000, 24 * 20)
    assert (plan.lr, plan.weight_decay, plan.clip_norm) == (3e-4, 1e-5, None)


def test_an_epoch_is_fewer_steps_where_a_step_has_more_volumes():
    config = load("train.batch_size=4")
    assert resolve_plan(config, task("btcv"), train_scans=10).steps == 3 * 1000


def test_a_shorter_run_keeps_the_share_of_its_warm_up():
    config = load("train.steps=100")
    assert resolve_plan(config, task("btcv"), train_scans=24).warmup_steps == 2


def test_a_recipe_changes_single_values():
    config = load(
        "task.roi_vox=[64,64,32]",
        "task.classes=[background, liver]",
        "task.spacing_mm=[2.0,2.0,3.0]",
        "optim.lr=1e-3",
        "optim.warmup_steps=7",
        "optim.weight_decay=0",
    )
    row = resolve_task(config.task)
    assert (row.roi_vox, row.out_channels, row.spacing_mm) == ((64, 64, 32), 2, (2, 2, 3))
    plan = resolve_plan(config, row, train_scans=24)
    assert (plan.lr, plan.warmup_steps, plan.weight_decay) == (1e-3, 7, 0)


def test_flips_are_off_where_classes_have_a_side():
    assert (settings(load()).flip, settings(load()).turn) == (0, 0)
    liver = settings(load(**{"task.name": "chaos"}))
    assert (liver.flip, liver.turn, liver.positive_share) == (0.2, 0.2, 0.5)
    assert settings(load("augment.flip=0.3")).flip == 0.3


def test_turns_want_a_crop_that_is_square_in_plane():
    assert settings(load("task.roi_vox=[64,32,32]", **{"task.name": "chaos"})).turn == 0
    with pytest.raises(ConfigError, match=r"augment\.turn is 0\.5, but roi_vox is \[64, 32, 32\]"):
        settings(load("task.roi_vox=[64,32,32]", "augment.turn=0.5"))


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        ("[96,96,90]", r"\[96, 96, 90\]; size 'B' expects multiples of 32.*=\[96, 96, 96\]"),
        ("[32,32,32]", r"one side at least 64\. Set task\.roi_vox=\[32, 32, 64\]"),
    ],
)
def test_a_crop_that_the_network_cannot_halve_is_refused(roi, words):
    row = resolve_task(load(f"task.roi_vox={roi}").task)
    with pytest.raises(ConfigError, match=words):
        check_roi(row, model_size("B"))


def test_the_crops_of_all_tasks_suit_the_released_sizes():
    check_roi(task("msd-vessel"), model_size("B"))
    check_roi(task("demo-organs"), model_size("tiny"))


def test_an_unknown_key_gets_the_nearest_one():
    with pytest.raises(ConfigError, match=r"data\.holdot: no such key\. Did you mean 'data\.hol"):
        load("data.holdot=[a/b]")


def test_all_that_is_missing_is_said_at_once():
    words = (
        r"3 faults.*\n.*task.name: missing; expected a row of .*tasks.yaml. Give --task NAME \(.*"
        r"btcv, amos22, .*\n.*data.store: missing; expected a folder .*Give --data STORE.*\n"
        r".*out: missing; expected a folder for the run. Give --out RUN"
    )
    with pytest.raises(ConfigError, match=words):
        load_finetune_config(None, [])


def test_an_unknown_task_is_told_beside_the_other_faults():
    with pytest.raises(ConfigError) as caught:
        load_finetune_config(None, ["task.name=btvc", "data.store=s"])
    message = str(caught.value)
    assert """task.name is "btvc": task 'btvc' is not in tasks.yaml; expected one of""" in message
    assert "out: missing" in message


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        load_finetune_config(tmp_path / "none.yaml")
