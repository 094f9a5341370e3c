"""Lists of scans that lie beside them: MONAI datalists, as `voco data init` looks for them.

A list is a JSON file directly in a folder, other than dataset.json, whose `training`, `validation`
or `test` names at least one scan that is there, by a path below the folder. A file that is none,
is damaged or is too large is passed over without a word: no scan is lost by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocodata.archives.parts import stands_for_archives
from vocodata.dataset_json import read_json
from vocodata.errors import ManifestError, RemoteError
from vocodata.layouts import find_entries
from vocodata.passed_over import passed_over
from vocodata.readers import suffix_of

if TYPE_CHECKING:
    from pathlib import Path

    from vocodata.layouts import Entry
    from vocodata.manifest import Source
    from vocodata.tree import Tree

_MOST_LISTS, _MOST_BYTES = 64, 1 << 25
_MOST_TOLD = 5
_SECTIONS = ("training", "validation", "test")


@dataclass(frozen=True)
class ScanList:
    """A list of scans.

    Attributes:
        path: JSON file.
        entries: What it names under `training` and `validation`.
        there: How many of those are there.
        tests: What it names under `test`, which is not read.
        fault: Why it is not read at all, or "".
    """

    path: Path
    entries: tuple[Entry, ...]
    there: int
    tests: tuple[Path, ...]
    fault: str


def find_lists(source: Source, tree: Tree) -> list[ScanList]:
    """The lists in a folder; first that which names most scans that are there.

    Args:
        source: Of the folder, its layout does not matter.
        tree: Of the folder; an archive is not looked into.
    """
    if stands_for_archives(source.root):
        return []
    scans = {path.name[: -len(suffix_of(path) or "")] for path in tree.glob("*") if suffix_of(path)}
    texts = sorted(path for path in tree.glob("*.json") if not path.name.startswith("."))
    # A text for each scan, as converters of DICOM write it, is no list.
    own = [path for path in texts if path.stem not in scans and path.name != "dataset.json"]
    found = [_read(source, path, tree) for path in own[:_MOST_LISTS]]
    lists = [one for one in found if one is not None]
    return sorted(lists, key=lambda one: (bool(one.fault), -one.there, one.path))


def _read(source: Source, path: Path, tree: Tree) -> ScanList | None:
    """The list in a file, or None if it is none."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        about = read_json(source, path, tree, needed=True)
    except (ManifestError, RemoteError, OSError):
        return None
    named = {section: _named(source, about, section) for section in _SECTIONS}
    if not any(tree.exists(image) for images in named.values() for image in images):
        return None
    if not (named["training"] or named["validation"]):
        fault = f"{path.name} has scans under test only, which are not read."
        return ScanList(path, (), 0, named["test"], fault)
    try:
        entries = find_entries(
            source.model_copy(update={"layout": "datalist", "scans": path}), tree
        )
    except ManifestError as error:
        return ScanList(path, (), 0, named["test"], error.detail)
    there = sum(tree.exists(entry.image) for entry in entries)
    return ScanList(path, tuple(entries), there, named["test"], "")


def _named(source: Source, about: dict[str, Any], section: str) -> tuple[Path, ...]:
    """Images under a key, as far as they are plain paths."""
    items = about.get(section)
    images = [
        item.get("image") if isinstance(item, dict) else item
        for item in (items if isinstance(items, list) else [])
    ]
    return tuple(source.root / image for image in images if isinstance(image, str) and image)


def list_doubts(source: Source, tree: Tree, chosen: ScanList) -> list[str]:
    """A sentence for each thing that a list leaves out."""
    away = [entry.image for entry in chosen.entries if not tree.exists(entry.image)]
    rest = _not_named(source, tree, chosen)

    def first(path: Path) -> str:
        # Folders of DICOM may be called after patients, and the sentence stands in a manifest.
        is_hidden = source.hides_names(of_dicom=suffix_of(path) is None)
        return "" if is_hidden else f", the first {_below(path, source.root)}"

    doubts = []
    if away:
        doubts.append(f"Not there: {len(away)} of the list's scans{first(away[0])}.")
    if chosen.tests:
        doubts.append(f"Not read: its list test, of {len(chosen.tests)} scans.")
    if rest:
        doubts.append(
            f"Not on the list, so not read: {len(rest)} of the files and DICOM folders that may "
            f"hold scans or labels{first(rest[0])}."
        )
    return doubts


def other_lists(lists: list[ScanList]) -> list[str]:
    """A sentence for lists that are not read, if there are any."""
    names = [one.path.name for one in lists]
    told = ", ".join([*names[:_MOST_TOLD], *["..."] * (len(names) > _MOST_TOLD)])
    return [f"Other lists of its scans, not read: {told}."] if names else []


def _not_named(source: Source, tree: Tree, chosen: ScanList) -> list[Path]:
    tests = {*chosen.tests}
    listed = source.model_copy(update={"layout": "datalist", "scans": chosen.path})
    files = passed_over(listed, tree, chosen.entries)
    series = find_entries(source.model_copy(update={"layout": "dicom"}), tree)
    folders = {entry.image for entry in series} - {entry.image for entry in chosen.entries}
    return sorted({*files, *folders} - tests)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
