"""A scan's objects onto the local disk: whole and proved, or only their beginnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocodata.errors import UnreadableScanError
from vocodata.remote import objects

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vocodata.archives.members import Member
    from vocodata.remote.path import RemotePath


def fetch(root: RemotePath, targets: Mapping[Member, Path], *, head_bytes: int | None) -> None:
    """Write objects to files, several at a time.

    Args:
        root: What the members lie below.
        targets: Which, as they were listed, and where to; the folders are there.
        head_bytes: Only so much of each; None for all of it.

    Raises:
        UnreadableScanError: `file_missing`, or `source_changed` since it was listed.
        RemoteError: The server refuses or does not answer.
    """

    def one(member: Member) -> None:
        if head_bytes is None:
            _whole(root / member.path, member, targets[member])
        else:
            targets[member].write_bytes(
                fetch_head(root / member.path, min(head_bytes, member.size))
            )

    objects.many(one, list(targets))


def fetch_head(path: RemotePath, count: int) -> bytes:
    """The first bytes of an object.

    Raises:
        UnreadableScanError: `file_missing`.
        RemoteError: The server refuses or does not answer.
    """
    try:
        return objects.read(path, 0, count) if count else b""
    except FileNotFoundError as error:
        raise _missing(path) from error


def _whole(path: RemotePath, member: Member, target: Path) -> None:
    try:
        tag = objects.save(path, target, most=member.size)
    except FileNotFoundError as error:
        raise _missing(path) from error
    size = target.stat().st_size if target.exists() else -1
    if size != member.size or (member.tag and tag and tag != member.tag):
        msg = (
            f"{path} is not what it was when it was listed ({member.size} bytes then). "
            "Build again with --resume."
        )
        raise UnreadableScanError(msg, code="source_changed")


def _missing(path: RemotePath) -> UnreadableScanError:
    msg = f"{path} is not there any more. Correct the list, or take the scan out."
    return UnreadableScanError(msg, code="file_missing")
