"""An object as a file that can seek, for those who read archives and headers."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from vocodata.remote import objects

if TYPE_CHECKING:
    from vocodata.remote.path import RemotePath

BLOCK_BYTES = 1 << 18


class RangedFile(io.RawIOBase):
    """A remote file that can seek; each read is one request."""

    def __init__(self, path: RemotePath) -> None:
        """Ask for its size."""
        super().__init__()
        self._path, self._size, self._at = path, int(path.stat().st_size), 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As any file; nothing is asked for."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 (any writable buffer)
        """Fill the buffer by one request."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if self._at >= stop:
            return 0
        data = objects.read(self._path, self._at, stop)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
