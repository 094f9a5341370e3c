"""One pass over the voxels of a file: how often each HU is there, and what each slice holds.

The pass gives three things that do not depend on what the header says of orientation or spacing:

- **content digest**: the same for all 48 ways of storing one array, since a slice's sum does not
  see the order of its voxels, and the three lists of sums are hashed in an order of their own.
  Two scans with one digest hold the same voxels; a changed HU anywhere changes it.
- **slice marks**: of each of the three lists the 24 smallest sums of soft-tissue values (-100 to
  200 HU). A stretch of slices cut out of another scan shares many, under whatever affine and
  however far outside it was clipped.
- flat and repeated slices, for quality control.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Volume

MARKS = 24
"""Kept of each axis."""
MARK_WINDOW_HU = (-100, 200)
_MIN_TISSUE_SHARE = 0.02
"""Slices with less soft tissue are alike in all scans, and give no mark."""


class Census(NamedTuple):
    """What one pass over a file's voxels tells.

    Attributes:
        counts: (65536,) voxels of each HU from -32768 on.
        content_digest: Hex SHA-256, the same however the array is turned or mirrored.
        marks: (72,) uint32, 24 of each axis, 0 where there are fewer slices.
        flat_slices: Axial slices that hold one value only.
        repeated_slices: Axial slices with the content of the one before; flat ones do not count.
    """

    counts: NDArray[np.int64]
    content_digest: str
    marks: NDArray[np.uint32]
    flat_slices: int
    repeated_slices: int


def take_census(volume: Volume) -> Census:
    """Count a scan's voxels.

    Args:
        volume: HU in RAS as the file has them; parts of HU and values beyond int16 are rounded
            and clipped.
    """
    data_ZYX = volume.data_XYZ.transpose(2, 1, 0)
    tally = _tally(data_ZYX, _weights())
    counts, z_sums, y_sums, x_sums, is_flat = tally
    axes = [z_sums, y_sums, x_sums]
    alike = (z_sums[1:] == z_sums[:-1]).all(1) & ~is_flat[1:]
    area = [data_ZYX.size // count for count in data_ZYX.shape]
    marks = [_marks(sums, voxels) for sums, voxels in zip(axes, area, strict=True)]
    return Census(
        counts=counts,
        content_digest=_digest([sums[:, 0] for sums in axes]),
        marks=np.concatenate(sorted(marks, key=lambda each: each.tobytes())),
        flat_slices=int(is_flat.sum()),
        repeated_slices=int(alike.sum()),
    )


def _digest(axes: list[NDArray[np.uint64]]) -> str:
    either_way = [min(sums.tobytes(), sums[::-1].tobytes()) for sums in axes]
    digest = hashlib.sha256()
    for sums in sorted(either_way, key=lambda each: (len(each), each)):
        digest.update(len(sums).to_bytes(8, "little") + sums)
    return digest.hexdigest()


def _marks(sums: NDArray[np.uint64], voxels: int) -> NDArray[np.uint32]:
    """The smallest marks of slices with tissue in them."""
    has_tissue = sums[:, 2] >= _MIN_TISSUE_SHARE * voxels
    found = np.unique((sums[has_tissue, 1] >> np.uint64(32)).astype(np.uint32))[:MARKS]
    return np.pad(found, (0, MARKS - found.size))


def _weights() -> NDArray[np.uint64]:
    """(65536, 3) random numbers for each HU: for the digest, for the mark, and whether tissue."""
    mixed = np.random.default_rng(2410).integers(0, 2**63, (65536, 2), np.uint64)
    low, high = (hu + 32768 for hu in MARK_WINDOW_HU)
    # Whatever lies beyond the window counts as the window's ends do.
    mark = mixed[np.clip(np.arange(65536), low, high), 1]
    hu = np.arange(65536)
    return np.ascontiguousarray(np.stack([mixed[:, 0], mark, (hu > low) & (hu < high)], axis=1))


@compiled
def _tally(
    data_ZYX: NDArray[Any], weights: NDArray[np.uint64]
) -> tuple[
    NDArray[np.int64],
    NDArray[np.uint64],
    NDArray[np.uint64],
    NDArray[np.uint64],
    NDArray[np.bool_],
]:
    nz, ny, nx = data_ZYX.shape
    counts = np.zeros(65536, np.int64)
    z_sums = np.zeros((nz, 3), np.uint64)
    y_sums = np.zeros((ny, 3), np.uint64)
    x_sums = np.zeros((nx, 3), np.uint64)
    is_flat = np.ones(nz, np.bool_)
    for z in range(nz):
        first = data_ZYX[z, 0, 0]
        for y in range(ny):
            a, b, c = np.uint64(0), np.uint64(0), np.uint64(0)
            for x in range(nx):
                value = data_ZYX[z, y, x]
                if value != first:
                    is_flat[z] = False
                at = np.int64(np.floor(min(max(value, -32768), 32767) + 0.5)) + 32768
                counts[at] += 1
                a += weights[at, 0]
                b += weights[at, 1]
                c += weights[at, 2]
                x_sums[x, 0] += weights[at, 0]
                x_sums[x, 1] += weights[at, 1]
                x_sums[x, 2] += weights[at, 2]
            y_sums[y, 0] += a
            y_sums[y, 1] += b
            y_sums[y, 2] += c
            z_sums[z, 0] += a
            z_sums[z, 1] += b
            z_sums[z, 2] += c
    return counts, z_sums, y_sums, x_sums, is_flat
