"""What is known of an archive and of one member of it: plain values that go to workers."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vocodata.readers.dicom_signs import SliceMark

Kind = Literal["zip", "tar", "tar-stream", "remote"]
MAX_SCAN_BYTES = 2**34
"""Of one scan's members, unpacked: 2^31 voxels of 8 bytes. More is a decompression bomb."""


@dataclass(frozen=True)
class Archive:
    """An archive, as one file or in parts.

    Attributes:
        path: Where its members seem to lie: `path/member`.
        parts: Its files, in order.
        kind: `zip`, `tar`, or `tar-stream` where a tar is compressed as a whole, so that a member
            is reached only by inflating all before it, or `remote` where there is no archive: each
            member is an object of a server.
        state: Size and time of each part, for the digest of what a scan depends on.
    """

    path: Path
    parts: tuple[Path, ...]
    kind: Kind
    state: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes:
        path: Below the archive, always safe; a name that was not is changed, see `fault`.
        offset: Of its header (zip) or bytes (tar) in the archive's stream.
        size: Bytes when unpacked, as declared.
        packed_size: Bytes in the archive.
        method: How a zip packed it: 0 stored, 8 deflate.
        crc: CRC-32 of its bytes, or None in a tar, which has none.
        stamp: Time of change as the archive has it, for digests.
        fault: Why it is not read, a key of `errors.REASONS`; empty if it is.
        mark: Of a compressed tar, which cannot be looked at twice: what it says of its DICOM
            series, None if it is no DICOM image.
        tag: Of a server's object, what changes with its content.
    """

    path: str
    offset: int
    size: int
    packed_size: int
    method: int = 0
    crc: int | None = None
    stamp: int = 0
    fault: str = ""
    mark: SliceMark | None = None
    tag: str = ""


@dataclass(frozen=True)
class Packed:
    """Where a scan lies in an archive.

    Attributes:
        archive: Which.
        image: The file, the files of a detached header, or the slices of a series.
        labels: The label file, or none.
    """

    archive: Archive
    image: tuple[Member, ...]
    labels: tuple[Member, ...] = ()

    def state(self) -> list[list[Any]]:
        """What identifies the bytes: CRCs where there are any, else times as well."""
        whole = self.image + self.labels
        members: list[list[Any]] = [[m.path, m.size, m.crc, m.stamp, m.fault] for m in whole]
        if self.archive.kind == "remote":
            tags = [member.tag for member in whole]
            return [["remote", len(self.image)], *members, tags]
        if all(member.crc is not None for member in whole):
            return [["zip", len(self.image)], *members]
        files = zip(self.archive.parts, self.archive.state, strict=True)
        return [["tar", len(self.image)], *members, *([part.name, *state] for part, state in files)]


def safe_path(name: str) -> tuple[str, bool]:
    r"""A member's name as a path below the archive, and whether it was one already.

    >>> safe_path("a/./b.nii.gz")
    ('a/b.nii.gz', True)
    >>> safe_path("../../etc/b.nii.gz")
    ('__/__/etc/b.nii.gz', False)
    >>> safe_path("/b.nii.gz")
    ('__/b.nii.gz', False)
    >>> safe_path("C:\\b.nii.gz")
    ('__/b.nii.gz', False)
    """
    parts = re.split(r"[/\\]", name)
    is_safe = "\\" not in name and "\0" not in name
    kept = []
    for place, part in enumerate(parts):
        is_odd = part == ".." or (place == 0 and (part == "" or re.fullmatch(r"[A-Za-z]:", part)))
        is_safe = is_safe and not is_odd
        if is_odd:
            kept.append("__")
        elif part not in {"", "."}:
            kept.append(part.replace("\0", "_"))
    return "/".join(kept) or "__", is_safe


def checked(members: Iterable[Member]) -> list[Member]:
    """Members with two faults added that no single one shows: repeated names, and bombs."""
    members = list(members)
    count = Counter(member.path for member in members)
    first: dict[str, Member] = {}
    for member in members:
        fault = member.fault
        if not fault and count[member.path] > 1:
            fault = "archive_duplicate"
        if fault in {"", "archive_truncated"} and member.size > MAX_SCAN_BYTES:
            fault = "archive_bomb"
        first.setdefault(member.path, replace(member, fault=fault))
    return list(first.values())
