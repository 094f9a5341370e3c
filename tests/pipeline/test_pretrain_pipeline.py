"""Scans on disk -> store -> a run that is killed -> resumed -> the same as one that was not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training_store import phantom, small_run
from vocodata.building import build
from vocotrain.config import config_yaml
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.pretraining import pretrain
from vocotrain.resume import load_run_config
from vocotrain.weights import load_weights

SETS = ("data.holdout=[trial/case0]", "train.log_every=2", "train.eval_every=4", "train.steps=5")
KILLED_AFTER = 4
TRAIN_AND_DIE = f"""
import os, signal, sys
from pathlib import Path
from vocotrain.config import load_config
from vocotrain.pretraining import pretrain

def die(event):
    if event.stage == "train" and event.step == {KILLED_AFTER}:
        os.kill(os.getpid(), signal.SIGKILL)

pretrain(load_config(Path(sys.argv[1])), on_event=die)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of ten tiny NIfTI scans of two sources."""
    folder = tmp_path_factory.mktemp("pipeline")
    sources = []
    for name, scans, licence in (("clinic", 7, "CC-BY-4.0"), ("trial", 3, None)):
        root = folder / name
        root.mkdir()
        for number in range(scans):
            hu = phantom((46 + number, 44, 38), seed=number)
            affine = np.diag([4.0, 4.0, 4.0, 1.0])
            nib.save(nib.Nifti1Image(hu, affine), root / f"case{number}.nii.gz")
        sources.append(
            {
                "name": name,
                "root": str(root),
                "layout": "glob",
                "preset": "demo",
                "licence": licence,
            }
        )
    manifest = folder / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": sources}))
    report = build(manifest, folder / "ct.zarr", workers=0)
    assert report.stored == 10
    return folder / "ct.zarr"


def numbers(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in {"scans_per_s", "data_stall"}} for line in lines
    ]


def test_a_killed_run_goes_on_as_if_it_had_not_been(store, tmp_path):
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    pretrain(small_run(store, unbroken, *SETS))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(config_yaml(small_run(store, killed, *SETS)))
    ended = subprocess.run([sys.executable, "-c", TRAIN_AND_DIE, str(recipe)], check=False)
    assert ended.returncode == -signal.SIGKILL
    steps_then = [line["step"] for line in numbers(killed)]
    assert steps_then == [1, 2, 4]  # a line past the checkpoint of step 3
    assert [path.name for path in (killed / "checkpoints").iterdir()] == ["step-00000003"]

    events = []
    final = pretrain(load_run_config(killed), resume=True, on_event=events.append)

    assert next(event.step for event in events if event.stage == "start") == 3
    assert numbers(killed) == numbers(unbroken)
    names = sorted(path.relative_to(unbroken) for path in unbroken.rglob("*.safetensors"))
    assert len(names) == 4  # steps 3 and 5, encoder and heads
    for name in names:
        ours, theirs = load_file(killed / name), load_file(unbroken / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert load_weights(VoCoEncoder("tiny"), Path(final) / "encoder.safetensors").share == 1.0
    bill = json.loads((killed / "data.json").read_text())
    assert bill["counts"] == {"trained_on": 9, "held_out": 1, "unused": 0, "excluded": 0}
    assert bill["licences"] == {"CC-BY-4.0": 7, "unknown": 2}
