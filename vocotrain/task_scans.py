"""The scans that downstream tasks are tested on, as they lie on disk: what must not be trained on.

Below a root each task has a folder named like its row of catalog/tasks.yaml, or like the source
that the row names. Which of its scans are for testing is said by the folder itself: those in
`imagesTs`, and those that a JSON list there has under `test`, `testing` or `validation` (the
authors report the score of their validation split). Where nothing says so, all are taken: a scan
too many is named, not one too few.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocodata.discover import Scan, find_scans
from vocodata.errors import ManifestError
from vocodata.leaks import TEST_FOLDER, LeakReport, find_leaks
from vocodata.manifest import Manifest, Source
from vocodata.readers import is_file_name, suffix_of
from vocotrain.errors import ConfigError
from vocotrain.tasks import load_tasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vocodata.similarity import OnProgress
    from vocotrain.tasks import Task

TEST_LISTS = ("test", "testing", "validation")
_LABEL_FOLDERS = ("label", "mask", "seg")
_PRESET = "abdomen"
"""Scans are read at their own spacing here; a scan has to name some preset."""


@dataclass(frozen=True)
class TaskScans:
    """The test scans of one task.

    Attributes:
        task: Name of the row.
        split: What said that these are the test scans.
        scans: Their ids start with the task's name.
    """

    task: str
    split: str
    scans: tuple[Scan, ...]


@dataclass(frozen=True)
class TaskLeaks:
    """What of the tasks' test scans is in a store.

    Attributes:
        tasks: The tasks that have a folder.
        report: Of all their scans together.
    """

    tasks: tuple[TaskScans, ...]
    report: LeakReport

    def leaked(self, task: str) -> tuple[str, ...]:
        """Test scans of one task that are in the store."""
        return tuple(scan for scan in self.report.leaked if scan.startswith(f"{task}/"))


def find_task_leaks(
    store: str | Path, root: Path, *, on_progress: OnProgress | None = None
) -> TaskLeaks:
    """Which scans that downstream tasks are tested on are in a store.

    Args:
        store: Folder of the store.
        root: As for `find_test_scans`.
        on_progress: As for `find_leaks`.

    Raises:
        ConfigError: As `find_test_scans`.
        StoreError: Not a store of this version.
    """
    tasks = find_test_scans(root)
    every = [scan for task in tasks for scan in task.scans]
    return TaskLeaks(tuple(tasks), find_leaks(store, every, on_progress=on_progress))


def find_test_scans(root: Path, tasks: Iterable[Task] | None = None) -> list[TaskScans]:
    """The test scans of every task that has a folder below a root.

    Args:
        root: Where the downstream data lie, one folder a task.
        tasks: Rows to look for; all of the table if None.

    Raises:
        ConfigError: No folder is named like a task, a task's folder holds no scan, or a list of
            scans cannot be read.
    """
    if not root.is_dir():
        msg = f"{root} is no folder; expected the one that holds the tasks' folders. Correct it."
        raise ConfigError(msg)
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    found = []
    for task in load_tasks().values() if tasks is None else tasks:
        folder = folders.get(task.name.lower()) or folders.get(task.source.lower())
        if folder is not None:
            found.append(_of_folder(task.name, folder))
    if not found:
        msg = (
            f"No folder in {root} is named like a task; expected some such as "
            f"{', '.join(list(load_tasks())[2:5])} (rows of catalog/tasks.yaml, or their source)."
        )
        raise ConfigError(msg)
    return found


def _of_folder(task: str, folder: Path) -> TaskScans:
    ways: list[str] = []
    scans: dict[Path, Scan] = {}
    if (folder / TEST_FOLDER).is_dir():
        ways.append(TEST_FOLDER)
        scans |= {scan.image: scan for scan in _all(task, folder / TEST_FOLDER)}
    for name, image in _listed(folder):
        ways.append(name)
        scans.setdefault(image, _scan(task, folder, image))
    if not scans:
        ways, scans = ["all scans, as no split is given"], {s.image: s for s in _all(task, folder)}
    if not scans:
        msg = f"{folder} (task '{task}') holds no scan; expected its test scans. Move it away."
        raise ConfigError(msg)
    return TaskScans(task, ", ".join(dict.fromkeys(ways)), tuple(scans.values()))


def _all(task: str, folder: Path) -> list[Scan]:
    """Every scan below a folder, under the task's name."""
    source = Source(name=task, root=folder.resolve(), preset=_PRESET, names="path")
    try:
        return find_scans(Manifest(version=1, sources=(source,)))
    except ManifestError:
        # Layouts that cannot be told: every file that is not in a folder of labels.
        files = [path for path in sorted(folder.resolve().rglob("*")) if is_file_name(path)]
        return [
            _scan(task, folder, path)
            for path in files
            if not path.parent.name.lower().startswith(_LABEL_FOLDERS)
        ]


def _listed(folder: Path) -> Iterator[tuple[str, Path]]:
    """Scans that the folder's JSON lists have for testing, and which list it is."""
    for path in sorted(folder.glob("*.json")):
        try:
            # Windows puts a mark before a text.
            document: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read as a list of scans ({error}). Repair it, or move it away."
            raise ConfigError(msg) from error
        for key in TEST_LISTS:
            entries = document.get(key) if isinstance(document, dict) else None
            for entry in entries if isinstance(entries, list) else ():
                image = entry.get("image") if isinstance(entry, dict) else entry
                if isinstance(image, str):
                    yield f"{path.name}: {key}", _file_of((folder / image).resolve())


def _file_of(image: Path) -> Path:
    """The file that a list means: nnU-Net's lists leave out the `_0000` of its files' names."""
    suffix = suffix_of(image) or ""
    numbered = image.with_name(f"{image.name.removesuffix(suffix)}_0000{suffix}")
    return numbered if suffix and not image.exists() and numbered.exists() else image


def _scan(task: str, folder: Path, image: Path) -> Scan:
    inside = image.is_relative_to(folder.resolve())
    words = image.relative_to(folder.resolve()).as_posix() if inside else image.name
    name = words.replace("/", "_")
    return Scan(f"{task}/{name}", task, name, image, None, None, _PRESET)
