import json

import pytest

from tests.vocodata.conftest import write_sources
from tests.vocodata.dicom_series import write_series
from vococli.main import main


@pytest.fixture
def scans(tmp_path):
    write_sources(tmp_path, 2)
    return tmp_path / "sources/btcv/images"


def test_init_plan_and_build_follow_each_other(scans, tmp_path, capsys):
    manifest = tmp_path / "my own.yaml"
    assert main(["data", "init", str(scans), "-o", str(manifest)]) == 0
    assert f"voco data plan --sources '{manifest}'" in capsys.readouterr().out
    store = str(tmp_path / "ct.zarr")
    assert main(["data", "plan", "--sources", str(manifest), "--out", store, "--json"]) == 0
    forecast = json.loads(capsys.readouterr().out)
    assert (forecast["scans"], forecast["fits"]) == (2, True)
    assert main(["data", "plan", "--sources", str(manifest), "--out", store]) == 0
    said = capsys.readouterr().out
    assert "memory a worker" in said
    assert "of one core" in said
    assert (
        main(["data", "build", "--sources", str(manifest), "--out", store, "--workers", "0"]) == 0
    )
    capsys.readouterr()
    assert main(["data", "status", store]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["plan", "so", "far"] in lines
    assert ["scans", "2", "2"] in lines
    (disk,) = (line for line in lines if line[:1] == ["disk"])
    assert len(disk) == 5
    assert main(["data", "status", store, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["plan"]["bytes"] >= status["fact"]["bytes"] > 0


def test_init_says_that_dicom_scans_get_no_names_of_folders(tmp_path, capsys):
    write_series(tmp_path / "in/DOE_JOHN_19570412")
    assert main(["data", "init", str(tmp_path / "in"), "-o", str(tmp_path / "a.yaml")]) == 0
    assert "DICOM scans get keyed hashes as names" in capsys.readouterr().out
    words = ["data", "init", str(tmp_path / "in"), "-o", str(tmp_path / "b.yaml"), "--json"]
    assert main(words) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert (source["name"], source["names"]) == ("dicom", "hashed")


def test_init_keeps_a_manifest_that_is_there(scans, tmp_path, capsys):
    assert main(["data", "init", str(scans), "-o", str(tmp_path / "manifest.yaml")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_init_makes_the_folder_of_its_manifest(scans, tmp_path):
    assert main(["data", "init", str(scans), "-o", str(tmp_path / "new" / "m.yaml")]) == 0
    assert (tmp_path / "new" / "m.yaml").read_text().startswith("# Written by")


@pytest.mark.parametrize("words", [[], ["x", "--root", "y"], ["x", "--subset", "10k"]])
def test_init_needs_one_place(words, tmp_path, capsys):
    assert main(["data", "init", *words, "-o", str(tmp_path / "m.yaml")]) == 2
    assert "give DIR, or --catalog with --root" in capsys.readouterr().err


def test_init_writes_a_known_collection(tmp_path, capsys):
    (tmp_path / "MELA").mkdir()
    words = ["--catalog", "prect160k", "--root", str(tmp_path), "-o", str(tmp_path / "m.yaml")]
    assert main(["data", "init", *words, "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert (source["name"], source["expected"]) == ("mela", 770)


@pytest.mark.parametrize("words", [["build", "--sources", "m.yaml", "--out"], ["status"]])
def test_a_store_whose_path_is_no_text_is_refused_in_words(words, tmp_path, capsys, monkeypatch):
    folder = tmp_path / b"caf\xe9".decode("utf-8", "surrogateescape")
    folder.mkdir()
    assert main(["data", *words, str(folder / "ct.zarr")]) == 2
    assert "no UTF-8 text, which the path of a store must be" in capsys.readouterr().err
    monkeypatch.chdir(folder)
    assert main(["data", *words, "ct.zarr"]) == 2
    assert not list(folder.iterdir())


def test_plan_ends_with_4_if_the_disk_has_no_room(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vocodata.forecast.SPARE", 1e15)
    manifest = str(write_sources(tmp_path, 1))
    assert main(["data", "plan", "--sources", manifest]) == 4
    assert "fits" in capsys.readouterr().out


@pytest.mark.usefixtures("scans")
def test_a_step_of_hu_is_planned_built_and_shown_and_3_is_none(tmp_path, capsys):
    words = ["--sources", str(tmp_path / "manifest.yaml"), "--out", str(tmp_path / "ct.zarr")]
    needed = []
    for step in "14":
        assert main(["data", "plan", *words, "--step-hu", step, "--json"]) == 0
        needed.append(json.loads(capsys.readouterr().out)["bytes"])
    assert needed[1] < needed[0]
    for command in ("plan", "build"):
        assert main(["data", command, *words, "--step-hu", "3"]) == 2
        assert "--step-hu" in capsys.readouterr().err
    assert not (tmp_path / "ct.zarr").exists()
    assert main(["data", "build", *words, "--workers", "0", "--step-hu", "4"]) == 0
    capsys.readouterr()
    for command in ("status", "stats"):
        assert main(["data", command, words[-1]]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["step_hu", "4"] in lines
