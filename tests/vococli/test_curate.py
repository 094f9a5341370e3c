import json

from tests.vocodata.conftest import write_sources
from vococli.main import main
from vocodata.building import build


def twice(folder):
    """A store of two sources whose first scans are the same."""
    write_sources(folder, 2, size=(60, 50, 40))
    manifest = write_sources(folder, 1, name="again", size=(60, 50, 40))
    build(manifest, folder / "ct.zarr", workers=0)
    return folder / "ct.zarr"


def test_the_curation_commands_from_store_to_list(tmp_path, capsys):
    store, listed = str(twice(tmp_path)), tmp_path / "list.txt"
    words = ["--keep", "first", "--exclude", str(listed), "--json"]
    assert main(["data", "dedup", store, *words]) == 0
    clusters = json.loads(capsys.readouterr().out)["clusters"]
    assert {"kind": "exact", "scans": ["again/case0", "btcv/case0"]} in clusters
    assert "btcv/case0\n" in listed.read_text()

    assert main(["data", "leak-check", store, "--against", store, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["scans"]) == 3

    assert main(["data", "stats", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 3

    assert main(["data", "report", store, "-o", str(tmp_path / "page.html")]) == 0
    assert "again/case0" in (tmp_path / "page.html").read_text()


def test_keeping_one_needs_a_place_for_the_list(tmp_path, capsys):
    assert main(["data", "dedup", str(tmp_path), "--keep", "first"]) == 2
    assert "--keep and --exclude go together" in capsys.readouterr().err
