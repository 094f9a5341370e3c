"""The folder of a run: who may write it, and small files that are never half written."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vocotrain.errors import CheckpointError, RunExistsError, RunLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG_NAME = "config.yaml"
ENVIRONMENT_NAME = "environment.json"
DATA_NAME = "data.json"
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS_NAME = "checkpoints"
TENSORBOARD_NAME = "tensorboard"
LOCK_NAME = ".lock"


def check_free(out: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        RunExistsError: It is no folder, or not empty.
    """
    if out.exists() and not out.is_dir():
        msg = f"Run folder {out} is a file; expected a new or empty folder. Choose another --out."
        raise RunExistsError(msg)
    if out.is_dir() and any(item.name != LOCK_NAME for item in out.iterdir()):
        msg = (
            f"Run folder {out} is not empty; expected a new or empty folder. Go on with that run "
            f"by --resume {shlex.quote(str(out))}, or choose another --out."
        )
        raise RunExistsError(msg)


def check_is_run(out: Path) -> None:
    """Refuse to resume what is no run.

    Raises:
        CheckpointError: The folder has no config.yaml.
    """
    if not (out / CONFIG_NAME).is_file():
        msg = f"{out} has no {CONFIG_NAME}, so it is no run; expected the --out of an earlier one."
        raise CheckpointError(msg)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes from writing the run; a killed process keeps nobody out.

    Raises:
        RunLockedError: Another process writes it now.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK_NAME).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            msg = (
                f"Run folder {out} is being written by another process (id {lock.read().strip()}). "
                "Wait for it, or stop it first."
            )
            raise RunLockedError(msg) from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: under a temporary name, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # a write to a full disk does not say of which file
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_folder(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole, in a form that people can read."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def whole_lines(path: Path) -> list[str]:
    """The whole lines of a `metrics.jsonl`; a kill or a power cut leaves others, of any bytes."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if _is_metrics(line)]


def _is_metrics(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and isinstance(value.get("step"), int)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, in one rename.

    What was at `path` is replaced. A kill at any moment leaves the old folder, the new one, or
    none, but never a part of one. An error in the block removes what it wrote: disks get full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # safetensors makes its files readable by their owner alone; the folder knows the umask
    readable = temporary.stat().st_mode & 0o666
    for file in temporary.iterdir():
        file.chmod(readable)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    sync_folder(temporary)
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
