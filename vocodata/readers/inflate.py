"""Gzip and plain files, read straight into one buffer, and never past a fault.

ISA-L (the optional package `isal`) inflates more than twice as fast as zlib. libdeflate is a little
faster, but its packages fill no array that is given: with glibc's defaults fresh memory costs more
than it saves. SimpleITK is slower where it was measured (benchmarks/gunzip.py), and returns a
volume without a word when the stream is cut short or its checksum is wrong: a scan whose bytes are
damaged must not become training data.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from vocodata.errors import UnreadableScanError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

try:
    _deflate: Any = import_module("isal.isal_zlib")
except ImportError:
    _deflate = zlib

GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 16
_GZIP_WINDOW_BITS = 31
MAX_REST_BYTES = 1 << 26
"""Behind the voxels of a gzip file, read only to prove the checksum."""
# Deflate cannot do better: 258 bytes for two bits.
_MAX_INFLATION = 1032


class _Inflater(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


def is_gzip(path: Path) -> bool:
    """Whether the file's first bytes are those of gzip."""
    with path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def read_start(path: Path, count: int) -> bytes:
    """Up to `count` bytes from the start of a file's content, inflated if it is gzip.

    Raises:
        UnreadableScanError: `truncated_gzip` or `corrupt_gzip`.
    """
    with path.open("rb") as file:
        if not is_gzip(path):
            return file.read(count)
        start = b""
        for piece in _pieces(file, path):
            start += piece
            if len(start) >= count:
                break
        return start[:count]


def read_array(
    path: Path, *, offset: int, dtype: np.dtype[Any], count: int, room_bytes: int = 0
) -> NDArray[Any]:
    """`count` numbers from `offset` bytes into a file's content, inflated if it is gzip.

    A gzip stream is read to its end, so that its checksum is proved.

    Args:
        path: The file.
        offset: Where the numbers begin, bytes.
        dtype: In the file.
        count: Of the numbers.
        room_bytes: Memory that the array's owner (`base`) has at least, for what takes the place
            of the numbers. What is not written to costs nothing.

    Returns:
        The numbers in this machine's byte order.

    Raises:
        UnreadableScanError: `truncated_gzip`, `corrupt_gzip`, or fewer numbers than expected
            (`truncated_file`), or far more (`overlong_gzip`).
    """
    needed = count * dtype.itemsize
    refuse_too_short(path, offset + needed, most=path.stat().st_size, is_deflated=is_gzip(path))
    raw = np.empty(max(needed, room_bytes), np.uint8)[:needed]
    buffer = raw.data
    with path.open("rb") as file:
        if is_gzip(path):
            filled = _fill(buffer, _pieces(file, path), skip=offset)
        else:
            file.seek(offset)
            filled = file.readinto(buffer)
    if filled < len(buffer):
        msg = (
            f"{path.name} holds {filled} bytes of voxels; its header promises {len(buffer)}. "
            "Fetch the file again."
        )
        raise UnreadableScanError(msg, code="truncated_file")
    return native(raw.view(dtype))


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers in this machine's byte order, turned where they lie."""
    if values.dtype.isnative:
        return values
    return values.byteswap(inplace=True).view(values.dtype.newbyteorder("="))


def refuse_too_short(path: Path, needed: int, *, most: int, is_deflated: bool) -> None:
    """Refuse a file that cannot hold what its header promises, before memory is taken for it.

    Args:
        path: For the message.
        needed: Bytes promised.
        most: Bytes on disk.
        is_deflated: Whether these may inflate.
    """
    if needed > (most * _MAX_INFLATION + _CHUNK_BYTES if is_deflated else most):
        msg = (
            f"{path.name} has {most} bytes; its header promises {needed}, which do not fit. "
            "Fetch the file again."
        )
        raise UnreadableScanError(msg, code="truncated_file")


def _fill(buffer: memoryview, pieces: Iterator[bytes], *, skip: int) -> int:
    """Copy what follows `skip` bytes into the buffer; a moderate rest is read and dropped."""
    filled = rest = 0
    for piece in pieces:
        part = piece[skip:] if skip else piece
        skip = max(0, skip - len(piece))
        rest += len(part)
        part = part[: len(buffer) - filled]
        buffer[filled : filled + len(part)] = part
        filled += len(part)
        rest -= len(part)
        if rest > MAX_REST_BYTES:
            msg = (
                f"The gzip stream goes on for more than {MAX_REST_BYTES} bytes after the voxels; "
                "expected its end. Leave the scan out."
            )
            raise UnreadableScanError(msg, code="overlong_gzip")
    return filled


def _pieces(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Inflated pieces of a gzip file of one or more members."""
    inflater = _new_inflater()
    try:
        while data := file.read(_CHUNK_BYTES):
            while data:
                yield inflater.decompress(data)
                if not inflater.eof:
                    break
                data = inflater.unused_data.lstrip(b"\0")
                if data:
                    inflater = _new_inflater()
    except (zlib.error, _deflate.error) as error:
        msg = f"The gzip stream of {path.name} is damaged ({error}). Fetch the file again."
        raise UnreadableScanError(msg, code="corrupt_gzip") from error
    if not inflater.eof:
        msg = f"The gzip stream of {path.name} ends too early. Fetch the file again."
        raise UnreadableScanError(msg, code="truncated_gzip")


def _new_inflater() -> _Inflater:
    inflater: _Inflater = _deflate.decompressobj(_GZIP_WINDOW_BITS)
    return inflater
