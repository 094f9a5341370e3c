"""Where the sources of a known collection lie below its root: as folders, or as archives.

A collection is shared in archives that are called as the folders in them: `X.zip`, `X.zip.001, ...`
or raw pieces `X00, X01, ...`, at the folder's place or in any folder of the root. They are looked
into, so that a source's pattern fits whether the archive holds the folder or only what is in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vocodata.archives.joined import open_parts
from vocodata.archives.parts import find_parts, first_parts, names_in
from vocodata.errors import ManifestError
from vocodata.tree import open_tree

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vocodata.source_catalog import CatalogSource
    from vocodata.tree import Tree

_ENDING = re.compile(
    r"(\.zip|\.tar(\.(gz|bz2|xz))?|\.tgz|\.tbz2|\.txz)?(\.z?\d{2,})?", re.IGNORECASE
)
_PIECE_ENDING = re.compile(r"[._-]?(part[._-]?)?(\d+|[a-z]{2,3})")
_STREAMS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_MOST_STREAM_BYTES = 1 << 30


@dataclass(frozen=True)
class Place:
    """Where a source lies.

    Attributes:
        root: Folder, archive, or an archive's first part or piece.
        images: Pattern of its scans below the root.
        labels: Template of their labels, or None.
        told: Sentences to know.
    """

    root: Path
    images: str
    labels: str | None
    told: tuple[str, ...] = ()


def find_places(rows: Iterable[CatalogSource], root: Path) -> dict[str, Place]:
    """The places of those rows that are there, by their names.

    Args:
        rows: Of the collection.
        root: What their folders lie below.

    Raises:
        RemoteError: A server refuses, or does not answer.
    """
    rows = tuple(rows)
    own = {root / row.folder for row in rows}
    shown = _shown(root)
    folders = [path for path, is_other in shown.items() if is_other and path not in own]
    files = {folder: _files(_shown(folder)) for folder in folders} | {root: _files(shown)}
    places = {}
    for row in rows:
        place = _place(row, root, files)
        if place is not None:
            places[row.name] = place
    return places


def _shown(folder: Path) -> dict[Path, bool]:
    """What lies in a folder that can be listed, and whether each is something else than a file."""
    try:
        names = names_in(folder)
    except OSError:
        return {}
    return {folder / name: is_other for name, is_other in names.items() if name[0] != "."}


def _files(shown: dict[Path, bool]) -> list[Path]:
    return [path for path, is_other in shown.items() if not is_other]


def _place(row: CatalogSource, root: Path, files: dict[Path, list[Path]]) -> Place | None:
    folder = root / row.folder
    archives = _archives(row, root, files)
    if folder.exists():
        place, others = _in_folder(row, folder), archives
    elif archives:
        (called, place), others = archives[0], archives[1:]
        place = _in_archive(place, called)
    else:
        return None
    beside = ", ".join(other.root.relative_to(root).as_posix() for _, other in others)
    also = (f"Also there, and not read: {beside}.",) if beside else ()
    return replace(place, told=(*place.told, *also))


def _archives(
    row: CatalogSource, root: Path, files: dict[Path, list[Path]]
) -> list[tuple[str, Place]]:
    """Archives called as the row's folder, or as one that holds it; not yet looked into."""
    parts = PurePosixPath(row.folder).parts
    found = []
    for depth in reversed(range(len(parts))):
        at = root.joinpath(*parts[:depth])
        inside = "".join(f"{part}/" for part in parts[depth + 1 :])
        labels = row.labels if row.labels is None else _moved(row.labels, inside)
        beside = files if depth == 0 else {at: _files(_shown(at))}
        for paths in beside.values():
            called = [path for path in paths if _is_called(path.name, parts[depth])]
            places = [Place(p, f"{inside}{row.images}", labels) for p in first_parts(called)]
            found += [(parts[depth], place) for place in places]
    return found


def _is_called(name: str, folder: str) -> bool:
    ending = name.removeprefix(folder)
    is_ending = _ENDING.fullmatch(ending) or _PIECE_ENDING.fullmatch(ending)
    return name.startswith(folder) and is_ending is not None


def _moved(labels: str, inside: str) -> str:
    """A template of labels, seen from further above; `{folder}` begins at the root anyway."""
    return labels if labels.startswith("{folder}") else f"{inside}{labels}"


def _in_folder(row: CatalogSource, folder: Path) -> Place:
    place = Place(folder, row.images, row.labels)
    try:
        is_packed = bool(find_parts(folder))
    except (ManifestError, OSError):
        # The build says what is wrong with it.
        return place
    return _in_archive(place, folder.name) if is_packed else place


def _in_archive(place: Place, called: str) -> Place:
    """The place within an archive, with patterns that fit its members.

    Args:
        place: With patterns as they are below the folder that was packed.
        called: That folder, which the archive may have at its top.
    """
    root, images, labels = place.root, place.images, place.labels
    try:
        archives = find_parts(root)
        tree = None if any(map(_takes_long, archives)) else open_tree(root.name, root)
    except (ManifestError, OSError) as error:
        return replace(place, images=_anywhere(images), told=(str(error),))
    if tree is None:
        told = "A compressed tar, too large to be looked into: see whether the patterns fit."
        return replace(place, images=images if labels else _anywhere(images), told=(told,))
    prefix, more = _prefix(tree, images, called, is_one=len(archives) == 1)
    if prefix is None:
        return replace(place, told=("An archive in which no file fits the pattern: correct it.",))
    count = sum(len(parts) for _, parts in archives)
    told = f"An archive{f' in {count} parts' * (count > 1)}, read in place."
    also = [f"{more} files in other folders of it would fit, and are not read."] if more else []
    labels = labels if labels is None else _moved(labels, prefix)
    return Place(root, f"{prefix}{images}", labels, (told, *also))


def _anywhere(images: str) -> str:
    return images if images.startswith("**/") else f"**/{images}"


def _takes_long(archive: tuple[Path, tuple[Path, ...]]) -> bool:
    """Whether it is a large compressed tar, of which a list takes reading all of it."""
    _, parts = archive
    with open_parts(parts) as file:
        is_stream = file.read(8).startswith(_STREAMS)
    return is_stream and sum(part.stat().st_size for part in parts) > _MOST_STREAM_BYTES


def _prefix(tree: Tree, images: str, called: str, *, is_one: bool) -> tuple[str | None, int]:
    """Folders of an archive, as a pattern, below which another fits, and how many fit elsewhere."""
    files = set(tree.files())
    fit = files.intersection(tree.glob(_anywhere(images)))
    if not fit:
        return None, 0
    first = min(fit, key=lambda path: (len(path.parts), path))
    folders = [re.sub(r"[*?\[\]]", "?", part) for part in first.relative_to(tree.root).parts[:-1]]
    if folders and not is_one:
        # Each archive of a folder of archives is a folder to the tree.
        folders[0] = "*"
    prefixes = ["".join(f"{folder}/" for folder in folders[:n]) for n in range(len(folders) + 1)]
    at = {prefix: files.intersection(tree.glob(f"{prefix}{images}")) for prefix in prefixes}
    own = f"{called}/"
    if at.get(own) == fit:
        return own, 0
    prefix = next(prefix for prefix in prefixes if first in at[prefix])
    return prefix, len(fit) - len(at[prefix])
