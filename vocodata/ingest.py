"""One scan in, one processed result out: read, orient, resample, crop, measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocodata.geometry import Size, Spacing, Volume


@dataclass(frozen=True)
class ScanStats:
    """What the stored voxels look like, HU.

    Attributes:
        hu_min: Smallest value.
        hu_max: Largest value.
        hu_mean: Mean.
        hu_std: Standard deviation.
        hu_p1: First percentile.
        hu_p50: Median.
        hu_p99: 99th percentile.
        body_fraction: Share of voxels above -500 HU, which air and lung are not.
    """

    hu_min: int
    hu_max: int
    hu_mean: float
    hu_std: float
    hu_p1: float
    hu_p50: float
    hu_p99: float
    body_fraction: float


@dataclass(frozen=True, eq=False)
class ProcessedScan:
    """A scan ready to be stored.

    Attributes:
        hu: int16 HU in RAS, resampled to the preset's spacing, cropped to the foreground.
        labels: uint8 or uint16 on the same grid, or None.
        field: int16 HU, the crop squeezed to the preset's `squeeze_vox`, or None.
        stats: Of `hu`.
        fingerprint: Small text that stays alike for near-duplicates (vocodata/fingerprint.py).
        source_shape_XYZ: Voxels of the file along its RAS-ordered axes.
        source_spacing_mm: Spacing of the file along its RAS-ordered axes, mm.
        source_digest: Hex SHA-256 of the file's voxels in RAS order, whatever file held them.
        flags: Short words on what a reader should know, such as `clipped_hu`.
    """

    hu: Volume
    labels: Volume | None
    field: Volume | None
    stats: ScanStats
    fingerprint: str
    source_shape_XYZ: Size  # noqa: N815 (shape letters)
    source_spacing_mm: Spacing
    source_digest: str
    flags: tuple[str, ...] = ()
