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
from vocodata.ledger import default_ledger
from vocodata.plan import BYTES_PER_VOXEL
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
    from vocodata.geometry import Header
    from vocodata.manifest import Manifest

HEADERS = 2000
SPARE = 1.05
"""Room asked for beyond the scans themselves: documents, tables, temporary files."""


@dataclass(frozen=True)
class ScanForecast:
    """What one scan will need.

    Attributes:
        id: Of the scan.
        voxels: On the preset's grid, field included, before the crop.
        peak_bytes: Memory while it is processed.
        reason: Why its header keeps it out, a key of `errors.REASONS`, or "".
    """

    id: str
    voxels: int = 0
    peak_bytes: int = 0
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
    """

    name: str
    scans: int
    expected: int | None
    bytes: int
    voxels: int


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
        peak_bytes: Memory of the largest scan, for each worker.
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
    peak_bytes: int
    largest: str
    sources: tuple[SourceForecast, ...]
    count_faults: tuple[str, ...]


def forecast_build(
    manifest: Manifest, out: Path, *, codec: str = "zstd", headers: int = HEADERS
) -> Forecast:
    """Find the scans of a manifest, read headers, and add up.

    Args:
        manifest: The sources.
        out: Where the store would be; nothing is written.
        codec: Key of `shard.CODECS`.
        headers: How many to read at most, spread evenly over each source.

    Raises:
        ManifestError: As `find_scans`.
    """
    codec_named(codec)
    root = store_path(out)
    scans = find_scans(manifest, salt=salt_beside(default_ledger(root)))
    share = max(1, math.ceil(len(scans) / max(1, headers)))
    sample = {
        source.name: [forecast_scan(scan) for scan in _of(scans, source.name)[::share]]
        for source in manifest.sources
    }
    sources = tuple(
        _source(source.name, len(_of(scans, source.name)), source.expected, sample, codec)
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
        peak_bytes=largest.peak_bytes,
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
    except VocoDataError as error:
        return ScanForecast(scan.id, reason=error.code)
    except OSError:
        return ScanForecast(scan.id, reason="io_error")
    chosen = preset(scan.preset)
    grid = math.prod(grid_after(header.shape_XYZ, header.affine, chosen.spacing_mm))
    squeezed = 0 if chosen.squeeze_vox is None else math.prod(chosen.squeeze_vox)
    peak = peak_bytes(header, grid, has_labels=scan.labels is not None) + 2 * squeezed
    return ScanForecast(scan.id, grid + squeezed, peak)


def peak_bytes(header: Header, grid_voxels: int, *, has_labels: bool) -> int:
    """Most memory that processing a scan takes at once, without its field.

    Reading holds the file's numbers and int16 HU of them, for floats also float32 HU. Resampling
    and storing hold HU of the file and of the grid, and the grid's shard; floats are rounded on
    the way. Labels add one byte a voxel of the grid. Measured, see the test.
    """
    voxels = math.prod(header.shape_XYZ)
    is_float = header.dtype.kind == "f"
    reading = voxels * (header.dtype.itemsize + (6 if is_float else 2))
    hu_bytes = 4 if is_float else 2
    storing = voxels * hu_bytes + grid_voxels * (hu_bytes + 2 + has_labels)
    rounding = voxels * 4 + grid_voxels * 12 if is_float else 0
    return max(reading, storing, rounding)


def _of(scans: Sequence[Scan], source: str) -> list[Scan]:
    return [scan for scan in scans if scan.source == source]


def _source(
    name: str,
    count: int,
    expected: int | None,
    sample: dict[str, list[ScanForecast]],
    codec: str,
) -> SourceForecast:
    looked_at = sample[name]
    voxels = sum(scan.voxels for scan in looked_at) * count // max(1, len(looked_at))
    return SourceForecast(name, count, expected, round(voxels * BYTES_PER_VOXEL[codec]), voxels)
