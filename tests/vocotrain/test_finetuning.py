"""Fine-tuning: it learns, goes on bit for bit, keeps its papers, refuses what cannot be."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vocodata.store import open_store
from vocotrain.errors import (
    CheckpointError,
    ConfigError,
    LabelsError,
    ResumeMismatchError,
    RunExistsError,
    StoreMismatchError,
    TrainingDivergedError,
    TrainingStoppedError,
    WeightsFileError,
    WeightsMismatchError,
)
from vocotrain.finetune_config import load_finetune_config
from vocotrain.finetuning import finetune
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.run_record import read_run
from vocotrain.segmenter import read_spec
from vocotrain.weights import load_weights, save_weights

SHORT = ("train.steps=6", "train.log_every=2", "train.checkpoint_every=3")


@pytest.fixture
def store(build_labelled_store):
    return build_labelled_store(4)


def small(store, out, *sets, **more):
    """A run on tiny crops, on one thread."""
    given = {"task.name": "demo-organs", "data.store": str(store), "out": str(out)}
    if "model.weights" not in more:
        given["model.size"] = "tiny"
    usual = ("task.roi_vox=[16,16,16]", "threads=1", "data.holdout=[phantom/03]")
    return load_finetune_config(None, (*usual, *sets), values={**given, **more})


def losses(run):
    return [(line["step"], line["loss"], line["lr"]) for line in read_run(run).training]


def final(run):
    return run / "checkpoints" / "final" / "segmenter.safetensors"


def test_organs_are_learned_and_found_in_a_scan_never_seen(store, tmp_path):
    words = ("train.steps=40", "optim.lr=5e-3", "optim.warmup_steps=5", "task.crops_per_volume=3")
    report = finetune(
        small(store, tmp_path / "run", *words, "task.pos_neg=[5,1]", "task.balance_classes=true")
    )
    (scan,) = report.dice_store_grid
    assert scan.scan == "phantom/03"
    assert min(scan.scores.values()) > 0.6
    first, *_, last = losses(tmp_path / "run")
    assert last[1] < 0.7 * first[1]


def test_a_run_leaves_its_papers(store, tmp_path):
    out = tmp_path / "run"
    events = []
    report = finetune(small(store, out, *SHORT), on_event=events.append)
    stages = [event.stage for event in events]
    assert stages[0] == "start"
    assert stages[-1] == "done"
    assert {"train", "checkpoint"} <= set(stages)
    assert [step for step, _, _ in losses(out)] == [1, 2, 4, 6]
    data = json.loads((out / "data.json").read_text())
    assert data["counts"] == {"trained_on": 3, "held_out": 1, "left_out": 0}
    assert data["store_digest"] == open_store(store).digest
    results = json.loads((out / "results.json").read_text())
    assert results == json.loads(json.dumps(report.as_json()))
    assert results["dice_native"] is None
    assert set(results["dice_store_grid"]["by_scan"]) == {"phantom/03"}
    assert read_run(out).last("dice_store_grid") == results["dice_store_grid"]["mean"]
    assert any((out / "tensorboard").iterdir())
    spec = read_spec(final(out))
    assert (spec.task, spec.classes) == ("demo-organs", ("background", "liver", "spleen"))
    assert (spec.preset, spec.foreground_above_hu, spec.steps) == ("demo", -175, 6)
    assert load_finetune_config(out / "config.yaml").model.size == "tiny"


def test_a_stopped_run_goes_on_as_if_it_had_not_been(store, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = (*SHORT, "augment.flip=0.5", "augment.shift_probability=1.0")
    finetune(small(store, whole, *words))

    def ask_to_stop(event):
        if event.stage == "train" and event.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingStoppedError, match=r"SIGINT after step 2 of 6.*--resume") as caught:
        finetune(small(store, broken, *words), on_event=ask_to_stop)
    assert caught.value.exit_code == 130
    assert not final(broken).exists()
    finetune(load_finetune_config(broken / "config.yaml"), resume=True)
    assert losses(broken) == losses(whole)
    first, second = load_file(final(whole)), load_file(final(broken))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_several_processes_are_refused(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes, and a fine-tuning takes"):
        finetune(small(store, tmp_path / "run", *SHORT))
    assert not (tmp_path / "run").exists()


def test_resuming_a_finished_run_changes_nothing(store, tmp_path):
    out = tmp_path / "run"
    finetune(small(store, out, *SHORT))
    before, weights = (out / "metrics.jsonl").read_text(), final(out).read_bytes()
    finetune(load_finetune_config(out / "config.yaml"), resume=True)
    assert (out / "metrics.jsonl").read_text() == before
    assert final(out).read_bytes() == weights


def test_the_best_weights_on_the_way_are_kept_beside_the_last(store, tmp_path):
    out = tmp_path / "run"
    report = finetune(small(store, out, *SHORT, "train.eval_every=2"))
    steps, scores = read_run(out).series("dice_store_grid")
    assert steps == [2, 4, 6]
    assert report.best == (steps[int(np.argmax(scores[:2]))], max(scores[:2]))
    assert read_spec(out / "checkpoints" / "best" / "segmenter.safetensors").steps == report.best[0]


def test_a_pretrained_encoder_is_the_start_and_its_report_is_kept(store, tmp_path):
    torch.manual_seed(3)
    encoder = VoCoEncoder("tiny")
    path = save_weights(encoder, tmp_path / "encoder.safetensors")
    out = tmp_path / "run"
    words = ("train.steps=1", "optim.lr=1e-12", "optim.weight_decay=0")
    report = finetune(small(store, out, *words, **{"model.weights": str(path)}))
    assert (report.size, report.weights_share) == ("tiny", 1.0)
    kept = json.loads((out / "weights.json").read_text())
    assert len(kept["matched"]) == len(encoder.state_dict())
    assert any(name.startswith("decoder1") for name in kept["missing"])
    tuned = SwinUNETR("tiny", out_channels=3)
    load_weights(tuned, out)
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], value, rtol=0, atol=1e-6)


def test_without_held_out_scans_nothing_is_measured(store, tmp_path):
    report = finetune(small(store, tmp_path / "run", "train.steps=1", "data.holdout=[]"))
    assert (report.dice_store_grid, report.as_json()["dice_store_grid"]) == ((), None)
    assert len(report.train) == 4


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (
            ("task.name=demo-organ",),
            r"task 'demo-organ' is not in tasks\.yaml; .* Did you mean 'demo-organs'\?$",
        ),
        (("task.roi_vox=[20,20,20]",), r"roi_vox of task 'demo-organs' is \[20, 20, 20\]"),
        (("data.train=[phantom/*]",), "phantom/03 would be trained on and held out"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(store, tmp_path, sets, words):
    with pytest.raises(ConfigError, match=words):
        finetune(small(store, tmp_path / "run", *sets))
    assert not (tmp_path / "run").exists()


def test_a_network_of_no_size_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"model\.size is missing; expected a size such as"):
        finetune(small(store, tmp_path / "run", "model.size=null"))


def test_weights_that_do_not_say_their_size_want_it_named(store, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(VoCoEncoder("tiny").state_dict(), path)
    with pytest.raises(ConfigError, match=r"old\.pt does not say which size it has; expected"):
        finetune(small(store, tmp_path / "run", **{"model.weights": str(path)}))
    named = small(
        store, tmp_path / "run", "train.steps=1", "model.size=tiny", **{"model.weights": str(path)}
    )
    assert finetune(named).weights_share == 1.0


def test_weights_of_another_size_are_refused(store, tmp_path):
    path = save_weights(VoCoEncoder("tiny"), tmp_path / "encoder.safetensors")
    more = {"model.weights": str(path), "model.size": "B", "task.roi_vox": [64, 64, 64]}
    words = "seems to be size 'tiny'.*the model is size 'B'"
    with pytest.raises(WeightsMismatchError, match=words):
        finetune(small(store, tmp_path / "run", "task.roi_vox=[64,64,64]", **more))


def test_weights_that_are_not_there_are_refused(store, tmp_path):
    with pytest.raises(WeightsFileError, match="There is no file or run folder of weights"):
        finetune(small(store, tmp_path / "run", **{"model.weights": str(tmp_path / "none")}))


def test_labels_without_a_single_voxel_of_a_class_are_refused(build_labelled_store, tmp_path):
    blank = {
        "hu": np.zeros((20, 20, 20), np.int16),
        "labels": np.zeros((20, 20, 20), np.uint8),
        "names": {1: "liver", 2: "spleen"},
        "spacing_mm": (5.0, 5.0, 5.0),
    }
    scans = tuple({"scan_id": f"blank/{k}", **blank} for k in range(2))
    store = build_labelled_store(0, extra=scans)
    with pytest.raises(LabelsError, match="None of the 1 training scans has a voxel of any class"):
        finetune(small(store, tmp_path / "run", "data.holdout=[blank/1]"))


def test_an_output_folder_with_something_in_it_is_refused(store, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="is not empty; expected a new or empty folder"):
        finetune(small(store, tmp_path))


def test_resuming_what_is_no_run_is_refused(store, tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run"):
        finetune(small(store, tmp_path / "none"), resume=True)


def test_other_settings_or_another_store_are_refused_on_resume(store, tmp_path):
    out = tmp_path / "run"
    finetune(small(store, out, "train.steps=1"))
    with pytest.raises(ResumeMismatchError, match=r"optim\.lr: was None, is 0\.1"):
        finetune(load_finetune_config(out / "config.yaml", ["optim.lr=0.1"]), resume=True)
    data = json.loads((out / "data.json").read_text())
    (out / "data.json").write_text(json.dumps({**data, "store_digest": "0" * 64}))
    with pytest.raises(StoreMismatchError, match="was started on a store with digest 0000"):
        finetune(load_finetune_config(out / "config.yaml"), resume=True)


def test_a_run_may_move_with_its_store(store, tmp_path):
    out = tmp_path / "run"
    finetune(small(store, out, "train.steps=1"))
    shutil.move(out, tmp_path / "moved")
    shutil.copytree(store, tmp_path / "copy.zarr")
    words = [f"data.store={tmp_path / 'copy.zarr'}"]
    config = load_finetune_config(
        tmp_path / "moved" / "config.yaml", words, values={"out": str(tmp_path / "moved")}
    )
    assert finetune(config, resume=True).steps == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_scans(store, tmp_path):
    words = ("train.steps=40", "optim.lr=1e30", "optim.warmup_steps=0")
    with pytest.raises(TrainingDivergedError, match=r"not finite"):
        finetune(small(store, tmp_path / "run", *words))


def test_half_precision_and_several_volumes_run_on_the_cpu(store, tmp_path):
    words = ("train.steps=1", "precision=bf16", "train.batch_size=2", "model.checkpointing=true")
    report = finetune(small(store, tmp_path / "run", *words, "optim.clip_norm=1.0"))
    assert report.steps == 1
