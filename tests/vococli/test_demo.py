"""The demo on two synthetic scans that stand in the cache for the real ones."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from vococli.main import main
from vocodata.sample_scans import fetch_samples
from vocotrain.config import load_config
from vocotrain.demo import DemoStage, Listeners, run_demo
from vocotrain.finetune_config import load_finetune_config

SETTINGS = ("train.steps=1", "train.batch_size=2", "optim.warmup_steps=0", "threads=1")


class Told:
    """Everything that a demo tells."""

    def __init__(self):
        self.stages: list[DemoStage] = []
        self.sentences: list[str] = []
        self.listeners = Listeners(
            stage=self.stages.append,
            build=lambda _: None,
            train=lambda _: None,
            say=self.sentences.append,
        )


@pytest.fixture(scope="module")
def cache(tmp_path_factory, write_toy) -> Path:
    """A cache with two sources, called as the real ones are."""
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "samples-v2"
    sources = []
    for seed, name in enumerate(("abdomen", "chest")):
        write_toy(folder / name, "scan", seed)
        entry = {"image": "images/scan.nii.gz", "label": "labels/scan.nii.gz"}
        (folder / f"{name}.json").write_text(json.dumps({"training": [entry]}))
        row = {"name": name, "root": name, "layout": "datalist", "scans": f"{name}.json"}
        names = {1: "liver", 2: "spleen"}
        sources.append({**row, "preset": "demo", "licence": "MIT", "label_names": names})
    (folder / "manifest.yaml").write_text(yaml.safe_dump({"version": 1, "sources": sources}))
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    (folder / "contents.json").write_text(json.dumps(sizes))
    return cache


@pytest.fixture(scope="module")
def demo(cache, tmp_path_factory):
    """A finished demo: its folder, its result, and what it told."""
    out, told = tmp_path_factory.mktemp("demo") / "demo", Told()
    result = run_demo(out, listeners=told.listeners, cache=cache, settings=SETTINGS)
    return out, result, told


def test_the_toy_cache_is_taken_for_the_samples(cache):
    assert len(fetch_samples(cache).held_out) == 1


def test_a_demo_ends_with_a_store_weights_a_picture_and_a_report(demo):
    out, result, told = demo
    assert result.store.is_dir()
    assert result.encoder.is_file()
    assert (out / "summary.png").is_file()
    page = result.report.read_text(encoding="utf-8")
    assert "Fine-tuning: demo-organs" in page
    assert all(stage.command.replace("'", "&#39;") in page for stage in told.stages)
    assert set(result.dice) == {"from pretraining", "from scratch"}
    assert result.constant_guess == 0.25
    assert 0 < result.heldout_constant_guess < 1
    assert [stage.number for stage in told.stages] == list(range(1, 7))


@pytest.mark.slow
def test_the_commands_that_a_demo_tells_do_what_the_demo_did(demo, tmp_path):
    out, _, told = demo
    for stage in told.stages:
        if stage.command:
            words = shlex.split(stage.command.replace(str(out), str(tmp_path)))
            assert words[0] == "voco"
            assert main(words[1:]) == 0
    for run, load in (
        ("pretrain", load_config),
        ("finetune", load_finetune_config),
        ("finetune-from-scratch", load_finetune_config),
    ):
        text = (tmp_path / run / "config.yaml").read_text()
        (tmp_path / "same.yaml").write_text(text.replace(str(tmp_path), str(out)))
        assert load(tmp_path / "same.yaml") == load(out / run / "config.yaml")
        losses = [_losses(folder / run) for folder in (tmp_path, out)]
        assert losses[0] == losses[1]


def test_a_finished_demo_is_not_done_again(demo, cache):
    out, result, _ = demo
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    told = Told()
    again = run_demo(out, listeners=told.listeners, cache=cache, settings=SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert sum("is finished" in sentence for sentence in told.sentences) == 3
    assert replace(again) == result


@pytest.mark.slow
def test_overwrite_begins_anew_and_leaves_what_is_not_its_own(demo, cache):
    out, _, _ = demo
    (out / "notes.txt").write_text("mine")
    (out / "report.html").write_text("old")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    listeners = Told().listeners
    run_demo(out, listeners=listeners, cache=cache, overwrite=True, settings=SETTINGS)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert after.keys() == before.keys()
    assert not set(after.items()) & set(before.items())
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "report.html").read_text() != "old"


def _losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]
