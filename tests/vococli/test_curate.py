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
    told = capsys.readouterr()
    assert "compare 2/2" in told.err
    clusters = json.loads(told.out)["clusters"]
    assert {"kind": "exact", "scans": ["again/case0", "btcv/case0"]} in clusters
    assert "btcv/case0\n" in listed.read_text()

    assert main(["data", "leak-check", store, "--against", store, "--json"]) == 0
    told = capsys.readouterr()
    assert "compare " in told.err
    assert len(json.loads(told.out)["scans"]) == 3

    assert main(["data", "stats", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 3

    assert main(["data", "report", store, "-o", str(tmp_path / "page.html")]) == 0
    assert "again/case0" in (tmp_path / "page.html").read_text()
    assert main(["data", "report", store, "-o", f"{tmp_path}/pages/"]) == 0
    assert (tmp_path / "pages" / "report.html").is_file()


def test_keeping_one_needs_a_place_for_the_list(tmp_path, capsys):
    assert main(["data", "dedup", str(tmp_path), "--keep", "first"]) == 2
    assert "--keep and --exclude go together" in capsys.readouterr().err


def test_a_list_is_written_into_a_new_folder_and_refused_where_it_cannot_be(tmp_path, capsys):
    store = str(twice(tmp_path))
    words = ["data", "dedup", store, "--keep", "first", "--exclude"]
    assert main([*words, str(tmp_path / "new" / "list.txt")]) == 0
    assert "btcv/case0\n" in (tmp_path / "new" / "list.txt").read_text()
    assert main([*words, "s3://bucket/list.txt"]) == 2
    assert "is on a server; expected a file" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "new")]) == 4
    assert "new cannot be written: Is a directory." in capsys.readouterr().err


def test_leaks_of_tasks_are_counted_and_the_list_feeds_training(tmp_path, capsys):
    store, listed = str(twice(tmp_path)), tmp_path / "leaks.txt"
    images = tmp_path / "tasks" / "BTCV" / "imagesTs"
    images.mkdir(parents=True)
    scan = tmp_path / "sources/btcv/images/case1.nii.gz"
    (images / "x.nii.gz").write_bytes(scan.read_bytes())
    words = ["data", "leak-check", store, "--against", "tasks", "--root", str(tmp_path / "tasks")]
    assert main([*words, "--exclude", str(listed), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    # The small phantoms are boxes, alike enough to be near duplicates of one another.
    assert {"kind": "exact", "scan": "btcv/case1"}.items() <= document["leaks"][-1].items()
    assert document["tasks"] == [{"task": "btcv", "split": "imagesTs", "scans": 1, "leaked": 1}]
    assert {"# checked = 1", "# leaked = 1", "btcv/case1"} <= set(listed.read_text().splitlines())
    assert main(words) == 0
    assert "btcv  imagesTs  1      1" in capsys.readouterr().out


def test_a_missing_list_of_scans_ends_training_with_2(tmp_path, capsys):
    words = ["--size", "tiny", "--data", str(twice(tmp_path)), "--out", str(tmp_path / "run")]
    assert main(["train", "pretrain", *words, "--set", f"data.exclude=[{tmp_path}/none.txt]"]) == 2
    assert "none.txt, cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tasks_need_a_root_and_nothing_else_does(tmp_path, capsys):
    for words in (["--against", "tasks"], ["--against", "x", "--root", "y"]):
        assert main(["data", "leak-check", str(tmp_path), *words]) == 2
        assert "--against tasks and --root go together" in capsys.readouterr().err
