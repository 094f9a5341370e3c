"""From a manifest to a list of scans: one row a scan, the only place with paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Scan:
    """One scan to be read.

    Attributes:
        id: `source/name`, unique in a manifest, safe as a path.
        source: Name of the manifest's source.
        name: The scan's own name, from its path below the source's root.
        image: NIfTI, MHA, MHD or NRRD file, or a folder with one DICOM series.
        labels: Label file on the image's grid, or None.
        label_names: Label value -> structure, or None if nobody said.
        preset: Row of presets.yaml.
        weight: How often training draws from this source, relative to others.
        licence: As the manifest has it, or None.
    """

    id: str
    source: str
    name: str
    image: Path
    labels: Path | None
    label_names: Mapping[int, str] | None
    preset: str
    weight: float = 1.0
    licence: str | None = None
