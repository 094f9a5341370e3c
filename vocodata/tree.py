"""What lies below a source's root, whether that is a folder or an archive: one view of both.

Paths are whole paths, `root/images/a.nii.gz`; in an archive, `root.zip/images/a.nii.gz`, which no
file system knows.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from vocodata.archives import Archive, Member, Packed, list_archives
from vocodata.archives.unpack import read_head
from vocodata.errors import ManifestError, RemoteError, UnreadableScanError
from vocodata.readers import dicom_series, is_file_name
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterable

_TEXT_LIMIT_BYTES = 1 << 28
_HEAD_BYTES = 1 << 16
_MAYBE_DICOM = {"", ".dcm", ".dicom", ".ima"}
_HAS_TWO_FILES = {".mhd", ".nhdr"}


class Tree(Protocol):
    """Files below a root."""

    root: Path

    def files(self) -> list[Path]:
        """Files in order, hidden ones left out; a folder with a scan's name counts as a file."""
        ...

    def glob(self, pattern: str) -> list[Path]:
        """Files and folders that fit, as `Path.glob` has it."""
        ...

    def exists(self, path: Path) -> bool:
        """Whether a file or folder is there."""
        ...

    def is_dir(self, path: Path) -> bool:
        """Whether it is a folder."""
        ...

    def read_text(self, path: Path) -> str:
        """A small text file."""
        ...

    def series_of(self, path: Path) -> str | None:
        """DICOM series of a file: its UID, "" if it cannot be told, None if it is no image."""
        ...

    def look_up(self, paths: Iterable[Path]) -> None:
        """Be told which files will be asked for."""
        ...

    def packed(self, image: Path, files: tuple[str, ...], labels: Path | None) -> Packed | None:
        """The members that a scan is made of, or None where there is no archive."""
        ...


def open_tree(name: str, root: Path) -> Tree:
    """The tree below the root of source `name`.

    Raises:
        ManifestError: The root is not there, or an archive that cannot be listed.
        RemoteError: Its server refuses, or does not answer.
    """
    try:
        return _opened(name, root)
    except RemoteError as error:
        where = f"Source '{name}'"
        raise error.named(where) from error


def _remote_tree(name: str, root: RemotePath) -> Tree:
    from vocodata.remote.tree import remote_tree

    return remote_tree(name, root, series_of=dicom_series)


def _opened(name: str, root: Path) -> Tree:
    try:
        archives = list_archives(root, series_of=dicom_series)
    except ManifestError as error:
        where = f"Source '{name}'"
        raise error.named(where) from error
    except OSError as error:
        msg = f"Source '{name}': root {root} cannot be read ({error.strerror or error})."
        raise ManifestError(msg) from error
    if archives:
        return ArchiveTree(root, archives)
    if isinstance(root, RemotePath) and (root.scheme != "s3" or root.is_dir()):
        return _remote_tree(name, root)
    if root.is_dir():
        return FolderTree(root)
    msg = (
        f"Source '{name}': root {root} is not a folder or archive that is there. "
        "Correct root; it is relative to the manifest's folder."
    )
    raise ManifestError(msg)


class FolderTree:
    """A folder on disk."""

    def __init__(self, root: Path) -> None:
        """Nothing is read yet."""
        self.root = root

    def files(self) -> list[Path]:
        """See `Tree`."""
        found: list[Path] = []
        for folder, names, files in os.walk(self.root, onerror=_refuse_closed):
            at = Path(folder)
            found.extend(at / name for name in files if not _is_hidden(name))
            found.extend(at / name for name in names if is_file_name(at / name))
            names[:] = sorted(n for n in names if not _is_hidden(n) and not is_file_name(at / n))
        return sorted(found)

    def glob(self, pattern: str) -> list[Path]:
        """See `Tree`."""
        if "**" in pattern:
            for _ in os.walk(self.root, onerror=_refuse_closed):
                pass
        return list(self.root.glob(pattern))

    def exists(self, path: Path) -> bool:
        """See `Tree`."""
        return path.exists()

    def is_dir(self, path: Path) -> bool:
        """See `Tree`."""
        return path.is_dir()

    def read_text(self, path: Path) -> str:
        """See `Tree`."""
        return path.read_text(encoding="utf-8")

    def series_of(self, path: Path) -> str | None:
        """See `Tree`."""
        if path.name.upper() == "DICOMDIR" or not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                return dicom_series(file)
        except PermissionError:
            return "" if may_be_dicom(path) else None

    def look_up(self, paths: Iterable[Path]) -> None:
        """See `Tree`."""

    def packed(self, image: Path, files: tuple[str, ...], labels: Path | None) -> Packed | None:  # noqa: ARG002 (the tree of an archive needs them)
        """See `Tree`."""
        return None


def _refuse_closed(error: OSError) -> None:
    """What lies in a folder that cannot be listed would be missing from every account."""
    msg = (
        f"Folder {error.filename} cannot be listed ({error.strerror}); expected to see every scan "
        "below a root. Allow it to be read, or move it out of the root."
    )
    raise ManifestError(msg) from error


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
            if any(map(_is_hidden, parts)) or parts[0] == "__MACOSX":
                continue
            names = (n for n, part in enumerate(parts[:-1]) if _is_folder_with_file_name(part))
            depth = next(names, None)
            found.add(path if depth is None else self.root.joinpath(*parts[: depth + 1]))
        self._files = sorted(found)
        return self._files

    def glob(self, pattern: str) -> list[Path]:
        """See `Tree`."""
        expression = re.compile(_expression(pattern))
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

    def series_of(self, path: Path) -> str | None:
        """See `Tree`."""
        if path.name.upper() == "DICOMDIR" or path not in self._members:
            return None
        archive, member = self._members[path]
        if not member.fault and archive.kind == "tar-stream":
            return member.series
        try:
            return dicom_series(read_head(archive, member, _HEAD_BYTES))
        except UnreadableScanError:
            return "" if may_be_dicom(path) else None

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
        """The member at a path and those that belong to it, or those in a folder."""
        if path in self._members:
            return [self._members[path], *self._detached(path)]
        inside = self._below.get(path, [])
        return [self._members[p] for p in sorted(inside) if not files or p.name in files]

    def _detached(self, header: Path) -> list[tuple[Archive, Member]]:
        if header.suffix.lower() not in _HAS_TWO_FILES:
            return []
        beside = (p for p in sorted(self._below[header.parent]) if p.stem == header.stem)
        return [self._members[path] for path in beside if path != header]


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


@cache
def _is_folder_with_file_name(name: str) -> bool:
    return is_file_name(Path(name))


def may_be_dicom(path: Path) -> bool:
    """Whether a name might be that of a DICOM file."""
    return path.suffix.lower() in _MAYBE_DICOM or path.suffix[1:].isdigit()


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _expression(pattern: str) -> str:
    """A glob pattern as a regular expression over a relative path.

    >>> bool(re.fullmatch(_expression("**/*_ct.nii.gz"), "a/b/1_ct.nii.gz"))
    True
    >>> bool(re.fullmatch(_expression("*/ct.nii.gz"), "a/b/ct.nii.gz"))
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
