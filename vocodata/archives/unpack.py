"""The one door from a scan in an archive to files that a reader can open."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vocodata.archives import members as limits
from vocodata.archives.joined import open_parts
from vocodata.archives.tars import read_stream_member, read_tar_member
from vocodata.archives.zips import read_zip_member
from vocodata.errors import REASONS, DiskFullError, UnreadableScanError, VocoDataError
from vocodata.remote.fetching import fetch, fetch_head
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vocodata.archives.members import Archive, Member, Packed
    from vocodata.discover import Scan

HEAD_BYTES = 1 << 20
"""Enough of a file for its header."""
REMOTE_HEAD_BYTES = 1 << 16
"""The same of a file that has to be fetched."""
_REMOTE_BUFFER_BYTES = 1 << 22


@contextmanager
def unpacked(scan: Scan, *, scratch: Path | None = None, head_only: bool = False) -> Iterator[Scan]:
    """The scan with its image and labels as files; they go when the block ends.

    Args:
        scan: One that lies in no archive comes back as it is.
        scratch: Folder to make for it; one among the system's temporary files if None.
        head_only: Unpack only as much of each file as its header may need.

    Raises:
        UnreadableScanError: A member is damaged or unsafe; `code` says how. Or it is known that
            the files make no scan (`scattered_series`).
        DiskFullError: No room to unpack.
    """
    if scan.scattered:
        raise UnreadableScanError(scan.scattered, code="scattered_series")
    packed = scan.packed
    if packed is None:
        yield scan
        return
    place = Path(tempfile.gettempdir()) if scratch is None else scratch.parent
    _refuse_unfit(scan, packed, place, head_only=head_only)
    folder = Path(tempfile.mkdtemp(prefix="voco-")) if scratch is None else scratch
    try:
        limit = HEAD_BYTES if head_only else None
        image = _unpack(packed.archive, packed.image, folder / "image", limit, scan.image)
        labels = scan.labels
        if labels is not None and not head_only:
            labels = _unpack(packed.archive, packed.labels, folder / "labels", limit, labels)
        yield replace(scan, image=image, labels=labels, packed=None)
    except VocoDataError as error:
        detail = error.detail.replace(str(folder), str(packed.archive.path))
        raise type(error)(detail, code=error.code) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_head(archive: Archive, member: Member, count: int) -> bytes:
    """The first bytes of a member; in a compressed tar, all before it is inflated for them.

    Raises:
        UnreadableScanError: The member is damaged or unsafe.
    """
    _refuse_faulty(member)
    if archive.kind == "remote":
        return fetch_head(_remote(archive) / member.path, min(count, member.size))
    head = b""
    for piece in _pieces(archive, member, most_bytes=count):
        head += piece
        if len(head) >= count:
            break
    return head[:count]


def _unpack(
    archive: Archive, members: tuple[Member, ...], folder: Path, limit: int | None, place: Path
) -> Path:
    """Write members to a folder; the path that stands for `place` there."""
    is_series = place != archive.path / members[0].path
    into = folder / (place.name or "series") if is_series else folder
    is_below = is_series and place.is_relative_to(archive.path)
    below = place.relative_to(archive.path).as_posix() if is_below else ""
    targets = {member: into / _name_below(member, below) for member in members}
    for parent in {into, *(target.parent for target in targets.values())}:
        parent.mkdir(parents=True, exist_ok=True)
    if archive.kind == "remote":
        fetch(_remote(archive), targets, head_bytes=limit and REMOTE_HEAD_BYTES)
        return into if is_series else into / place.name
    for member in sorted(members, key=lambda member: member.offset):
        with targets[member].open("wb") as file:
            for piece in _pieces(archive, member, most_bytes=limit):
                file.write(piece)
                if limit is not None and file.tell() >= limit:
                    break
    return into if is_series else into / place.name


def _name_below(member: Member, folder: str) -> PurePosixPath:
    """Where a member lies in its series' folder; slices of a series may lie in several below it."""
    path = PurePosixPath(member.path)
    is_below = folder != "" and path.is_relative_to(folder)
    return path.relative_to(folder) if is_below else PurePosixPath(path.name)


def _pieces(archive: Archive, member: Member, *, most_bytes: int | None = None) -> Iterator[bytes]:
    if archive.kind == "tar-stream":
        yield from read_stream_member(archive, member)
        return
    most = member.packed_size if most_bytes is None else most_bytes
    is_remote = isinstance(archive.path, RemotePath)
    buffer_bytes = min(_REMOTE_BUFFER_BYTES, max(most, 1 << 16)) if is_remote else 1 << 18
    with open_parts(archive.parts, buffer_bytes=buffer_bytes) as file:
        read = read_zip_member if archive.kind == "zip" else read_tar_member
        yield from read(file, member)


def _remote(archive: Archive) -> RemotePath:
    assert isinstance(archive.path, RemotePath)
    return archive.path


def _refuse_unfit(scan: Scan, packed: Packed, place: Path, *, head_only: bool) -> None:
    """Refuse what is not there, faulty, too big for a scan, or too big for the disk."""
    if not packed.image:
        where = "on the server" if packed.archive.kind == "remote" else "in the archive"
        msg = f"{scan.image} is not {where}; expected a scan. Correct the list."
        raise UnreadableScanError(msg, code="file_missing")
    for member in packed.image:
        _refuse_faulty(member)
    if scan.labels is not None and (not packed.labels or packed.labels[0].fault):
        is_there = bool(packed.labels)
        why = REASONS[packed.labels[0].fault] if is_there else "They are not in the archive."
        msg = f"Labels cannot be read: {why} Leave the labels or the scan out."
        code = "labels_unreadable" if is_there else "labels_missing"
        raise UnreadableScanError(msg, code=code)
    members = packed.image + packed.labels
    total = sum(min(m.size, HEAD_BYTES) if head_only else m.size for m in members)
    if total > limits.MAX_SCAN_BYTES:
        msg = (
            f"The scan's {len(members)} members unpack to {total} bytes; expected at most "
            f"{limits.MAX_SCAN_BYTES}. Cut the scan first, or leave it out."
        )
        raise UnreadableScanError(msg, code="archive_bomb")
    free = shutil.disk_usage(place).free
    if total > free:
        msg = f"No room to unpack a scan of {total} bytes; {free} are free. Make room, and resume."
        raise DiskFullError(msg)


def _refuse_faulty(member: Member) -> None:
    if member.fault:
        msg = f"Member {member.path} is not read: {REASONS[member.fault]} Leave the scan out."
        raise UnreadableScanError(msg, code=member.fault)
