"""One pass over the voxels of a file: how often each HU is there, and what each slice holds.

The pass gives three things that do not depend on what the header says of orientation or spacing:

- **content digest**: the same for all 48 ways of storing one array, since a slice's sum does not
  see the order of its voxels, and the three lists of sums are hashed in an order of their own.
  Two scans with one digest hold the same voxels; a changed HU anywhere changes it.
- **slice marks**: of each of the three lists the 24 smallest sums of soft-tissue values (-100 to
  200 HU). A stretch of slices cut out of another scan shares many, under whatever affine and
  however far outside it was clipped.
- flat and repeated slices, for quality control.

Shape letters: X Y Z voxels in RAS; K J I the same axes from slowest to fastest in memory.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vocodata.compiling import compiled
from vocodata.memory_order import in_memory_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Volume

MARKS = 24
"""Kept of each axis."""
MARK_WINDOW_HU = (-100, 200)
_LOWEST = 32768
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
        lowest_hu: Smallest value of the file, neither rounded nor clipped.
        highest_hu: Largest value of the file.
    """

    counts: NDArray[np.int64]
    content_digest: str
    marks: NDArray[np.uint32]
    flat_slices: int
    repeated_slices: int
    lowest_hu: float
    highest_hu: float


def take_census(volume: Volume) -> Census:
    """Count a scan's voxels.

    Args:
        volume: HU in RAS as the file has them; parts of HU and values beyond int16 are rounded
            and clipped.
    """
    laid = in_memory_order(volume.data_XYZ)
    counts, along_kji = _sums(laid.data_KJI)
    low, high = _range(volume.data_XYZ, counts)
    axes = laid.along_xyz(along_kji)
    z_sums = axes[2]
    is_flat = _flat_slices(volume.data_XYZ, z_sums)
    alike = (z_sums[1:] == z_sums[:-1]).all(1) & ~is_flat[1:]
    area = [volume.data_XYZ.size // count for count in volume.shape_XYZ]
    marks = [_marks(sums, voxels) for sums, voxels in zip(axes, area, strict=True)]
    return Census(
        counts=counts,
        content_digest=_digest([sums[:, 0] for sums in axes]),
        marks=np.concatenate(sorted(marks, key=lambda each: each.tobytes())),
        flat_slices=int(is_flat.sum()),
        repeated_slices=int(alike.sum()),
        lowest_hu=low,
        highest_hu=high,
    )


def _sums(data_KJI: NDArray[Any]) -> tuple[NDArray[np.int64], list[NDArray[np.uint64]]]:
    """Counts of HU, and what `_tally` tells of the slices along K, J and I."""
    counts = np.zeros(65536, np.int64)
    along_k, *others = (np.zeros((n, 3), np.uint64) for n in data_KJI.shape)
    # Floats slice by slice: rounded as a whole they would take half as much memory again.
    step = len(data_KJI) if data_KJI.dtype == np.int16 else 1
    for k in range(0, len(data_KJI), step):
        part_KJI = _as_int16(data_KJI[k : k + step])
        _tally(part_KJI, _weights(), *MARK_WINDOW_HU, counts, along_k[k : k + step], *others)
    return counts, [along_k, *others]


def _as_int16(data_XYZ: NDArray[Any]) -> NDArray[np.int16]:
    """HU to count: int16 as they are, others rounded half up and clipped, laid as they were."""
    if data_XYZ.dtype == np.int16:
        return data_XYZ
    laid = in_memory_order(data_XYZ)
    whole_KJI = np.empty(laid.data_KJI.shape, np.int16)
    _round_int16(laid.data_KJI, whole_KJI)
    forwards = tuple(slice(None, None, -1 if back else 1) for back in laid.backwards)
    turned: NDArray[np.int16] = whole_KJI.transpose(laid.place)[forwards]
    return turned


def _range(data_XYZ: NDArray[Any], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Smallest and largest value; of int16 the counts tell."""
    if data_XYZ.dtype != np.int16:
        return float(data_XYZ.min()), float(data_XYZ.max())
    present = np.flatnonzero(counts)
    return float(present[0] - _LOWEST), float(present[-1] - _LOWEST)


def _flat_slices(data_XYZ: NDArray[Any], z_sums: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which axial slices hold one value. Only those that the sums allow for are looked at."""
    area = data_XYZ.shape[0] * data_XYZ.shape[1]
    first = _as_int16(data_XYZ[:1, :1])[0, 0].astype(np.int64) + _LOWEST
    may_be = z_sums[:, 0] == _weights()[first, 0] * np.uint64(area)
    is_flat: NDArray[np.bool_] = np.zeros_like(may_be)
    for z in np.flatnonzero(may_be):
        is_flat[z] = (data_XYZ[:, :, z] == data_XYZ[0, 0, z]).all()
    return is_flat


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


@cache
def _weights() -> NDArray[np.uint64]:
    """(65536, 2) random numbers for each HU: for the digest, and for the mark."""
    mixed = np.random.default_rng(2410).integers(0, 2**63, (65536, 2), np.uint64)
    low, high = (hu + _LOWEST for hu in MARK_WINDOW_HU)
    # Whatever lies beyond the window counts as the window's ends do.
    mixed[:, 1] = mixed[np.clip(np.arange(65536), low, high), 1]
    mixed.flags.writeable = False
    return mixed


@compiled
def _tally(
    data_KJI: NDArray[np.int16],
    weights: NDArray[np.uint64],
    low: int,
    high: int,
    counts: NDArray[np.int64],
    k_sums: NDArray[np.uint64],
    j_sums: NDArray[np.uint64],
    i_sums: NDArray[np.uint64],
) -> None:
    """Add up HU; of each slice along each axis both sums and the voxels inside low..high."""
    nk, nj, ni = data_KJI.shape
    # Narrow and side by side, so that the loop over them is vectorised.
    tissue_I = np.zeros(ni, np.uint32)
    for k in range(nk):
        for j in range(nj):
            row = data_KJI[k, j]
            a, b = np.uint64(0), np.uint64(0)
            for i in range(ni):
                at = np.int64(row[i]) + 32768
                counts[at] += 1
                p, q = weights[at, 0], weights[at, 1]
                a += p
                b += q
                i_sums[i, 0] += p
                i_sums[i, 1] += q
            inside = np.uint32(0)
            for i in range(ni):
                is_tissue = np.uint32((row[i] > low) & (row[i] < high))
                inside += is_tissue
                tissue_I[i] += is_tissue
            for sums, at_slice in ((k_sums, k), (j_sums, j)):
                sums[at_slice, 0] += a
                sums[at_slice, 1] += b
                sums[at_slice, 2] += np.uint64(inside)
    for i in range(ni):
        i_sums[i, 2] += np.uint64(tissue_I[i])


@compiled
def _round_int16(data_KJI: NDArray[Any], whole_KJI: NDArray[np.int16]) -> None:
    for k in range(data_KJI.shape[0]):
        for j in range(data_KJI.shape[1]):
            for i in range(data_KJI.shape[2]):
                value = min(max(data_KJI[k, j, i], -32768), 32767)
                whole_KJI[k, j, i] = np.int16(np.floor(value + 0.5))
