"""The tree of one or more archives: their members as files below a root."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vocodata.archives.members import Archive, Member, Packed
from vocodata.archives.unpack import read_head
from vocodata.errors import ManifestError, UnreadableScanError
from vocodata.readers import is_file_name, slice_mark
from vocodata.readers.dicom_signs import SliceMark
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT_LIMIT_BYTES = 1 << 28
_HEAD_BYTES = 1 << 16
_MAYBE_DICOM = {"", ".dcm", ".dicom", ".ima"}
_HAS_TWO_FILES = {".mhd", ".nhdr"}


class ArchiveTree:
    """The members of one or more archives."""

    def __init__(self, root: Path, archives: Iterable[tuple[Archive, list[Member]]]) -> None:
        """Take the lists; no member is read yet."""
        self.root = root
        self._members = {
            archive.path / member.path: (archive, member)
            for archive, members in archives
            for member in members
        }
        skip = len(root.as_posix()) + 1
        self._names = {path: path.as_posix()[skip:] for path in self._members}
        self._files: list[Path] | None = None
        self._below: dict[Path, list[Path]] = {}
        for path in self._members:
            self._below.setdefault(path.parent, []).append(path)
        self._folders = {
            parent
            for folder in self._below
            for parent in (folder, *folder.parents)
            if parent.is_relative_to(root)
        }

    def files(self) -> list[Path]:
        """See `Tree`."""
        if self._files is not None:
            return self._files
        found = set()
        for path, name in self._names.items():
            parts = name.split("/")
            if any(map(is_hidden, parts)) or parts[0] == "__MACOSX":
                continue
            names = (n for n, part in enumerate(parts[:-1]) if _is_folder_with_file_name(part))
            depth = next(names, None)
            found.add(path if depth is None else self.root.joinpath(*parts[: depth + 1]))
        self._files = sorted(found)
        return self._files

    def glob(self, pattern: str) -> list[Path]:
        """See `Tree`."""
        expression = re.compile(pattern_expression(pattern))
        found = [path for path, name in self._names.items() if expression.fullmatch(name)]
        return found + [p for p in self._folders if expression.fullmatch(_below(p, self.root))]

    def exists(self, path: Path) -> bool:
        """See `Tree`."""
        path = self.plain(path)
        return path in self._members or path in self._folders

    def is_dir(self, path: Path) -> bool:
        """See `Tree`."""
        return self.plain(path) in self._folders

    def read_text(self, path: Path) -> str:
        """See `Tree`."""
        if self.plain(path) not in self._members:
            raise FileNotFoundError(path)
        archive, member = self._members[self.plain(path)]
        try:
            return read_head(archive, member, _TEXT_LIMIT_BYTES).decode("utf-8")
        except UnreadableScanError as error:
            raise ValueError(error.detail) from error

    def mark_of(self, path: Path) -> SliceMark | None:
        """See `Tree`."""
        if path.name.upper() == "DICOMDIR" or path not in self._members:
            return None
        archive, member = self._members[path]
        if not member.fault and archive.kind == "tar-stream":
            return member.mark
        try:
            return slice_mark(read_head(archive, member, _HEAD_BYTES), path.name)
        except UnreadableScanError:
            return SliceMark("") if may_be_dicom(path) else None

    def are_together(self, paths: Iterable[Path]) -> bool:
        """See `Tree`."""
        return len({self._members[path][0].path for path in paths}) == 1

    def look_up(self, paths: Iterable[Path]) -> None:
        """See `Tree`."""

    def packed(self, image: Path, files: tuple[str, ...], labels: Path | None) -> Packed | None:
        """See `Tree`."""
        found = self._of(self.plain(image), files)
        seg = [] if labels is None else self._of(self.plain(labels), ())
        archives = list({archive for archive, _ in (*found, *seg)})
        if len(archives) > 1:
            msg = f"{image} and {labels} lie in two archives; expected one. Unpack the labels."
            raise ManifestError(msg)
        archive = archives[0] if archives else next(iter(self._members.values()))[0]
        return Packed(archive, tuple(m for _, m in found), tuple(m for _, m in seg))

    @staticmethod
    def plain(path: Path) -> Path:
        """The path without `.` and `..`."""
        return path.plain() if isinstance(path, RemotePath) else Path(os.path.normpath(path))

    def _of(self, path: Path, files: tuple[str, ...]) -> list[tuple[Archive, Member]]:
        """The member at a path and those that belong to it, or those in or below a folder."""
        if path in self._members:
            return [self._members[path], *self._detached(path)]
        inside = [path / name for name in files] or sorted(self._below.get(path, []))
        return [self._members[p] for p in inside]

    def _detached(self, header: Path) -> list[tuple[Archive, Member]]:
        if header.suffix.lower() not in _HAS_TWO_FILES:
            return []
        # `a.raw`, and `a.raw.gz`
        stem = f"{header.stem}."
        beside = (p for p in sorted(self._below[header.parent]) if p.name.startswith(stem))
        return [self._members[path] for path in beside if path != header]


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden file."""
    return name.startswith(".")


@cache
def _is_folder_with_file_name(name: str) -> bool:
    return is_file_name(Path(name))


def may_be_dicom(path: Path) -> bool:
    """Whether a name might be that of a DICOM file."""
    return path.suffix.lower() in _MAYBE_DICOM or path.suffix[1:].isdigit()


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def pattern_expression(pattern: str) -> str:
    """A glob pattern as a regular expression over a relative path.

    >>> bool(re.fullmatch(pattern_expression("**/*_ct.nii.gz"), "a/b/1_ct.nii.gz"))
    True
    >>> bool(re.fullmatch(pattern_expression("*/ct.nii.gz"), "a/b/ct.nii.gz"))
    False
    """
    parts = []
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            parts.append("(?:[^/]+/)*")
            continue
        words = {"*": "[^/]*", "?": "[^/]"}
        pieces = re.split(r"(\*|\?|\[[^\]]+\])", part)
        text = "".join(
            words.get(p) or (p.replace("[!", "[^") if p.startswith("[") else re.escape(p))
            for p in pieces
        )
        parts.append(f"{text}/")
    expression = "".join(parts)
    return expression.removesuffix("/") if expression.endswith("/") else f"{expression}[^/]*"
