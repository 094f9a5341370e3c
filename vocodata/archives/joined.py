"""One stream over the parts of an archive."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from itertools import accumulate
from typing import IO, TYPE_CHECKING, cast

from vocodata.remote.path import RemotePath
from vocodata.remote.ranged_file import RangedFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Buffer


def open_parts(parts: Sequence[Path], *, buffer_bytes: int = 1 << 18) -> IO[bytes]:
    """One stream over the parts, which can seek; of remote parts, each buffer is one request."""
    return cast("IO[bytes]", io.BufferedReader(_Joined(parts), buffer_bytes))


class _Joined(io.RawIOBase):
    """Files as if they were one."""

    def __init__(self, parts: Sequence[Path]) -> None:
        super().__init__()
        sizes = [part.stat().st_size for part in parts]
        self._parts = list(parts)
        self._ends = list(accumulate(sizes))
        self._at = 0
        self._open: tuple[int, io.RawIOBase] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Buffer, /) -> int:
        index = bisect_right(self._ends, self._at)
        if index == len(self._ends):
            return 0
        begins = self._ends[index - 1] if index else 0
        if self._open is None or self._open[0] != index:
            self.release()
            part = self._parts[index]
            opened = RangedFile(part) if isinstance(part, RemotePath) else io.FileIO(part)
            self._open = (index, opened)
        file = self._open[1]
        file.seek(self._at - begins)
        count = int(file.readinto(buffer) or 0)
        self._at += count
        return count

    def release(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def close(self) -> None:
        self.release()
        super().close()
