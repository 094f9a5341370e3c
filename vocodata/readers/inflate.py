"""Gzip and plain files, read straight into one buffer, and never past a fault.

ISA-L (the optional package `isal`) inflates about twice as fast as zlib. SimpleITK is faster still
but returns a volume without a word when the gzip stream is cut short or its checksum is wrong, so
it is not used here: a scan whose bytes are damaged must not become training data.
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
_CHUNK_BYTES = 1 << 18
_GZIP_WINDOW_BITS = 31


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


def read_array(path: Path, *, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """`count` numbers from `offset` bytes into a file's content, inflated if it is gzip.

    A gzip stream is read to its end, so that its checksum is proved.

    Raises:
        UnreadableScanError: `truncated_gzip`, `corrupt_gzip`, or fewer numbers than expected
            (`truncated_file`).
    """
    raw = np.empty(count * dtype.itemsize, np.uint8)
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
    return raw.view(dtype)


def _fill(buffer: memoryview, pieces: Iterator[bytes], *, skip: int) -> int:
    """Copy what follows `skip` bytes into the buffer; the rest is read and dropped."""
    filled = 0
    for piece in pieces:
        part = piece[skip:] if skip else piece
        skip = max(0, skip - len(piece))
        part = part[: len(buffer) - filled]
        buffer[filled : filled + len(part)] = part
        filled += len(part)
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
