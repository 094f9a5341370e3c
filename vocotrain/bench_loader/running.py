"""The whole run: volumes on disk, every reader in both ways of malloc, two processes."""

from __future__ import annotations

import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocotrain.bench_loader.measuring import measured
from vocotrain.bench_loader.scaling import scaling
from vocotrain.bench_loader.volumes import ct_like, write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocodata.geometry import Size
    from vocotrain.bench_loader.measuring import Row
    from vocotrain.bench_loader.readers import Opener
    from vocotrain.bench_loader.scaling import Scaling
    from vocotrain.bench_loader.settings import LoaderSettings


@dataclass(frozen=True)
class LoaderReport:
    """What a run found.

    Attributes:
        machine: Processor and its cores at hand.
        rows: Medians, a row a reader, crop, malloc and size of volume.
        bytes_per_voxel: Of the files of each kind, by their ending or the store's name.
        scaling: What two processes do over what one does, by codec, and where they share nothing.
    """

    machine: str
    rows: tuple[Row, ...]
    bytes_per_voxel: dict[str, float]
    scaling: dict[str, Scaling]

    def row(self, volume_vox: Size, malloc: str, crop: str, reader: str) -> Row | None:
        """The row of a case, if it was measured."""
        wanted = (volume_vox, malloc, crop, reader)
        for row in self.rows:
            if (row.volume_vox, row.malloc, row.crop, row.reader) == wanted:
                return row
        return None


def bench_loader(
    settings: LoaderSettings,
    say: Callable[[str], None],
    *,
    folder: Path | None = None,
    others: dict[str, Opener] | None = None,
) -> LoaderReport:
    """Make volumes, check that all readers give the same voxels, and time them.

    Args:
        settings: What is asked for.
        say: Told what is going on.
        folder: Where volumes are made, and removed afterwards; a temporary folder if None.
        others: More readers, by name; module-level functions, since they travel to a process.

    Raises:
        BenchmarkError: A reader gives other voxels, or a process died or hangs.
    """
    rows: list[Row] = []
    per_voxel: dict[str, float] = {}
    scales: dict[str, Scaling] = {}
    for size in settings.volumes_vox:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            made = Path(name)
            say(f"writing {settings.volumes} volumes of {tuple(size)} in every format")
            volumes = [ct_like(seed, size) for seed in range(settings.volumes)]
            write_all(made, volumes, is_quick=settings.is_quick)
            del volumes
            for malloc in settings.mallocs:
                say(f"reading, {malloc} malloc")
                rows += measured(made, size, malloc, settings, others or {})
            if not per_voxel:
                voxels = settings.volumes * size.x * size.y * size.z
                per_voxel = {k: n / voxels for k, n in _stored_bytes(made).items()}
                say("reading with two processes")
                scales = scaling(made, size, settings.volumes, window_s=settings.scaling_s)
    machine = f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    return LoaderReport(machine, tuple(rows), per_voxel, scales)


def _stored_bytes(folder: Path) -> dict[str, int]:
    """Bytes on disk by kind of file."""
    totals: dict[str, int] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            first = path.relative_to(folder).parts[0]
            kind = first if first.startswith("voco-") else first.partition(".")[2]
            totals[kind] = totals.get(kind, 0) + path.stat().st_size
    return totals
