"""The list of a zip, and one member's bytes.

Read here rather than by the standard library, which refuses zips in parts, needs the whole list
again for each member, and trusts declared sizes. Zip64 and parts (disks) are followed.

Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import stat
import struct
import zlib
from typing import IO, TYPE_CHECKING

from vocodata.archives.members import Member, safe_path
from vocodata.errors import ManifestError, UnreadableScanError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STORED, DEFLATED = 0, 8
_CHUNK_BYTES = 1 << 18
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 0x1 | 0x40


def list_zip(file: IO[bytes], disk_starts: Sequence[int], name: str) -> list[Member]:
    """All files of a zip.

    Args:
        file: The archive.
        disk_starts: Where each part begins in it; one 0 for a zip in one file or cut blindly.
        name: For messages.

    Raises:
        ManifestError: Its list is not there or damaged.
    """
    count, size, start = _end(file, disk_starts, name)
    file.seek(start)
    directory = file.read(size)
    members: list[Member] = []
    at = 0
    for _ in range(count):
        if directory[at : at + 4] != b"PK\x01\x02" or len(directory) < at + _ENTRY.size:
            msg = f"{name}: the list of the zip is damaged after {len(members)} members."
            raise ManifestError(msg)
        fields = _ENTRY.unpack_from(directory, at)
        name_len, extra_len, comment_len = fields[10:13]
        at += _ENTRY.size
        raw, extra = (
            directory[at : at + name_len],
            directory[at + name_len : at + name_len + extra_len],
        )
        at += name_len + extra_len + comment_len
        if not raw.endswith((b"/", b"\\")):
            members.append(_member(fields, raw, extra, disk_starts))
    return members


def _member(
    fields: tuple[int, ...], raw: bytes, extra: bytes, disk_starts: Sequence[int]
) -> Member:
    flags, method, time, date, crc, packed, size = fields[3:10]
    disk, _, mode, offset = fields[13:17]
    size, packed, offset, disk = _zip64(extra, size, packed, offset, disk)
    path, is_safe = safe_path(_name(raw))
    file_type = stat.S_IFMT(mode >> 16)
    fault = ""
    if not is_safe:
        fault = "archive_unsafe_path"
    elif file_type not in {0, stat.S_IFREG}:
        fault = "archive_link"
    elif flags & _ENCRYPTED:
        fault = "archive_encrypted"
    elif method not in {STORED, DEFLATED}:
        fault = "archive_compression"
    begins = disk_starts[disk] if disk < len(disk_starts) else 0
    stamp = date << 16 | time
    return Member(path, begins + offset, size, packed, method, crc, stamp, fault)


def _name(raw: bytes) -> str:
    r"""A member's name as it was meant: UTF-8 whether or not a flag says so, `/` between folders.

    The flag is not set by macOS and by zip on Linux; some tools of Windows write backslashes.

    >>> _name("Schädel".encode()), _name(b"Sch\x84del"), _name(b"a\\b")
    ('Schädel', 'Schädel', 'a/b')
    """
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = raw.decode("cp437")
    return name.replace("\\", "/")


def _zip64(
    extra: bytes, size: int, packed: int, offset: int, disk: int
) -> tuple[int, int, int, int]:
    """The four fields, those that were too big for the list taken from its extra field."""
    values, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = extra[at + 4 : at + 4 + length]
        at += 4 + length
    wide = []
    for value in (size, packed, offset):
        if value == _FULL32 and len(values) >= 8:
            value, values = int.from_bytes(values[:8], "little"), values[8:]  # noqa: PLW2901 (its wide form)
        wide.append(value)
    if disk == _FULL16 and len(values) >= 4:
        disk = int.from_bytes(values[:4], "little")
    return wide[0], wide[1], wide[2], disk


def parts_before(file: IO[bytes]) -> int:
    """How many parts come before the last of a zip, by what its end says; 0 where it says nothing.

    Args:
        file: The last part.
    """
    tail, at = _tail(file)
    if at < 0:
        return 0
    disk = int(_END.unpack_from(tail, at)[1])
    locator_at = at - _END64_LOCATOR.size
    if disk == _FULL16 and locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\x06\x07":
        disk = int(_END64_LOCATOR.unpack_from(tail, locator_at)[3]) - 1
    return disk if disk != _FULL16 else 0


def _tail(file: IO[bytes]) -> tuple[bytes, int]:
    """The end of a zip, and where in it the end's record is; -1 if it is not there, or cut."""
    length = file.seek(0, 2)
    size = min(length, _FULL16 + _END.size + _END64_LOCATOR.size)
    file.seek(length - size)
    tail = file.read(size)
    at = tail.rfind(b"PK\x05\x06")
    return tail, at if len(tail) >= at + _END.size else -1


def _end(file: IO[bytes], disk_starts: Sequence[int], name: str) -> tuple[int, int, int]:
    """Members, bytes and place of the list."""
    tail, at = _tail(file)
    length = file.tell()
    if at < 0:
        msg = (
            f"{name}: the zip has no list of its members at its end, so it is cut short or a part "
            "is missing. Fetch it again, all parts."
        )
        raise ManifestError(msg)
    _, _, disk, _, count, size, offset, _ = _END.unpack_from(tail, at)
    locator_at = at - _END64_LOCATOR.size
    ends_at = length - len(tail) + at
    if locator_at >= 0 and tail[locator_at : locator_at + 4] == b"PK\x06\x07":
        _, disk64, offset64, _ = _END64_LOCATOR.unpack_from(tail, locator_at)
        ends_at = _start(disk_starts, disk64) + offset64
        file.seek(ends_at)
        raw = file.read(_END64.size)
        if len(raw) < _END64.size or raw[:4] != b"PK\x06\x06":
            msg = f"{name}: the zip's list is not where its end says. Fetch it again."
            raise ManifestError(msg)
        disk, count, size, offset = (_END64.unpack(raw)[n] for n in (5, 7, 8, 9))
    start = _start(disk_starts, disk) + offset
    if start + size > length:
        msg = f"{name}: the zip's list is not where its end says. Fetch it again."
        raise ManifestError(msg)
    return count, size, start


def _start(disk_starts: Sequence[int], disk: int) -> int:
    return disk_starts[disk] if disk < len(disk_starts) else 0


def read_zip_member(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """A member's bytes in pieces, never more than declared, proved by length and CRC.

    Raises:
        UnreadableScanError: `archive_corrupt`, `archive_bomb` or `archive_crc`.
    """
    file.seek(member.offset)
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        raise _fault(member, "does not begin where the zip's list says", "archive_corrupt")
    name_len, extra_len = _LOCAL.unpack(raw)[-2:]
    file.seek(member.offset + _LOCAL.size + name_len + extra_len)
    done = crc = 0
    for piece in _inflated(file, member):
        done += len(piece)
        if done > member.size:
            raise _fault(member, f"is larger than the {member.size} bytes declared", "archive_bomb")
        crc = zlib.crc32(piece, crc)
        yield piece
    if done < member.size:
        raise _fault(member, f"ends after {done} of {member.size} bytes", "archive_corrupt")
    if crc != member.crc:
        raise _fault(member, "has another CRC than the zip's list says", "archive_crc")


def _inflated(file: IO[bytes], member: Member) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    left = member.packed_size
    try:
        while left and (data := file.read(min(left, _CHUNK_BYTES))):
            left -= len(data)
            if inflater is None:
                yield data
                continue
            while data:
                yield inflater.decompress(data, _CHUNK_BYTES)
                data = inflater.unconsumed_tail
        if inflater is not None:
            yield inflater.flush()
    except zlib.error as error:
        raise _fault(member, f"is damaged ({error})", "archive_corrupt") from error


def _fault(member: Member, what: str, code: str) -> UnreadableScanError:
    msg = f"Member {member.path} {what}. Fetch the archive again, or leave the scan out."
    return UnreadableScanError(msg, code=code)
