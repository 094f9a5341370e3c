"""Files below a root that may hold scans and that its layout does not read: told, not lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocodata.archives.parts import find_pieces, is_archive_name, stands_for_archives
from vocodata.errors import ManifestError
from vocodata.readers import is_file_name, suffix_of
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from vocodata.layouts import Entry
    from vocodata.manifest import Source
    from vocodata.tree import Tree

_MAYBE_SCANS = (".7z", ".7z.001", ".rar", ".hdr", ".nii.bz2", ".nii.xz", ".nii.zst", ".mgz")
_TAKES_ALL_FILES = {"auto", "bids", "datalist"}
"""Layouts beside which a scan file that is not read is worth a word."""


def over_words(source: Source, tree: Tree, entries: Sequence[Entry]) -> str:
    """A sentence of what is passed over, or ""; names are hidden where the source hides them.

    Arguments as of `passed_over`.

    Raises:
        RemoteError: A server refuses, or does not answer.
    """
    try:
        over = passed_over(source, tree, entries)
    except ManifestError as error:
        # A folder that cannot be listed: the layout did not need to look into it.
        return error.detail
    if not over:
        return ""
    endings = ", ".join(sorted({_ending(path) for path in over}))
    is_told = not source.hides_names(of_dicom=any(entry.is_dicom for entry in entries))
    first = f" ({over[0].relative_to(source.root)})" if is_told else ""
    return (
        f"Source '{source.name}' passes over {len(over)} file{'s' * (len(over) != 1)} that may "
        f"hold scans: {endings}{first}. Give them a source of their own, or convert what is "
        "not read to .nii.gz."
    )


def passed_over(source: Source, tree: Tree, entries: Iterable[Entry]) -> list[Path]:
    """Archives and other files that may hold scans, in order.

    Nothing for layout glob, where the user said what to take, and where a server has no list.

    Args:
        source: Whose layout it is.
        tree: Of its root.
        entries: What the layout reads.

    Raises:
        ManifestError: A folder that cannot be listed.
        RemoteError: A server refuses, or does not answer.
    """
    if source.layout == "glob" or _has_no_list(source.root):
        return []
    taken = {path for entry in entries for path in (entry.image, entry.labels)}
    rest = [path for path in tree.files() if path not in taken]
    over = {path for path in rest if _may_hold_scans(path, source.layout)}
    return sorted(over | _pieces(source, tree, [path for path in rest if path not in over]))


def _has_no_list(root: Path) -> bool:
    """Whether it is a folder of a web server, which names no files."""
    return isinstance(root, RemotePath) and root.scheme != "s3" and not stands_for_archives(root)


def _may_hold_scans(path: Path, layout: str) -> bool:
    if is_file_name(path):
        return layout in _TAKES_ALL_FILES
    return is_archive_name(path.name) or path.name.lower().endswith(_MAYBE_SCANS)


def _pieces(source: Source, tree: Tree, files: list[Path]) -> set[Path]:
    """Of files, raw pieces of archives; not of those within an archive."""
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    if not files or stands_for_archives(source.root):
        return set()
    return {
        piece
        for beside in folders.values()
        for pieces in find_pieces(beside, may_be=lambda first: tree.mark_of(first) is None)
        for piece in pieces
    }


def _ending(path: Path) -> str:
    if not is_archive_name(path.name) and not path.name.lower().endswith(_MAYBE_SCANS):
        return suffix_of(path) or "pieces of an archive"
    return "".join(path.suffixes[-2:]) if path.suffix[1:].isdigit() else path.suffix
