import json
import os
import shutil
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.training_store import SHAPES, small_run, write_store
from vocotrain.checkpoint import training_tensors
from vocotrain.data import FieldSource
from vocotrain.errors import (
    CheckpointError,
    ResumeMismatchError,
    RunExistsError,
    RunLockedError,
    StoreMismatchError,
    TrainingDivergedError,
    TrainingStoppedError,
)
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.pretraining import pretrain, save, train_step
from vocotrain.resume import load_run_config
from vocotrain.run import opened_run
from vocotrain.run_folder import locked
from vocotrain.training_data import look_up_data
from vocotrain.weights import load_weights, read_metadata

# Everything with a state: released teacher, dropped rows, all moments, a line across a checkpoint.
RELEASED = (
    "objective.variant=reference",
    "optim.amsgrad=true",
    "train.log_every=2",
    "train.eval_every=4",
)
TIMINGS = {"scans_per_s", "data_stall"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("pretrain") / "ct.zarr", SHAPES)


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    """A run of six steps that nothing disturbed; not to be written to."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    pretrain(small_run(store, out, *RELEASED))
    return out


@pytest.fixture
def copied(unbroken, tmp_path):
    """A copy of that run, to be damaged."""
    return shutil.copytree(unbroken, tmp_path / "run")


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(run):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines(run)]


def state(run, step=6):
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "state.safetensors")


def assert_same_run(one, other):
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing
    assert numbers(one) == numbers(other)


def test_a_run_leaves_its_papers(unbroken, store):
    names = {path.name for path in unbroken.iterdir()}
    assert {"config.yaml", "environment.json", "data.json", "metrics.jsonl"} <= names
    assert list((unbroken / "tensorboard").glob("events*"))
    bill = json.loads((unbroken / "data.json").read_text())
    assert bill["held_out"] == ["trial/d"]
    assert [scan["id"] for scan in bill["trained_on"]] == ["clinic/a", "clinic/b", "clinic/c"]
    environment = json.loads((unbroken / "environment.json").read_text())
    assert (environment["device"], environment["precision"]) == ("cpu", "fp32")
    assert load_run_config(unbroken).data.store == str(store)


def test_the_encoder_of_a_checkpoint_loads_as_that_of_the_end(unbroken):
    """So a run that never ended can be fine-tuned from."""
    checkpoint = unbroken / "checkpoints" / "step-00000006"
    loaded, final = VoCoEncoder("tiny"), VoCoEncoder("tiny")
    assert load_weights(loaded, checkpoint).share == 1
    load_weights(final, unbroken)
    assert all(
        torch.equal(one, other)
        for one, other in zip(
            loaded.state_dict().values(), final.state_dict().values(), strict=True
        )
    )


def test_every_line_is_a_whole_training_line(unbroken):
    keys = {"step", "loss", "intra", "inter", "regulariser", "position_accuracy", "lr", *TIMINGS}
    seen = {"heldout_position_accuracy", "heldout_constant_guess", "effective_rank", "gap"}
    assert [line["step"] for line in lines(unbroken)] == [1, 2, 4, 6]
    for line in lines(unbroken):
        assert line.keys() == (keys | seen if line["step"] in {4, 6} else keys)
        assert line["loss"] == pytest.approx(line["intra"] + line["inter"] + line["regulariser"])
        assert line["scans_per_s"] > 0
        assert 0 <= line["data_stall"] <= 1


def test_the_final_weights_say_what_they_are_and_load(unbroken):
    final = unbroken / "checkpoints" / "final"
    facts = read_metadata(final / "encoder.safetensors")
    assert facts["objective"] == "reference"
    assert facts["step"] == 6
    assert facts["crop_vox"] == [16, 16, 32]
    assert facts["spacing_mm"] == [[4.0, 4.0, 4.0]]
    assert facts["window_hu"] == [[-175.0, 250.0]]
    assert facts["store_digest"] == json.loads((unbroken / "data.json").read_text())["store_digest"]
    assert load_weights(VoCoEncoder("tiny"), unbroken).share == 1.0
    with safe_open(final / "encoder.safetensors", "pt") as file:
        assert all(key.startswith(("swinViT.", "encoder")) for key in file.keys())  # noqa: SIM118
    heads = load_file(final / "heads.safetensors")
    assert {name.split(".")[0] for name in heads} == {"student", "teacher"}
    for path in final.iterdir():
        assert path.stat().st_mode & 0o444 == final.stat().st_mode & 0o444


def test_a_stopped_run_goes_on_as_if_it_had_not_been(store, unbroken, tmp_path):
    out = tmp_path / "run"

    def ask_to_stop(event):
        if event.stage == "train" and event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        TrainingStoppedError, match=r"SIGTERM after step 2 of 6.*--resume"
    ) as caught:
        pretrain(small_run(store, out, *RELEASED), on_event=ask_to_stop)
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (out / "checkpoints" / "final").exists()
    pretrain(load_run_config(out), resume=True)
    assert_same_run(out, unbroken)


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(copied, unbroken):
    newest = copied / "checkpoints" / "step-00000006" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])
    events = []
    pretrain(load_run_config(copied), resume=True, on_event=events.append)
    warnings = [event.values["message"] for event in events if event.stage == "warning"]
    assert len(warnings) == 1
    assert "step-00000006 is damaged" in warnings[0]
    start = next(event for event in events if event.stage == "start")
    assert start.step == 3
    assert_same_run(copied, unbroken)


def test_no_whole_checkpoint_at_all_is_an_error(copied):
    for path in (copied / "checkpoints").glob("step-*"):
        (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"All 2 checkpoints in .* are damaged"):
        pretrain(load_run_config(copied), resume=True)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(copied, unbroken):
    shutil.rmtree(copied / "checkpoints")
    pretrain(load_run_config(copied), resume=True)
    assert_same_run(copied, unbroken)


def test_resuming_a_finished_run_changes_nothing(copied, unbroken):
    pretrain(load_run_config(copied), resume=True)
    assert lines(copied) == lines(unbroken)
    assert_same_run(copied, unbroken)


def test_looking_at_held_out_scans_does_not_touch_training(store, unbroken, tmp_path):
    torch_state = torch.get_rng_state()
    out = tmp_path / "run"
    pretrain(small_run(store, out, *RELEASED, "train.eval_every=0"))
    ours, watched = state(out), state(unbroken)
    assert all(torch.equal(ours[name], watched[name]) for name in ours)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_an_output_folder_with_something_in_it_is_refused(store, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match=r"is not empty; expected a new or empty folder"):
        pretrain(small_run(store, tmp_path))


def test_two_processes_do_not_write_one_run(store, tmp_path):
    with (
        locked(tmp_path / "run"),
        pytest.raises(RunLockedError, match=rf"written by another process \(id {os.getpid()}\)"),
    ):
        pretrain(small_run(store, tmp_path / "run"))


def test_another_store_is_refused_on_resume(copied, tmp_path):
    other = write_store(tmp_path / "other.zarr", {**SHAPES, "clinic/z": (40, 40, 40)})
    config = load_run_config(copied, [f"data.store={other}"])
    with pytest.raises(StoreMismatchError, match=r"was started on a store with digest \w{12}, and"):
        pretrain(config, resume=True)


def test_a_store_that_moved_is_not_another_store(copied, store, tmp_path):
    moved = shutil.copytree(store, tmp_path / "moved.zarr")
    pretrain(load_run_config(copied, [f"data.store={moved}"]), resume=True)
    assert json.loads((copied / "data.json").read_text())["store"] == str(moved)


def test_other_settings_are_refused_on_resume_and_named(copied):
    config = load_run_config(copied, ["optim.lr=1", "train.seed=5", "train.log_every=1"])
    with pytest.raises(ResumeMismatchError, match=r"optim\.lr: was 0\.001, is 1\.0; train\.seed"):
        pretrain(config, resume=True)


def test_a_run_cannot_end_before_the_step_it_has_reached(copied):
    before = (copied / "config.yaml").read_text()
    with pytest.raises(ResumeMismatchError, match=r"done \d steps; expected train.steps.*got 1"):
        pretrain(load_run_config(copied, ["train.steps=1"]), resume=True)
    assert (copied / "config.yaml").read_text() == before


def test_resuming_what_is_no_run_is_refused(store, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run"):
        pretrain(small_run(store, tmp_path), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_scans(store, tmp_path):
    config = small_run(store, tmp_path / "run", "optim.lr=1e30", "optim.warmup_steps=0")
    with pytest.raises(TrainingDivergedError, match=r"step \d is not finite.*clinic/\w, clinic/\w"):
        pretrain(config)


def test_weights_that_are_not_finite_are_never_saved(store, tmp_path):
    with opened_run(
        small_run(store, tmp_path / "run"), resume=False, on_event=lambda _: None
    ) as run:
        train_step(run, run.batches.next())
        with torch.no_grad():
            next(run.objective.student.parameters())[0, 0] = float("nan")
        with pytest.raises(
            TrainingDivergedError, match=r"1 tensors are not finite.*model\.student"
        ):
            save(run)
    assert not list((tmp_path / "run").rglob("step-*"))


def test_the_teacher_has_no_moments(store, tmp_path):
    with opened_run(
        small_run(store, tmp_path / "run"), resume=False, on_event=lambda _: None
    ) as run:
        train_step(run, run.batches.next())
        tensors = training_tensors(run.objective, run.optimizer)
    moments = {name.split(".")[1] for name in tensors if name.startswith("optim.")}
    assert moments == {"encoder", "student"}
    assert any(name.startswith("model.teacher.") for name in tensors)


def test_a_warm_up_that_never_ends_is_told(store, tmp_path):
    events = []
    sets = ("optim.warmup_steps=50", "train.steps=1")
    pretrain(small_run(store, tmp_path / "run", *sets), on_event=events.append)
    warnings = [event.values["message"] for event in events if event.stage == "warning"]
    assert len(warnings) == 1
    assert "optim.warmup_steps is 50, not less than train.steps" in warnings[0]


def test_half_precision_runs_on_the_cpu(store, tmp_path):
    sets = ("precision=bf16", "train.steps=2", "model.checkpointing=true")
    pretrain(small_run(store, tmp_path / "run", *sets))
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2]
    weights = load_file(tmp_path / "run/checkpoints/final/encoder.safetensors")
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}


def test_old_checkpoints_make_room(store, tmp_path):
    sets = ("train.checkpoint_every=1", "train.keep_checkpoints=2", "train.steps=4")
    final = pretrain(small_run(store, tmp_path / "run", *sets))
    assert sorted(path.name for path in final.parent.iterdir()) == [
        "final",
        "step-00000003",
        "step-00000004",
    ]


def test_a_listed_scan_is_never_drawn_and_lists_cannot_change_on_the_way(store, tmp_path):
    listed = tmp_path / "listed.txt"
    listed.write_text("clinic/b\nother/x\n")
    words = [f"data.exclude=[{listed}]", "data.holdout=[]", "train.steps=2"]
    config = small_run(store, tmp_path / "run", *words)
    events = []
    pretrain(config, on_event=events.append)
    told = [event.values["message"] for event in events if event.stage == "warning"]
    assert any("listed.txt (data.exclude) lists are not in the store" in words for words in told)
    data = look_up_data(config)
    source = FieldSource(data.store, data.training, data.settings, seed=0, batch_size=8)
    drawn = {plan.scan.id for step in range(30) for plan in source.plans(step)}
    assert drawn == {"clinic/a", "clinic/c", "trial/d"}
    listed.write_text("clinic/a\n")
    with pytest.raises(ResumeMismatchError, match="is in one only"):
        pretrain(load_run_config(tmp_path / "run", ["train.steps=3"]), resume=True)
