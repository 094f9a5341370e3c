"""What a store says of a scan before a voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocodata.geometry import Affine, Size, Spacing


@dataclass(frozen=True, eq=False)
class ScanInfo:
    """What training needs to know of a scan before it reads a voxel.

    Attributes:
        id: `source/name`.
        source: Name of the manifest's source.
        preset: Row of presets.yaml it was built with.
        shape_XYZ: Voxels.
        spacing_mm: Distance between voxel centres.
        affine: (4, 4) float64, voxel index -> RAS mm.
        window_hu: Window that training uses, HU.
        weight: Sampling weight.
        licence: As the manifest has it, or None.
        label_names: Label value -> structure; empty without labels.
        flags: Short words on what a reader should know.
        digest: SHA-256 of the image's shard.
        voxels: Product of the shape.
    """

    id: str
    source: str
    preset: str
    shape_XYZ: Size  # noqa: N815 (shape letters)
    spacing_mm: Spacing
    affine: Affine
    window_hu: tuple[float, float]
    weight: float
    licence: str | None
    label_names: dict[int, str]
    flags: tuple[str, ...]
    digest: str
    voxels: int
