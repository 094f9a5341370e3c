"""What a build will need, from headers alone: disk, memory, and whether there is room.

Upper guesses: the foreground crop is not known before voxels are read.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vocodata.archives import unpacked
from vocodata.discover import count_faults, find_scans
from vocodata.errors import VocoDataError
from vocodata.identifiers import salt_beside
from vocodata.ingest import predicted_bytes
from vocodata.ledger import default_ledger
from vocodata.memory import PROCESS_BYTES, limit_for
from vocodata.plan import bytes_per_voxel
from vocodata.presets import preset
from vocodata.readers import read_header
from vocodata.remote.path import RemotePath
from vocodata.resampling import grid_after
from vocodata.store.root import store_path
from vocodata.store.shard import codec_named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vocodata.discover import Scan
    from vocodata.manifest import Manifest

HEADERS = 2000
HEADERS_EXPECTED = 64
FILE_S, GRID_S = 5e-9, 10e-9
"""One core's time for a voxel of the file and of the grid: benchmarks/build.py, within a third on
four scans, all checks included. Slower disks and cores take longer."""
SPARE = 1.05
"""Room asked for beyond the scans themselves: documents, tables, temporary files."""


@dataclass(frozen=True)
class ScanForecast:
    """What one scan will need.

    Attributes:
        id: Of the scan.
        voxels: On the preset's grid, field included, before the crop.
        peak_bytes: Memory while it is processed.
        seconds: One core's time for it.
        reason: Why its header keeps it out, a key of `errors.REASONS`, or "".
    """

    id: str
    voxels: int = 0
    peak_bytes: int = 0
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class SourceForecast:
    """What one source will need.

    Attributes:
        name: Of the source.
        scans: Found.
        expected: As the manifest says, or None.
        bytes: On disk.
        voxels: Behind them.
        seconds: One core's time for all of them.
    """

    name: str
    scans: int
    expected: int | None
    bytes: int
    voxels: int
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """What a build will need.

    Attributes:
        scans: Found.
        headers_read: Scans looked at; the others are taken to be like those of their source.
        unreadable: Reason -> headers read that keep their scan out.
        bytes: On disk, of the finished store.
        voxels: Behind them.
        free_bytes: On the disk of `out` now; None for a store in a bucket.
        fits: Whether there is room for the store.
        seconds: One core's time for all scans; on a core like those of docs/benchmarks.md.
        peak_bytes: Memory of the largest scan.
        worker_bytes: Memory that a worker should have for it, itself included.
        largest: Id of that scan, "" if none could be read.
        sources: One each.
        count_faults: Sources that hold another number of scans than the manifest says.
    """

    scans: int
    headers_read: int
    unreadable: dict[str, int]
    bytes: int
    voxels: int
    free_bytes: int | None
    fits: bool
    seconds: float
    peak_bytes: int
    worker_bytes: int
    largest: str
    sources: tuple[SourceForecast, ...]
    count_faults: tuple[str, ...]


def forecast_build(
    manifest: Manifest,
    out: Path,
    *,
    codec: str = "zstd",
    step_hu: int = 1,
    headers: int = HEADERS,
) -> Forecast:
    """Find the scans of a manifest, read headers, and add up.

    Args:
        manifest: The sources.
        out: Where the store would be; nothing is written.
        codec: Key of `shard.CODECS`.
        step_hu: One of `hu_steps.STEPS_HU`.
        headers: How many to read at most, spread evenly over each source.

    Raises:
        ManifestError: As `find_scans`.
        StoreError: No such codec or step.
    """
    codec_named(codec)
    voxel_bytes = bytes_per_voxel(codec, step_hu)
    root = store_path(out)
    scans = find_scans(manifest, salt=salt_beside(default_ledger(root)))
    share = max(1, math.ceil(len(scans) / max(1, headers)))
    sample = {
        source.name: [forecast_scan(scan) for scan in _of(scans, source.name)[::share]]
        for source in manifest.sources
    }
    sources = tuple(
        _source(source.name, len(_of(scans, source.name)), source.expected, sample, voxel_bytes)
        for source in manifest.sources
    )
    looked_at = [scan for part in sample.values() for scan in part]
    refused = [scan.reason for scan in looked_at if scan.reason]
    largest = max(looked_at, key=lambda scan: scan.peak_bytes)
    needed = sum(source.bytes for source in sources)
    free = _free_bytes(root)
    return Forecast(
        scans=len(scans),
        headers_read=len(looked_at),
        unreadable={reason: refused.count(reason) for reason in sorted(set(refused))},
        bytes=needed,
        voxels=sum(source.voxels for source in sources),
        free_bytes=free,
        fits=free is None or needed * SPARE < free,
        seconds=sum(source.seconds for source in sources),
        peak_bytes=largest.peak_bytes,
        worker_bytes=limit_for(largest.peak_bytes),
        largest=largest.id if largest.peak_bytes else "",
        sources=sources,
        count_faults=tuple(count_faults(manifest, scans)),
    )


def _free_bytes(root: Path) -> int | None:
    """Room on the disk where a store is or would be."""
    if isinstance(root, RemotePath):
        return None
    place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    return shutil.disk_usage(place).free


def forecast_scan(scan: Scan) -> ScanForecast:
    """What one scan needs, from its header."""
    try:
        with unpacked(scan, head_only=True) as files:
            header = read_header(files.image, files=files.files)
            chosen = preset(scan.preset)
            peak = predicted_bytes(files, header, chosen)
    except VocoDataError as error:
        return ScanForecast(scan.id, reason=error.code)
    except OSError:
        return ScanForecast(scan.id, reason="io_error")
    # As in `run_job`: a file that a format library trips over must not end a build of many.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return ScanForecast(scan.id, reason="unexpected_error")
    grid = math.prod(grid_after(header.shape_XYZ, header.affine, chosen.spacing_mm))
    squeezed = 0 if chosen.squeeze_vox is None else math.prod(chosen.squeeze_vox)
    seconds = math.prod(header.shape_XYZ) * FILE_S + (grid + squeezed) * GRID_S
    return ScanForecast(scan.id, grid + squeezed, peak, seconds)


def _of(scans: Sequence[Scan], source: str) -> list[Scan]:
    return [scan for scan in scans if scan.source == source]


def _source(
    name: str,
    count: int,
    expected: int | None,
    sample: dict[str, list[ScanForecast]],
    voxel_bytes: float,
) -> SourceForecast:
    looked_at = sample[name]
    voxels = sum(scan.voxels for scan in looked_at) * count // max(1, len(looked_at))
    seconds = sum(scan.seconds for scan in looked_at) * count / max(1, len(looked_at))
    needed = round(voxels * voxel_bytes)
    return SourceForecast(name, count, expected, needed, voxels, seconds)


@dataclass(frozen=True)
class Expectation:
    """What a build expected before it began; kept in its ledger, for `voco data status`.

    Attributes:
        scans: Found.
        headers_read: Scans looked at; the others are taken to be like them.
        bytes: On disk.
        seconds: One core's time.
        worker_bytes: Memory of the worker that has the largest scan.
    """

    scans: int
    headers_read: int
    bytes: int
    seconds: float
    worker_bytes: int


def expect(
    scans: Sequence[Scan], codec: str, *, step_hu: int = 1, headers: int = HEADERS_EXPECTED
) -> Expectation:
    """A quick forecast of scans that are found already; none of a compressed tar is looked into.

    Args:
        scans: All of a build.
        codec: Key of `shard.CODECS`.
        step_hu: One of `hu_steps.STEPS_HU`.
        headers: How many to read at most, spread evenly.
    """
    seekable = [s for s in scans if s.packed is None or s.packed.archive.kind != "tar-stream"]
    sample = [
        forecast_scan(scan) for scan in seekable[:: max(1, math.ceil(len(seekable) / headers))]
    ]
    scale = len(scans) / max(1, len(sample))
    voxels = sum(scan.voxels for scan in sample) * scale
    return Expectation(
        scans=len(scans),
        headers_read=len(sample),
        bytes=round(voxels * bytes_per_voxel(codec, step_hu)),
        seconds=sum(scan.seconds for scan in sample) * scale,
        worker_bytes=PROCESS_BYTES + max((scan.peak_bytes for scan in sample), default=0),
    )
