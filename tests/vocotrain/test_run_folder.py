import errno
import os
import subprocess
import sys

import pytest

from vocotrain.errors import CheckpointError, RunExistsError, RunLockedError
from vocotrain.run_folder import check_free, check_is_run, locked, whole_folder, write_json

HOLD = """
import sys, time
from pathlib import Path
from vocotrain.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_new_and_empty_folders_are_free(tmp_path):
    check_free(tmp_path / "new")
    check_free(tmp_path)
    with locked(tmp_path):
        pass
    check_free(tmp_path)  # a lock alone is nothing


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunExistsError, match=r"run is a file; expected a new or empty folder"):
        check_free(tmp_path / "run")


def test_a_folder_without_settings_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no config\.yaml, so it is no run"):
        check_is_run(tmp_path)


def test_a_full_disk_is_told_with_the_file_and_leaves_none(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vocotrain.run_folder.os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*data\.json'"):
        write_json(tmp_path / "data.json", {})
    assert not list(tmp_path.iterdir())


def test_a_killed_process_keeps_nobody_out(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=rf"\(id {holder.pid}\)"), locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "step"
    with pytest.raises(FileNotFoundError), whole_folder(path) as folder:
        (folder / "none" / "half").write_text("1")
    assert not path.exists()
    with whole_folder(path) as folder:
        assert not list(folder.iterdir())
        (folder / "all").write_text("2")
        (folder / "all").chmod(0o600)
    assert [item.name for item in path.iterdir()] == ["all"]
    assert (path / "all").stat().st_mode & 0o666 == path.stat().st_mode & 0o666


def test_json_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    write_json(tmp_path / "a.json", {"x": "é"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "x": "é"\n}\n'
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
