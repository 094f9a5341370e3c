"""From a root to its archives and their members."""

from __future__ import annotations

from itertools import accumulate
from typing import IO, TYPE_CHECKING, Literal

from vocodata.archives.joined import open_parts
from vocodata.archives.members import Archive, Member, checked
from vocodata.archives.parts import find_parts, is_part_name
from vocodata.archives.tars import inflating, list_tar
from vocodata.archives.zips import list_zip
from vocodata.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vocodata.readers.dicom_signs import SliceMark


def list_archives(
    root: Path, *, mark_of: Callable[[bytes, str], SliceMark | None]
) -> list[tuple[Archive, list[Member]]]:
    """The archives a root stands for, each with its members; nothing if it is a plain folder.

    Args:
        root: See `find_parts`.
        mark_of: Says of the first bytes of a file, and its name, which DICOM series it is of, or
            None.

    Raises:
        ManifestError: A file that is no archive, one that cannot be listed, or a missing part.
    """
    return [_listed(path, parts, mark_of) for path, parts in find_parts(root)]


def _listed(
    path: Path, parts: tuple[Path, ...], mark_of: Callable[[bytes, str], SliceMark | None]
) -> tuple[Archive, list[Member]]:
    stats = (part.stat() for part in parts)
    state = tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)
    with open_parts(parts) as file:
        kind = _kind(file, path)
        archive = Archive(path, parts, kind, state)
        match kind:
            case "zip":
                starts = [0, *accumulate(size for size, _ in state)][:-1]
                is_spanned = len(parts) > 1 and parts[-1].suffix.lower() == ".zip"
                members = list_zip(file, starts if is_spanned else [0], path.name)
            case "tar":
                members = list_tar(file, path.name)
            case "tar-stream":
                with inflating(file) as stream:
                    members = list_tar(stream, path.name, look=mark_of)
    is_cut_up = len(parts) > 1 or is_part_name(parts[0].name)
    if is_cut_up and any(one.fault == "archive_truncated" for one in members):
        # Not one damaged file: what else there was is not known.
        msg = (
            f"{path} ends within {members[-1].path} after {len(parts)} parts; expected more of "
            "them beside each other, all that may be read. Fetch them, or sign them too."
        )
        raise ManifestError(msg)
    return archive, checked(members)


def _kind(file: IO[bytes], path: Path) -> Literal["zip", "tar", "tar-stream"]:
    start = file.read(512)
    file.seek(0)
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"PK00PK")):
        return "zip"
    if start[257:262] == b"ustar":
        return "tar"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        return "tar-stream"
    msg = (
        f"{path} is neither a folder nor an archive that is read; expected zip, tar, or a tar "
        "compressed by gzip, bzip2 or xz. Unpack it, and name the folder."
    )
    raise ManifestError(msg)
