import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training_store import SHAPES, small_run, write_store
from vocotrain.config import config_yaml, load_config
from vocotrain.data import FieldSource
from vocotrain.distributed import World, is_writer_process
from vocotrain.run import build_objective, build_optimizer
from vocotrain.training_data import look_up_data

SETS = ("train.batch_size=4", "train.steps=2", "train.log_every=1", "optim.warmup_steps=0")
TRAIN = "from vococli.main import main; main()"


def test_alone_is_a_world_of_one():
    world = World()
    assert world.is_writer
    assert world.largest(3) == 3
    assert world.mean(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    world.wait()


@pytest.mark.parametrize(("rank", "writes"), [(None, True), ("0", True), ("3", False)])
def test_one_process_speaks_for_all(rank, writes, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_writer_process() is writes


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_processes(recipe, world):
    """What torchrun does: one process a rank, told by environment variables."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, "train", "pretrain", "--recipe", str(recipe), "--json"],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    results = []
    for process in processes:
        result, told = process.communicate(timeout=240)
        assert process.returncode == 0, told
        results.append(result)
    return results


def in_one_process(config):
    """The same updates without any process group: shares one after another, gradients averaged."""
    data = look_up_data(config, processes=2)
    objective = build_objective(config, data.size)
    optimizer = build_optimizer(config, objective)
    losses = []
    for step in range(config.train.steps):
        rate = config.optim.lr * (1.0 if step == 0 else 0.5)  # half a cosine over two steps
        for group in optimizer.param_groups:
            group["lr"] = rate
        for rank in (0, 1):
            source = FieldSource(
                data.store, data.training, data.settings, config.train.seed, 4, rank, 2
            )
            loss = objective(source[step]).terms.total()
            (loss / 2).backward()
            losses.append(float(loss.detach()))
        nn.utils.clip_grad_norm_(objective.parameters(), config.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        objective.update_teacher()
    return objective.encoder.state_dict(), losses


@pytest.mark.slow
def test_two_processes_average_the_gradients_of_their_shares(tmp_path):
    store = write_store(tmp_path / "ct.zarr", SHAPES)
    config = small_run(store, tmp_path / "run", *SETS, "train.eval_every=2")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(config_yaml(config))
    first, second = run_processes(recipe, world=2)
    assert json.loads(first)["report"] == str(tmp_path / "run/report.html")
    assert second == "", "only the first process reports"
    expected, losses = in_one_process(load_config(recipe))
    got = load_file(tmp_path / "run/checkpoints/final/encoder.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=2e-5, msg=name)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    for line, pair in zip(lines, (losses[:2], losses[2:]), strict=True):
        assert json.loads(line)["loss"] == pytest.approx(sum(pair) / 2, rel=1e-4)
