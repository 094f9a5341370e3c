"""The commands from end to end, on two small synthetic scans."""

import json
import shutil

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest

from vococli.main import main


def document(capsys, *words: object) -> dict:
    """Run a command with --json; it must print one JSON document and end with 0."""
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_build_stores_what_is_sound_and_names_what_is_not(store):
    assert pq.read_table(store / "catalog.parquet")["id"].to_pylist() == ["toy/a", "toy/b"]
    (row,) = pq.read_table(store / "excluded.parquet").to_pylist()
    assert (row["source"], row["scan"], row["reason"]) == ("toy", "c", "truncated_gzip")


def test_a_build_prints_its_figures_on_stdout_and_its_progress_on_stderr(toys, tmp_path, capsys):
    words = ["data", "build", "--sources", toys / "manifest.yaml", "--out", tmp_path / "s"]
    report = document(capsys, *words, "--workers", "0")
    assert (report["found"], report["stored"]) == (3, 2)
    assert report["excluded"] == {"truncated_gzip": 1}
    assert report["excluded_rows"][0]["reason"] == "truncated_gzip"
    assert main([*map(str, words), "--workers", "0", "--resume"]) == 0
    shown = capsys.readouterr()
    assert "stored 2" in " ".join(shown.out.split())
    assert "build 3/3" in shown.err
    assert "build 3/3" not in shown.out


def test_more_excluded_scans_than_allowed_end_with_3(toys, tmp_path, capsys):
    words = f"data build --sources {toys}/manifest.yaml --out {tmp_path}/s --workers 0".split()
    assert main([*words, "--max-excluded", "0"]) == 3
    assert "1 scans are excluded; --max-excluded allows 0" in capsys.readouterr().err


def test_a_build_that_stores_nothing_ends_with_3_and_says_so(tmp_path, capsys, write_manifest):
    (tmp_path / "toy" / "images").mkdir(parents=True)
    (tmp_path / "toy" / "images" / "a.nii.gz").write_bytes(b"")
    manifest = write_manifest(tmp_path / "m.yaml", labels=None, label_names=None)
    words = f"data build --sources {manifest} --out {tmp_path}/s --workers 0".split()
    assert main(words) == 3
    assert "no scan could be stored, 1 excluded. `voco data status" in capsys.readouterr().err


def test_status_and_verify_of_a_sound_store(store, capsys):
    status = document(capsys, "data", "status", store)
    assert (status["found"], status["stored"], status["excluded"]) == (3, 2, 1)
    assert [row["reason"] for row in status["excluded_scans"]] == ["truncated_gzip"]
    assert main(["data", "status", str(store)]) == 0
    assert "truncated_gzip" in capsys.readouterr().out
    checked = document(capsys, "data", "verify", store, "--deep")
    assert checked == {"ok": True, "scans_checked": 2, "problems": []}


def test_a_damaged_store_is_found_and_ends_with_5(toys, tmp_path, capsys):
    words = f"data build --sources {toys}/manifest.yaml --out {tmp_path}/s --workers 0".split()
    assert main(words) == 0
    shard = next((tmp_path / "s/scans/toy/a").glob("0/c.*"), tmp_path / "s/scans/toy/a/0")
    file = shard if shard.is_file() else next(p for p in shard.rglob("*") if p.stat().st_size > 999)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    file.write_bytes(damaged)
    capsys.readouterr()
    assert main(["data", "verify", str(tmp_path / "s"), "--deep"]) == 5
    told = capsys.readouterr()
    assert "toy/a" in told.out
    assert "verify 2/2" in told.err


def test_a_pretraining_run_leaves_weights_metrics_and_a_report(run, capsys):
    assert (run / "checkpoints/final/encoder.safetensors").is_file()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")
    found = document(capsys, "info", run)
    assert (found["kind"], found["last_step"]) == ("run", 2)


def test_a_finished_run_can_be_made_longer(run, capsys, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    words = ["train", "pretrain", "--resume", longer, "--set", "train.steps=3"]
    found = document(capsys, *words)
    assert found["encoder"] == str(longer / "checkpoints/final/encoder.safetensors")
    lines = (longer / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 3


def test_fine_tuning_and_prediction_end_on_the_scans_own_grid(toys, finetuned, tmp_path, capsys):
    results = json.loads((finetuned / "results.json").read_text())
    assert (results["train"], results["holdout"]) == (["toy/a"], ["toy/b"])
    scan = toys / "toy/images/b.nii.gz"
    found = document(capsys, "predict", finetuned, scan, "-o", tmp_path)
    assert set(found["volumes_ml"]) == {"liver", "spleen"}
    labels, image = nibabel.load(found["labels"]), nibabel.load(scan)
    assert labels.shape == image.shape
    assert np.allclose(labels.affine, image.affine)
    assert main(["predict", str(finetuned), str(scan), "-o", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("ct.zarr", "store"),
        ("run", "run"),
        ("run/checkpoints/final/encoder.safetensors", "weights"),
        ("toy/images/a.nii.gz", "scan"),
    ],
)
@pytest.mark.usefixtures("run")
def test_info_tells_by_content_what_lies_at_a_path(toys, capsys, place, kind):
    assert document(capsys, "info", toys / place)["kind"] == kind
    assert main(["info", str(toys / place)]) == 0
    assert capsys.readouterr().out.startswith("kind ")


def test_info_without_a_path_names_the_versions(capsys):
    found = document(capsys, "info")
    assert found["kind"] == "toolkit"
    assert found["torch"]


def test_doctor_prints_a_row_each_and_a_verdict(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = document(capsys, "doctor")
    assert found["fit"] is True
    assert {"name", "status", "value", "advice"} == set(found["checks"][0])
    assert main(["doctor"]) == 0
    assert "Fit for work." in capsys.readouterr().out


def test_doctor_ends_with_4_when_something_needed_is_missing(capsys, monkeypatch):
    from vocotrain import doctor

    monkeypatch.setattr(doctor, "examine", lambda _: doctor.check_packages(["not-there>=1"]))
    assert main(["doctor"]) == 4
    assert "pip install 'not-there>=1'" in capsys.readouterr().out
