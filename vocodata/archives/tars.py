"""The list of a tar, and one member's bytes; plain, or compressed as a whole.

A compressed tar has no list and cannot be entered in the middle. It is passed through once to
list it; after that each process keeps one stream open and goes forward on it, so that scans taken
in the archive's order cost one more pass in all, not one each.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import re
import tarfile
import zlib
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any

from vocodata.archives.joined import open_parts
from vocodata.archives.members import Archive, Member, safe_path
from vocodata.errors import ManifestError, UnreadableScanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vocodata.readers.dicom_signs import SliceMark

_log = logging.getLogger(__name__)
BLOCK = 512
HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
_MAX_NAME_BYTES = 1 << 20
_BEFORE = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE}
# Of an old sparse file: in its header, and in each block of its map.
_IS_CONTINUED_AT, _MAP_IS_CONTINUED_AT = 482, 504
# Public, yet in no list of types.
_EOFHeaderError: type[tarfile.HeaderError] = vars(tarfile)["EOFHeaderError"]
try:
    _gzip_open: Any = import_module("isal.igzip").open
    _gzip_error: Any = import_module("isal.isal_zlib").error
except ImportError:
    _gzip_open, _gzip_error = gzip.open, zlib.error
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, _gzip_error)


def inflating(file: IO[bytes]) -> IO[bytes]:
    """The tar inside a compressed one, by the compression's first bytes."""
    start = file.read(6)
    file.seek(0)
    openers: tuple[tuple[bytes, Any], ...] = (
        (b"\x1f\x8b", _gzip_open), (b"BZh", bz2.open), (b"\xfd7zXZ", lzma.open),
    )  # fmt: skip
    for magic, opener in openers:
        if start.startswith(magic):
            stream: IO[bytes] = opener(file, "rb")
            return stream
    return file


def list_tar(
    file: IO[bytes], name: str, *, look: Callable[[bytes, str], SliceMark | None] | None = None
) -> list[Member]:
    """All files of a tar.

    Args:
        file: The tar, inflated; it is read forward, and sought only if `look` is None.
        name: For messages.
        look: Called with the first bytes of each file and its name; what it says becomes
            `Member.mark`.

    Raises:
        ManifestError: No tar, or one that is cut or damaged between two members.
    """
    reader = _Reader(file, is_stream=look is not None)
    members: list[Member] = []
    while True:
        try:
            info, wide = reader.header()
        except _EOFHeaderError:
            reader.prove(name)
            return members
        except (tarfile.HeaderError, *_DAMAGE) as error:
            raise _cut(name, members, error) from error
        member = _member(info, reader.at, wide)
        try:
            head = reader.take(min(member.packed_size, HEAD_BYTES)) if look else b""
            if look and not member.fault:
                member = _with_mark(member, look(head, member.path))
            if not info.isdir() and info.type != tarfile.XGLTYPE:
                members.append(member)
            reader.skip(_padded(member.packed_size) - len(head))
        except EOFError:
            if not members or members[-1].offset != member.offset:
                members.append(member)
            members[-1] = _faulty(members[-1], "archive_truncated")
            _log.warning("%s ends within %s; what follows it is lost.", name, member.path)
            return members
        except _DAMAGE as error:
            raise _unproved(name, error) from error


def _cut(name: str, members: list[Member], error: Exception) -> ManifestError:
    where = f"after {len(members)} members" if members else "at its start"
    msg = f"{name}: no tar, or one that is cut or damaged {where} ({error}). Fetch it again."
    return ManifestError(msg)


def _unproved(name: str, error: Exception) -> ManifestError:
    msg = (
        f"{name}: the compressed tar does not prove by its checksum ({error}), and nothing says "
        "which of its files is damaged. Fetch it again."
    )
    return ManifestError(msg)


def _wide_names(info: tarfile.TarInfo, raw: bytes) -> dict[str, str]:
    """`path` and `size` of the next member, where they did not fit its header."""
    if info.type == tarfile.GNUTYPE_LONGLINK:
        return {}
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": raw.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records: dict[str, str] = {}
    raw = raw.rstrip(b"\0")
    while raw:
        start = re.match(rb"(\d{1,9}) ([^=]+)=", raw)
        length = int(start[1]) if start else 0
        if start is None or not start.end() < length <= len(raw):
            msg = f"a record of its names begins with {raw[:20]!r}"
            raise tarfile.HeaderError(msg)
        value = raw[start.end() : length].removesuffix(b"\n")
        records[start[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        raw = raw[length:]
    if not re.fullmatch(r"\d{0,18}", records.get("size", "")):
        msg = f"a member's size is {records['size'][:20]!r}"
        raise tarfile.HeaderError(msg)
    return records


def _member(info: tarfile.TarInfo, offset: int, wide: dict[str, str]) -> Member:
    # A sparse file may be called by the process that packed it, its name told beside.
    name = wide.get("GNU.sparse.name") or wide.get("path", info.name)
    path, is_safe = safe_path(_as_text(name).rstrip("/"))
    size = int(wide.get("size") or info.size)
    fault = ""
    if not is_safe:
        fault = "archive_unsafe_path"
    elif (
        info.type not in tarfile.REGULAR_TYPES
        or info.type == tarfile.GNUTYPE_SPARSE
        or any(key.startswith("GNU.sparse") for key in wide)
    ):
        fault = "archive_link"
    has_bytes = info.type in {*tarfile.REGULAR_TYPES, tarfile.XGLTYPE}
    return Member(path, offset, size, size if has_bytes else 0, stamp=int(info.mtime), fault=fault)


def _as_text(name: str) -> str:
    """A name that is no UTF-8 as Latin 1, in which no two names are alike."""
    try:
        return name.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")


def _with_mark(member: Member, mark: SliceMark | None) -> Member:
    return Member(**{**member.__dict__, "mark": mark})


def _faulty(member: Member, fault: str) -> Member:
    return Member(**{**member.__dict__, "fault": member.fault or fault})


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class _Reader:
    """Goes forward, and knows where it is; what ends too early is an EOFError."""

    def __init__(self, file: IO[bytes], *, is_stream: bool) -> None:
        self._file, self._is_stream, self.at = file, is_stream, 0
        self._length = 0 if is_stream else file.seek(0, 2)
        if not is_stream:
            file.seek(0)

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        self.at += len(data)
        if len(data) < count:
            msg = f"ends after {self.at} bytes"
            raise EOFError(msg)
        return data

    def header(self) -> tuple[tarfile.TarInfo, dict[str, str]]:
        """What a member's header says, and what was told of it before (`_wide_names`)."""
        wide: dict[str, str] = {}
        while (info := self._block()).type in _BEFORE:
            taken = min(info.size, _MAX_NAME_BYTES)
            wide |= _wide_names(info, self.take(taken))
            self.skip(_padded(info.size) - taken)
        return info, wide

    def _block(self) -> tarfile.TarInfo:
        """One header; the map of an old sparse file is passed over."""
        block = self.take(BLOCK)
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.size < 0:
            msg = f"a member's size is {info.size}"
            raise tarfile.HeaderError(msg)
        is_continued = info.type == tarfile.GNUTYPE_SPARSE and block[_IS_CONTINUED_AT]
        while is_continued:
            is_continued = self.take(BLOCK)[_MAP_IS_CONTINUED_AT]
        return info

    def skip(self, count: int) -> None:
        if not self._is_stream:
            if self.at + count > self._length:
                msg = f"ends after {self._length} bytes"
                raise EOFError(msg)
            self.at = self._file.seek(self.at + count)
            return
        while count:
            count -= len(self.take(min(count, _CHUNK_BYTES)))

    def prove(self, name: str) -> None:
        """Go on to the end of a compressed stream, where its checksum is."""
        try:
            while self._is_stream and self._file.read(_CHUNK_BYTES):
                pass
        except _DAMAGE as error:
            raise _unproved(name, error) from error


def read_tar_member(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """A member's bytes in pieces, from a plain tar.

    Raises:
        UnreadableScanError: `archive_truncated`.
    """
    file.seek(member.offset)
    yield from _pieces(file, member)


def _pieces(file: IO[bytes], member: Member) -> Iterator[bytes]:
    left = member.size
    while left:
        piece = file.read(min(left, _CHUNK_BYTES))
        if not piece:
            msg = f"Member {member.path} ends {left} bytes too early. Fetch the archive again."
            raise UnreadableScanError(msg, code="archive_truncated")
        left -= len(piece)
        yield piece


class _Forward:
    """The stream of one compressed tar that this process keeps open."""

    def __init__(self) -> None:
        self._archive: Archive | None = None
        self._raw: IO[bytes] | None = None
        self._file: IO[bytes] | None = None
        self._at = 0

    def read(self, archive: Archive, member: Member) -> Iterator[bytes]:
        if archive != self._archive or member.offset < self._at or self._file is None:
            self.close()
            _refuse_changed(archive)
            self._raw = open_parts(archive.parts)
            self._file, self._archive = inflating(self._raw), archive
        try:
            while self._at < member.offset:
                step = len(self._file.read(min(member.offset - self._at, _CHUNK_BYTES)))
                self._at += step
                if not step:
                    break
            for piece in _pieces(self._file, member):
                self._at += len(piece)
                yield piece
        except UnreadableScanError:
            self.close()
            raise
        except _DAMAGE as error:
            self.close()
            msg = f"Member {member.path} lies in a damaged stretch ({error}). Fetch it again."
            raise UnreadableScanError(msg, code="archive_corrupt") from error

    def close(self) -> None:
        for file in (self._file, self._raw):
            if file is not None:
                file.close()
        self._archive = self._file = self._raw = None
        self._at = 0


def _refuse_changed(archive: Archive) -> None:
    """The checksum was proved when the archive was listed; what changed since is unproved."""
    stats = [part.stat() for part in archive.parts]
    if tuple((stat.st_size, stat.st_mtime_ns) for stat in stats) != archive.state:
        msg = f"{archive.path.name} changed since it was listed. Start the build again."
        raise UnreadableScanError(msg, code="archive_corrupt")


_forward = _Forward()


def read_stream_member(archive: Archive, member: Member) -> Iterator[bytes]:
    """A member's bytes in pieces, from a compressed tar; cheap in the archive's order.

    Raises:
        UnreadableScanError: `archive_truncated` or `archive_corrupt`.
    """
    return _forward.read(archive, member)


def close_stream() -> None:
    """Let go of the compressed tar this process keeps open."""
    _forward.close()
