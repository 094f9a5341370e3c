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
    to_x, to_y, to_z = (_cell_weights(np.linspace(0, n, CELLS + 1), n) for n in volume.shape_XYZ)
    plane_XYZ = np.empty((CELLS, CELLS, volume.shape_XYZ.z))
    tissue_mm3 = np.empty(volume.shape_XYZ.z)
    for z in range(volume.shape_XYZ.z):
        share_XY = (np.clip(volume.data_XYZ[:, :, z], low, high) - low) / (high - low)
        plane_XYZ[:, :, z] = to_x @ share_XY @ to_y.T
        tissue_mm3[z] = share_XY.sum() * float(np.prod(volume.spacing_mm))
    thumbnail = np.rint(plane_XYZ @ to_z.T * 255).astype(np.uint8)
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


def _cell_weights(edges: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Matrix (cells, voxels) that takes means between `edges`; edge voxels count by their share."""
    voxels = np.arange(count)
    upper = np.minimum(edges[1:, None], voxels + 1)
    lower = np.maximum(edges[:-1, None], voxels)
    return np.asarray(np.maximum(upper - lower, 0) / np.diff(edges)[:, None])


def _profile(tissue_mm3: NDArray[np.float64], spacing_z_mm: float) -> NDArray[np.uint8]:
    """Mean tissue area of each whole slab; a scan of less than one slab has one."""
    slabs = max(1, int(tissue_mm3.size * spacing_z_mm / SLAB_MM + 1e-6))
    edges = np.minimum(np.arange(slabs + 1) * (SLAB_MM / spacing_z_mm), tissue_mm3.size)
    area_mm2 = _cell_weights(edges, tissue_mm3.size) @ tissue_mm3 / spacing_z_mm
    return np.asarray(np.rint(np.clip(area_mm2 / _AREA_UNIT_MM2, 0, 255)), dtype=np.uint8)
