"""DICOM series below a root: which files make one scan, also where they lie in several folders.

What a folder holds of a series is a scan, unless other folders hold slices of that series, too:

- other slices: all of them make one scan (halves, alternate slices, a folder for each slice)
- the same slices: copies, each a scan of its own; the search for duplicates finds them later
- partly the same: a folder that has all of them stands; the others are scans that say why they
  cannot be put together, for which slices belong together would be a guess

Slices are the same if their positions are. A series is of one study of one patient: slices that
are of others are of another series. Scouts, and what has no position (objects with many frames,
pictures of a screen), go with no other folder's slices.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vocodata.identifiers import without_uids
from vocodata.readers import is_file_name
from vocodata.readers.dicom_signs import named_alike

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vocodata.manifest import Source
    from vocodata.tree import Tree

_log = logging.getLogger(__name__)
_FOLDERS_TOLD = 4


@dataclass(frozen=True)
class Series:
    """The files of one scan.

    Attributes:
        folder: Where they lie, or what the folders have in common that they lie in.
        files: Their paths below it; () if they are all DICOM images in it.
        uid: SeriesInstanceUID, where the folder does not say which series it is.
        fault: Why they make no scan, or "".
    """

    folder: Path
    files: tuple[str, ...] = ()
    uid: str = ""
    fault: str = ""


@dataclass
class _Held:
    """What a folder holds of a series: file names, and the numbers of their `SliceMark`s."""

    names: list[str] = field(default_factory=list)
    owners: set[int] = field(default_factory=set)
    places: set[int] = field(default_factory=set)


class _Scattered(NamedTuple):
    """A series that lies in several folders."""

    uid: str
    folders: list[Path]


_Folders = dict[Path, dict[str, _Held]]


def find_series(source: Source, tree: Tree) -> list[Series]:
    """Every series below a root; a file whose series cannot be told belongs to all beside it.

    Args:
        source: Its name, and whether names may be told.
        tree: What lies below its root.
    """
    held = _held(tree)
    scattered = list(_scattered(held))
    joined: list[_Scattered] = []
    faults: dict[tuple[Path, str], str] = {}
    copies = 0
    for one in scattered:
        fault = _fault(source, tree, held, one)
        if not fault:
            joined.append(one)
            continue
        slices = _slices(held, one)
        parts = [at for at in one.folders if held[at][one.uid].places != slices]
        faults |= {(folder, one.uid): fault for folder in parts}
        copies += not parts
    _tell(source, scattered, joined=len(joined), copies=copies)
    taken = {(folder, one.uid) for one in joined for folder in one.folders}
    return [*_joined(tree, held, joined), *_own(held, taken, faults)]


def _held(tree: Tree) -> _Folders:
    """What each folder holds of each series; each file's first bytes are read once."""
    held: _Folders = {}
    for path in tree.files():
        mark = None if is_file_name(path) else tree.mark_of(path)
        if mark is not None:
            part = held.setdefault(path.parent, {}).setdefault(mark.series, _Held())
            part.names.append(path.name)
            part.owners.add(mark.owner)
            part.places |= {mark.place} - {0}
    return held


def _scattered(held: _Folders) -> Iterator[_Scattered]:
    """Series that lie in several folders; what shares no owner is no one series."""
    groups: dict[tuple[str, int], list[Path]] = {}
    for folder, of in held.items():
        for uid in sorted(of.keys() - {""}):
            keys = [(uid, owner) for owner in of[uid].owners]
            met = {id(groups[key]): groups[key] for key in keys if key in groups}
            first, *others = [*met.values()] or [[]]
            first += [folder, *(path for other in others for path in other)]
            for key, group in groups.items() if others else ():
                if any(group is other for other in others):
                    keys.append(key)
            groups |= dict.fromkeys(keys, first)
    once = {id(folders): (uid, folders) for (uid, _), folders in groups.items()}
    for uid, folders in once.values():
        if len(folders) > 1:
            yield _Scattered(uid, sorted(folders))


def _slices(held: _Folders, one: _Scattered) -> set[int]:
    """Places of all slices of a series."""
    return set[int]().union(*(held[folder][one.uid].places for folder in one.folders))


def _fault(source: Source, tree: Tree, held: _Folders, one: _Scattered) -> str:
    """Why folders do not add up to one scan, or ""; copies do not, and may be scans themselves."""
    parts = [held[folder][one.uid] for folder in one.folders]
    names = (folder / part.names[0] for folder, part in zip(one.folders, parts, strict=True))
    where = f"Slices of its series lie in {_told(source, one.folders)}"
    if sum(len(part.places) for part in parts) > len(_slices(held, one)):
        return (
            f"{where}: some are the same, others are not; expected parts that add up, or whole "
            "copies. Put the slices into one folder, take copies away, or give each scan a "
            "SeriesInstanceUID of its own."
        )
    if not tree.are_together(names):
        return f"{where}, in more than one archive; expected one. Unpack them into one folder."
    return ""


def _told(source: Source, folders: Sequence[Path]) -> str:
    """Folders, as far as their names may be told."""
    if source.hides_names(of_dicom=True):
        return f"{len(folders)} folders"
    names = [folder.relative_to(source.root).as_posix() for folder in folders[:_FOLDERS_TOLD]]
    more = len(folders) - len(names)
    return without_uids(", ".join(names)) + (f" and {more} more" if more else "")


def _joined(tree: Tree, held: _Folders, joined: Iterable[_Scattered]) -> Iterator[Series]:
    """Series whose folders add up to a scan."""
    joined = list(joined)
    files = _files(tree, held, {folder for one in joined for folder in one.folders})
    for uid, folders in joined:
        first = folders[0]
        around = next(
            place
            for place in (first, *first.parents)
            if all(folder.is_relative_to(place) for folder in folders)
        )
        paths = (
            folder / name
            for folder in folders
            for name in (*held[folder][uid].names, *files[folder])
        )
        names = sorted(path.relative_to(around).as_posix() for path in paths)
        yield Series(around, tuple(names), uid)


def _files(tree: Tree, held: _Folders, folders: set[Path]) -> dict[Path, list[str]]:
    """Files of folders that may belong to any series there: see `dicom_files` for the second kind.

    They are damaged, or are named as DICOM images beside them and are none: slices that never
    arrived.
    """
    names = {
        folder: [n for part in held[folder].values() for n in part.names] for folder in folders
    }
    others: dict[Path, set[str]] = {folder: set() for folder in folders}
    for path in tree.files() if folders else []:
        if path.parent in folders and not is_file_name(path):
            others[path.parent].add(path.name)
    return {
        folder: [
            *(held[folder][""].names if "" in held[folder] else []),
            *named_alike(others[folder] - set(names[folder]), names[folder]),
        ]
        for folder in folders
    }


def _own(
    held: _Folders, taken: set[tuple[Path, str]], faults: dict[tuple[Path, str], str]
) -> Iterator[Series]:
    """What each folder holds by itself."""
    for folder, of in sorted(held.items()):
        unknown = of[""].names if "" in of else []
        told = {uid: part for uid, part in of.items() if uid}
        if not told:
            yield Series(folder)
        for uid, part in told.items():
            if (folder, uid) not in taken:
                fault = faults.get((folder, uid), "")
                files = tuple(sorted(part.names + unknown)) if len(told) > 1 else ()
                yield Series(folder, files, uid if files else "", fault)


def _tell(source: Source, scattered: list[_Scattered], *, joined: int, copies: int) -> None:
    """Warn of series whose slices, or copies, lie in several folders."""
    if not scattered:
        return
    counts = {
        "put together to one scan each": joined,
        "in whole copies, each a scan of its own": copies,
        "neither, so that parts are left out": len(scattered) - joined - copies,
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    first = _told(source, scattered[0].folders)
    where = "" if source.hides_names(of_dicom=True) else f", the first in {first}"
    _log.warning(
        f"Source '{source.name}': slices of {len(scattered)} DICOM series lie in more than one "
        f"folder{where}: {told}."
    )
