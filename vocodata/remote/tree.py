"""What lies below a remote root: the tree of an archive whose members are objects.

A bucket is listed once. A web server has no list: there, files are looked at when they are named.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from vocodata.archives.members import Archive, Member, Packed, safe_path
from vocodata.archives.tree import ArchiveTree, may_be_dicom
from vocodata.errors import ManifestError, RemoteError, UnreadableScanError
from vocodata.readers import is_file_name
from vocodata.readers.dicom_signs import SliceMark
from vocodata.remote import objects
from vocodata.remote.fetching import fetch_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from vocodata.remote.path import Found, RemotePath

_HEADS = (1 << 13, 1 << 16)
"""Bytes looked at to tell a DICOM file's series: few, then more if they did not say."""


def remote_tree(
    name: str, root: RemotePath, *, mark_of: Callable[[bytes, str], SliceMark | None]
) -> ArchiveTree:
    """The tree below a root that is no archive.

    Args:
        name: Of the source, for messages.
        root: Where.
        mark_of: As for `list_archives`.

    Raises:
        RemoteError: The server refuses or does not answer.
    """
    return BucketTree(root, mark_of) if root.scheme == "s3" else WebTree(name, root)


class BucketTree(ArchiveTree):
    """Objects of a bucket."""

    def __init__(self, root: RemotePath, mark_of: Callable[[bytes, str], SliceMark | None]) -> None:
        """List them."""
        found = objects.listing(root)
        super().__init__(root, [(_as_archive(root), [_member(n, f) for n, f in found.items()])])
        self._root, self._mark_of = root, mark_of

    def mark_of(self, path: Path) -> SliceMark | None:
        """See `Tree`; the first call looks at all files, many at a time."""
        return self._marks.get(path)

    @cached_property
    def _marks(self) -> dict[Path, SliceMark | None]:
        paths = [p for p in self.files() if p in self._members and not is_file_name(p)]
        return dict(zip(paths, objects.many(self._one_mark, paths), strict=True))

    def _one_mark(self, path: Path) -> SliceMark | None:
        if path.name.upper() == "DICOMDIR":
            return None
        member = self._members[path][1]
        mark: SliceMark | None = None
        try:
            for count in _HEADS:
                head = fetch_head(self._root / member.path, count)
                mark = self._mark_of(head, path.name)
                if mark is None or (mark.series and mark.place) or member.size <= count:
                    break
        except (RemoteError, UnreadableScanError):
            return SliceMark("") if may_be_dicom(path) else None
        return mark


class WebTree(ArchiveTree):
    """Files of a web server, as far as somebody named them."""

    def __init__(self, name: str, root: RemotePath) -> None:
        """Nothing is known yet."""
        super().__init__(root, [])
        self._name, self._root, self._archive = name, root, _as_archive(root)
        self._looked: set[Path] = set()

    def look_up(self, paths: Iterable[Path]) -> None:
        """Look at files, many at a time; those that are there, below the root, become members."""
        wanted = {path for path in map(self.plain, paths) if path.is_relative_to(self.root)}
        new = sorted(wanted - self._looked)
        self._looked.update(new)
        for path, found in zip(new, objects.many(self._look, new), strict=True):
            if found is not None:
                member = _member(path.relative_to(self.root).as_posix(), found)
                self._members[path] = (self._archive, member)
                self._below.setdefault(path.parent, []).append(path)

    def _look(self, path: Path) -> Found | None:
        return objects.probe(self._root / path.relative_to(self.root).as_posix())

    def exists(self, path: Path) -> bool:
        """See `Tree`."""
        self.look_up([path])
        return super().exists(path)

    def files(self) -> list[Path]:
        """Refused."""
        raise self._no_list()

    def glob(self, pattern: str) -> list[Path]:
        """Refused."""
        so = f", so {pattern!r} cannot be matched"
        raise self._no_list(so)

    def packed(self, image: Path, files: tuple[str, ...], labels: Path | None) -> Packed:
        """See `Tree`."""
        self.look_up([image] if labels is None else [image, labels])
        found = super()._of(self.plain(image), files)
        seg = [] if labels is None else super()._of(self.plain(labels), ())
        return Packed(self._archive, tuple(m for _, m in found), tuple(m for _, m in seg))

    def _no_list(self, so: str = "") -> ManifestError:
        msg = (
            f"Source '{self._name}': {self.root} is on a web server, which has no list of its "
            f"files{so}. Name the scans (layout: datalist with the key scans, or layout: msd), or "
            "let root be one archive."
        )
        return ManifestError(msg)


def _as_archive(root: RemotePath) -> Archive:
    return Archive(root, (), "remote", ())


def _member(name: str, found: Found) -> Member:
    path, is_safe = safe_path(name)
    fault = "" if is_safe else "archive_unsafe_path"
    return Member(
        path, 0, found.size, found.size, stamp=found.modified_ns, fault=fault, tag=found.tag
    )
