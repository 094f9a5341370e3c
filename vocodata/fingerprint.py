"""Digests and fingerprints: the same scan twice, or nearly the same scan twice.

**Voxel digest.** SHA-256 of the voxels in RAS order with their kind and shape. A scan that was
flipped in memory, packed another way or moved from DICOM to NIfTI keeps its digest; one HU changes
it. Spacing and place are not in it, so a copy under a wrong affine is found too.

**Fingerprint.** Text `v1:THUMBNAIL:PROFILE`, both parts base64 of bytes:

- thumbnail: mean of the window -200..300 HU over an 8x8x8 division of the stored box (x, y, z),
  scaled to 0..255. Two packings of one scan differ by a few steps of 255.
- profile: tissue per slab of 10 mm from feet to head, `area` = sum over the slab's voxels of the
  windowed value (0..1) times voxel volume, divided by 10 mm, in units of 5 cm2, cut at 255. It does
  not change when the box is cut tighter in x and y, and a scan cut in z shows up as a stretch of
  another's profile.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.geometry import orient_ras

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Volume

WINDOW_HU = (-200.0, 300.0)
CELLS = 8
SLAB_MM = 10.0
_AREA_UNIT_MM2 = 500.0


class Fingerprint(NamedTuple):
    """A fingerprint's parts as numbers.

    Attributes:
        thumbnail_XYZ: (8, 8, 8) uint8.
        profile: (slabs,) uint8, feet first, 5 cm2 a step.
    """

    thumbnail_XYZ: NDArray[np.uint8]  # noqa: N815 (shape letters)
    profile: NDArray[np.uint8]


def voxel_digest(volume: Volume) -> str:
    """Hex SHA-256 of the voxels in RAS order, with kind and shape; slice by slice, no copy."""
    data_ZYX = orient_ras(volume).data_XYZ.transpose(2, 1, 0)
    kind = data_ZYX.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{kind.str} {data_ZYX.shape}".encode())
    for slice_YX in data_ZYX:
        digest.update(np.ascontiguousarray(slice_YX, dtype=kind).data)
    return digest.hexdigest()


def fingerprint(volume: Volume) -> str:
    """The text fingerprint of a stored scan.

    Args:
        volume: HU in RAS, resampled and cropped.
    """
    low, high = WINDOW_HU
    edges = [np.linspace(0, n, CELLS + 1) for n in volume.shape_XYZ]
    slice_mm3 = float(np.prod(volume.spacing_mm))
    plane_XYZ = np.empty((CELLS, CELLS, volume.shape_XYZ.z))
    tissue_mm3 = np.empty(volume.shape_XYZ.z)
    for z in range(volume.shape_XYZ.z):
        share_XY = (np.clip(volume.data_XYZ[:, :, z], low, high).astype(np.float64) - low) / (
            high - low
        )
        plane_XYZ[:, :, z] = _cell_means(_cell_means(share_XY, edges[0], 0), edges[1], 1)
        tissue_mm3[z] = share_XY.sum() * slice_mm3
    thumbnail = np.rint(_cell_means(plane_XYZ, edges[2], 2) * 255).astype(np.uint8)
    profile = _profile(tissue_mm3, volume.spacing_mm.z)
    parts = (base64.b64encode(part.tobytes()).decode() for part in (thumbnail, profile))
    return ":".join(("v1", *parts))


def parse_fingerprint(text: str) -> Fingerprint:
    """The numbers of a fingerprint.

    Raises:
        ValueError: A text of another version or size.
    """
    version, _, rest = text.partition(":")
    thumbnail, _, profile = rest.partition(":")
    cells = np.frombuffer(base64.b64decode(thumbnail), np.uint8)
    if version != "v1" or cells.size != CELLS**3:
        msg = f"Fingerprint starts with {text[:12]!r}; expected v1: and {CELLS**3} cells."
        raise ValueError(msg)
    return Fingerprint(
        cells.reshape(CELLS, CELLS, CELLS), np.frombuffer(base64.b64decode(profile), np.uint8)
    )


def _cell_means(
    values: NDArray[np.float64], edges: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Means between `edges` (in voxels, not whole) along an axis; edge voxels count by share."""
    total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis=axis)
    lower = np.floor(edges).astype(int)
    upper = np.minimum(lower + 1, values.shape[axis])
    weight = (edges - lower).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    at_edge = total.take(lower, axis) * (1 - weight) + total.take(upper, axis) * weight
    return np.asarray(np.diff(at_edge, axis=axis) / (edges[1] - edges[0]))


def _profile(tissue_mm3: NDArray[np.float64], spacing_z_mm: float) -> NDArray[np.uint8]:
    """Mean tissue area of each slab; the last slab may be a part of one and is left out."""
    slabs = max(1, int(tissue_mm3.size * spacing_z_mm / SLAB_MM + 1e-6))
    edges = np.minimum(np.arange(slabs + 1) * (SLAB_MM / spacing_z_mm), tissue_mm3.size)
    area_mm2 = _cell_means(tissue_mm3, edges, 0) * (edges[1] - edges[0]) / SLAB_MM
    return np.asarray(np.rint(np.clip(area_mm2 / _AREA_UNIT_MM2, 0, 255)), dtype=np.uint8)
