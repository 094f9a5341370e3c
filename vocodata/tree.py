"""What lies below a source's root, whether that is a folder or an archive: one view of both.

Paths are whole paths, `root/images/a.nii.gz`; in an archive, `root.zip/images/a.nii.gz`, which no
file system knows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vocodata.archives import list_archives
from vocodata.archives.tree import ArchiveTree, is_hidden, may_be_dicom, pattern_expression
from vocodata.errors import ManifestError, RemoteError
from vocodata.readers import is_file_name, slice_mark
from vocodata.readers.dicom_signs import SliceMark, is_named_dicom
from vocodata.remote.path import RemotePath
from vocodata.remote.tree import remote_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vocodata.archives import Packed


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

    def mark_of(self, path: Path) -> SliceMark | None:
        """What a file says of its DICOM series; None if it is no DICOM image."""
        ...

    def are_together(self, paths: Iterable[Path]) -> bool:
        """Whether files lie in one archive, or in none: only then can they make one scan."""
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


def _opened(name: str, root: Path) -> Tree:
    is_scan = is_file_name(root) or is_named_dicom(root.name)
    if is_scan and not isinstance(root, RemotePath) and root.is_file():
        msg = (
            f"Source '{name}': root {root} is called as one scan is; expected a folder or an "
            "archive. Name the folder it lies in; layout: glob with images takes single files."
        )
        raise ManifestError(msg)
    try:
        archives = list_archives(root, mark_of=slice_mark)
    except ManifestError as error:
        where = f"Source '{name}'"
        raise error.named(where) from error
    except OSError as error:
        msg = f"Source '{name}': root {root} cannot be read ({error.strerror or error})."
        raise ManifestError(msg) from error
    if archives:
        return ArchiveTree(root, archives)
    if isinstance(root, RemotePath) and (root.scheme != "s3" or root.is_dir()):
        return remote_tree(name, root, mark_of=slice_mark)
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
        self._files: list[Path] | None = None

    def files(self) -> list[Path]:
        """See `Tree`; the folder is walked once."""
        if self._files is not None:
            return self._files
        found: list[Path] = []
        for _, at, names, files in self._walk():
            found.extend(at / name for name in files if not is_hidden(name))
            found.extend(at / name for name in names if is_file_name(at / name))
            names[:] = sorted(n for n in names if not is_hidden(n) and not is_file_name(at / n))
        self._files = sorted(found)
        return self._files

    def glob(self, pattern: str) -> list[Path]:
        """See `Tree`."""
        found = list(self.root.glob(pattern))
        if "**" in pattern:
            # Path.glob passes over linked folders, and without a word over closed ones.
            expression = re.compile(pattern_expression(pattern))
            for start, at, names, files in self._walk():
                inside = [at / name for name in (*names, *files) if start != self.root]
                below = (path.relative_to(self.root).as_posix() for path in inside)
                found += [
                    p for p, name in zip(inside, below, strict=True) if expression.fullmatch(name)
                ]
        return list(dict.fromkeys(found))

    def _walk(self) -> Iterator[tuple[Path, Path, list[str], list[str]]]:
        """As `os.walk`, behind the root or link that led there; each folder once, links last."""
        seen: set[tuple[int, int]] = set()
        starts = [self.root]
        for start in starts:
            for folder, names, files in os.walk(start, onerror=_refuse_closed):
                at = Path(folder)
                state = at.stat()
                if (state.st_dev, state.st_ino) in seen:
                    names.clear()
                    continue
                seen.add((state.st_dev, state.st_ino))
                yield start, at, names, files
                starts.extend(at / name for name in sorted(names) if (at / name).is_symlink())

    def exists(self, path: Path) -> bool:
        """See `Tree`."""
        try:
            return path.exists()
        except OSError:
            # A name longer than any can be.
            return False

    def is_dir(self, path: Path) -> bool:
        """See `Tree`."""
        return path.is_dir()

    def read_text(self, path: Path) -> str:
        """See `Tree`."""
        return path.read_text(encoding="utf-8")

    def mark_of(self, path: Path) -> SliceMark | None:
        """See `Tree`."""
        if path.name.upper() == "DICOMDIR" or path.is_dir():
            return None
        try:
            with path.open("rb") as file:
                return slice_mark(file, path.name)
        except FileNotFoundError:
            # A link that leads nowhere.
            return slice_mark(b"", path.name)
        except OSError:
            return SliceMark("") if may_be_dicom(path) else None

    def are_together(self, paths: Iterable[Path]) -> bool:  # noqa: ARG002 (the tree of archives needs them)
        """See `Tree`."""
        return True

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
