"""The compiled way into a shard: positional reads, checksum, decode, scatter, in one pass.

A read touches only the chunks of its box. Chunks that lie side by side on disk (a row along x, as
our writer has it) come in one `pread`; other writers' orders are noticed, not assumed. Nothing is
shared between threads or with a forked child but file descriptors, and positional reads do not
move those.

Odd choice: disk is Z, Y, X and memory X, Y, Z, so voxels are transposed block by block while a
chunk is in the cache (turning.py); a transposition of the whole field afterwards costs 12 ms.

Shape letters: X Y Z voxels, C chunks along an axis.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import StoreError
from vocodata.geometry import Size
from vocodata.store import native
from vocodata.store.decoding import DECODED_BYTES
from vocodata.store.gather import BAD_CHUNK, BAD_CRC, OK, SHORT_READ, read_box
from vocodata.store.shard import (
    CHUNK_VOX,
    ShardIndex,
    chunk_grid,
    decode_chunk,
    parse_index,
)
from vocodata.store.turning import TURNED_VOX

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LINE_BYTES = 64
_FAULTS = {
    SHORT_READ: "ends before the chunk: it is truncated",
    BAD_CRC: "does not match the chunk's checksum: it is damaged",
    BAD_CHUNK: "cannot be decompressed: it is damaged",
}


def _aligned(size_bytes: int) -> NDArray[np.uint8]:
    """A buffer that starts with a cache line: columns that straddle two take twice as long."""
    room = np.empty(size_bytes + _LINE_BYTES, np.uint8)
    start = -room.ctypes.data % _LINE_BYTES
    return room[start : start + size_bytes]


class _Scratch(threading.local):
    """Buffers and the decoder of one thread, kept between reads: fresh pages cost more than I/O."""

    def __init__(self) -> None:
        self.raw = np.empty(1 << 20, np.uint8)
        self.decoded = _aligned(DECODED_BYTES)
        self.turned = {n: _aligned(n * TURNED_VOX).view(f"<u{n}") for n in (1, 2)}
        self.context = native.DecodeContext() if native.HAS_BLOSC2 else None

    def raw_of(self, size_bytes: int) -> NDArray[np.uint8]:
        """A buffer of at least that size."""
        if self.raw.size < size_bytes:
            self.raw = np.empty(2 * size_bytes, np.uint8)
        return self.raw


_scratch = _Scratch()


class ShardReader:
    """One open shard: its file descriptor and checked index. Closed when nobody holds it."""

    def __init__(
        self, path: Path, *, shape_XYZ: Size, dtype: np.dtype[Any], fill: int, name: str
    ) -> None:
        """Open the file and check its index.

        Args:
            path: The shard.
            shape_XYZ: Voxels of the array, in memory's order.
            dtype: int16, uint16 or uint8.
            fill: Value of absent chunks and of voxels outside the volume.
            name: What to call the scan in errors.

        Raises:
            StoreError: Missing, truncated or damaged.
        """
        self.path, self.shape_XYZ, self.dtype, self.fill, self.name = (
            path,
            shape_XYZ,
            dtype,
            fill,
            name,
        )
        self.descriptor = -1
        self.descriptor = _open(path, name)
        self.index = self._read_index()
        # The scatter moves bits; one compiled version for each width serves all kinds.
        self._bits = np.dtype(f"<u{dtype.itemsize}")
        self._fill_bits = np.array([fill], dtype).view(self._bits)[0]
        # Most bytes that chunks along x, side by side, can have.
        self._row_bytes = int(self.index.bytes_CCC.sum(axis=2).max(initial=0))

    def __del__(self) -> None:
        """Close the descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def _read_index(self) -> ShardIndex:
        grid = chunk_grid(self.shape_XYZ[::-1])
        shard_bytes = os.fstat(self.descriptor).st_size
        # Nothing if there is too little: a wrong shape may ask for more than any memory.
        size = grid.index_bytes if grid.index_bytes <= shard_bytes else 0
        tail = os.pread(self.descriptor, size, shard_bytes - size)
        try:
            return parse_index(tail, grid, shard_bytes=shard_bytes)
        except StoreError as error:
            raise self._fault(error.detail) from error

    def read(self, start_XYZ: Size, size_XYZ: Size, *, check_crc: bool) -> NDArray[Any]:
        """The voxels of a box, C-contiguous (X, Y, Z); outside the volume, the fill value.

        Raises:
            StoreError: A chunk of the box is truncated or damaged.
        """
        # Plain steps: of a small box that comes from cold memory, Python would be a seventh.
        (x, y, z), (columns, rows, layers), whole = start_XYZ, size_XYZ, self.shape_XYZ
        if (
            min(start_XYZ) >= 0
            and x + columns <= whole[0]
            and y + rows <= whole[1]
            and z + layers <= whole[2]
        ):
            out = np.empty(size_XYZ, self.dtype)
            self._read_into(out, start_XYZ, check_crc=check_crc)
            return out
        out = np.full(size_XYZ, self.fill, self.dtype)
        low = Size(*(max(0, a) for a in start_XYZ))
        high = [min(a + n, b) for a, n, b in zip(start_XYZ, size_XYZ, whole, strict=True)]
        if all(a < b for a, b in zip(low, high, strict=True)):
            inside = zip(low, high, start_XYZ, strict=True)
            window = out[tuple(slice(a - s, b - s) for a, b, s in inside)]
            self._read_into(window, low, check_crc=check_crc)
        return out

    def _read_into(self, out_XYZ: NDArray[Any], start: Size, *, check_crc: bool) -> None:
        if not native.HAS_BLOSC2:
            self._read_slowly(out_XYZ, start)
            return
        scratch = _scratch
        assert scratch.context is not None
        fault, chunk = read_box(
            self.descriptor,
            self.index.offset_CCC,
            self.index.bytes_CCC,
            start,
            out_XYZ.view(self._bits),
            self._fill_bits,
            scratch.raw_of(self._row_bytes),
            scratch.decoded,
            scratch.turned[self._bits.itemsize],
            scratch.context.addresses,
            check_crc and native.HAS_CRC32C,
        )
        if fault != OK:
            # c-blosc2's context remembers parts of a head that it refused.
            scratch.context = native.DecodeContext()
            z, y, x = np.unravel_index(chunk, self.index.offset_CCC.shape)
            detail = f"chunk (z {z}, y {y}, x {x}): the shard {_FAULTS[fault]}"
            raise self._fault(detail)

    def _read_slowly(self, out_XYZ: NDArray[Any], start: Size) -> None:
        """The same by numcodecs, a chunk at a time; checksums are always looked at."""
        side = CHUNK_VOX
        stop = [a + n for a, n in zip(start, out_XYZ.shape, strict=True)]
        first = [a // side for a in start]
        last = [(b - 1) // side for b in stop]
        for cx, cy, cz in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
            at = (first[0] + cx, first[1] + cy, first[2] + cz)
            chunk_XYZ = self.chunk(at[::-1]).transpose()
            low = [max(a, c * side) for a, c in zip(start, at, strict=True)]
            high = [min(b, (c + 1) * side) for b, c in zip(stop, at, strict=True)]
            into = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            out_of = tuple(
                slice(a - c * side, b - c * side) for a, b, c in zip(low, high, at, strict=True)
            )
            out_XYZ[into] = chunk_XYZ[out_of]

    def chunk(self, at_ZYX: tuple[int, int, int]) -> NDArray[Any]:
        """One whole chunk (Z, Y, X), checked and decoded by numcodecs.

        Raises:
            StoreError: Truncated or damaged.
        """
        offset, size = int(self.index.offset_CCC[at_ZYX]), int(self.index.bytes_CCC[at_ZYX])
        if offset < 0:
            return np.full((CHUNK_VOX,) * 3, self.fill, self.dtype)
        try:
            return decode_chunk(os.pread(self.descriptor, size, offset), self.dtype)
        except StoreError as error:
            z, y, x = at_ZYX
            detail = f"chunk (z {z}, y {y}, x {x}): {error.detail}"
            raise self._fault(detail) from error

    def _fault(self, detail: str) -> StoreError:
        msg = (
            f"Scan '{self.name}', {self.path}: {detail}. Run 'voco data verify --deep', then build "
            "again with --resume after removing the scan's folder."
        )
        return StoreError(msg)


def _open(path: Path, name: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError as error:
        msg = (
            f"Scan '{name}' is in the catalogue, but its shard {path} is missing. Build again with "
            "--resume, or restore the file."
        )
        raise StoreError(msg) from error
    except OSError as error:
        hint = " Lower the number of open shards." if error.errno == errno.EMFILE else ""
        msg = f"Scan '{name}': {path} cannot be opened ({error.strerror}).{hint}"
        raise StoreError(msg) from error
