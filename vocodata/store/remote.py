"""Shards of a store in a bucket: the index once, then the stretches of a box, asked for at once.

A box's chunks lie in rows along x. Stretches with a small gap between them are fetched as one,
since a request costs more than the bytes in between. Chunks are decoded by numcodecs: the network,
not the processor, sets the pace.

Shape letters: X Y Z voxels, C chunks along an axis.
"""

from __future__ import annotations

import functools
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import StoreError
from vocodata.remote import objects
from vocodata.store.reader import ShardReader
from vocodata.store.shard import CHUNK_VOX, ShardIndex, chunk_grid, decode_chunk, parse_index

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from vocodata.geometry import Size
    from vocodata.remote.path import RemotePath

GAP_BYTES = 1 << 17
"""Bytes that are rather read and dropped than asked around."""
INDEXES_KEPT = 2048
"""Of shards; 5 to 20 KB each."""
Place = tuple[int, int, int]


class RemoteShard(ShardReader):
    """One shard in a bucket; nothing stays open."""

    def __init__(
        self,
        path: RemotePath,
        *,
        shape_XYZ: Size,
        dtype: np.dtype[Any],
        fill: int,
        name: str,
        shard_bytes: int,
        digest: str,
    ) -> None:
        """Fetch and check its index, unless it is known.

        Args:
            path: The shard.
            shape_XYZ: Voxels of the array, in memory's order.
            dtype: int16, uint16 or uint8.
            fill: Value of absent chunks and of voxels outside the volume.
            name: What to call the scan in errors.
            shard_bytes: Size of the whole shard, as the catalogue says.
            digest: Of the shard, which the index belongs to.

        Raises:
            StoreError: Missing, truncated or damaged.
            RemoteError: The server refuses or does not answer.
        """
        self.descriptor = -1
        self.path, self.shape_XYZ, self.dtype, self.fill = path, shape_XYZ, dtype, fill
        self.name, self._place = name, path
        try:
            self.index = _index(path, shape_XYZ[::-1], shard_bytes, digest)
        except FileNotFoundError as error:
            msg = (
                f"Scan '{name}' is in the catalogue, but its shard {path} is missing. Build again "
                "with --resume, or restore the object."
            )
            raise StoreError(msg) from error
        except StoreError as error:
            raise self._fault(error.detail) from error

    def read(self, start_XYZ: Size, size_XYZ: Size, *, check_crc: bool) -> NDArray[Any]:  # noqa: ARG002 (always checked)
        """The voxels of a box, C-contiguous (X, Y, Z); outside the volume, the fill value.

        Raises:
            StoreError: A chunk of the box is truncated or damaged.
            RemoteError: The server refuses or does not answer.
        """
        out_XYZ = np.full(size_XYZ, self.fill, self.dtype)
        for at, data in self._fetched(_places(start_XYZ, size_XYZ, self.index)):
            corner = [CHUNK_VOX * n - start for n, start in zip(at[::-1], start_XYZ, strict=True)]
            low = [max(0, n) for n in corner]
            # A chunk at the border is wider than the volume, and may lie in the box beyond it only.
            ends = zip(low, corner, size_XYZ, start_XYZ, self.shape_XYZ, strict=True)
            high = [max(a, min(n + CHUNK_VOX, size, b - start)) for a, n, size, start, b in ends]
            into = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            out_of = tuple(slice(a - n, b - n) for a, b, n in zip(low, high, corner, strict=True))
            out_XYZ[into] = self._decoded(at, data).transpose()[out_of]
        return out_XYZ

    def chunk(self, at_ZYX: Place) -> NDArray[Any]:
        """One whole chunk (Z, Y, X), checked and decoded.

        Raises:
            StoreError: Truncated or damaged.
            RemoteError: The server refuses or does not answer.
        """
        for at, data in self._fetched([at_ZYX]):
            return self._decoded(at, data)
        return np.full((CHUNK_VOX,) * 3, self.fill, self.dtype)

    def _fetched(self, places: Iterable[Place]) -> list[tuple[Place, bytes]]:
        """The bytes of those chunks that are there."""
        offset, size = self.index.offset_CCC, self.index.bytes_CCC
        wanted = sorted((int(offset[at]), int(size[at]), at) for at in places if offset[at] >= 0)
        stretches = coalesced([(first, first + count) for first, count, _ in wanted], GAP_BYTES)
        if not stretches:
            return []
        pieces = objects.read_many(self._place, stretches)
        found, number = [], 0
        for first, count, at in wanted:
            while first >= stretches[number][1]:
                number += 1
            begin = first - stretches[number][0]
            found.append((at, pieces[number][begin : begin + count]))
        return found

    def _decoded(self, at: Place, data: bytes) -> NDArray[Any]:
        try:
            return decode_chunk(data, self.dtype)
        except StoreError as error:
            z, y, x = at
            detail = f"chunk (z {z}, y {y}, x {x}): {error.detail}"
            raise self._fault(detail) from error


def coalesced(stretches: Iterable[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Sorted stretches of bytes, joined where at most `gap` lies between.

    >>> coalesced([(0, 10), (12, 20), (40, 50)], gap=5)
    [(0, 20), (40, 50)]
    """
    joined: list[tuple[int, int]] = []
    for first, stop in stretches:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((first, stop))
    return joined


def _places(start_XYZ: Size, size_XYZ: Size, index: ShardIndex) -> Iterable[Place]:
    """Chunks (Z, Y, X) that a box touches."""
    counts = index.offset_CCC.shape
    z, y, x = (
        range(max(0, start // CHUNK_VOX), min(count, (start + size - 1) // CHUNK_VOX + 1))
        for start, size, count in zip(start_XYZ[::-1], size_XYZ[::-1], counts, strict=True)
    )
    return product(z, y, x)


@functools.lru_cache(maxsize=INDEXES_KEPT)
def _index(path: RemotePath, shape_ZYX: Place, shard_bytes: int, digest: str) -> ShardIndex:  # noqa: ARG001 (another digest is another index)
    grid = chunk_grid(shape_ZYX)
    tail = objects.read(path, max(0, shard_bytes - grid.index_bytes), shard_bytes)
    return parse_index(tail, grid, shard_bytes=shard_bytes)
