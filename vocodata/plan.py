"""What a build has to do, worked out before any voxel is read.

Same recipe (vocodata/recipe.py), files in place: nothing to do.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vocodata.archives import unpacked
from vocodata.errors import VocoDataError
from vocodata.hu_steps import checked_step
from vocodata.job import ScanJob
from vocodata.ledger import EXCLUDED, Entry
from vocodata.presets import preset
from vocodata.readers import read_header
from vocodata.recipe import scan_recipe, store_recipe
from vocodata.store.metadata import DOCUMENT
from vocodata.store.root import file_sizes
from vocodata.store.shard import codec_named
from vocodata.store.writer import scan_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from vocodata.discover import Scan
    from vocodata.store.catalog import ExcludedRow

TRANSIENT_REASONS = frozenset(
    {
        "kills_worker", "out_of_memory", "io_error", "source_unreachable", "source_changed",
        # What was there when it was listed: a disk that went, or that a worker does not have.
        "file_missing", "labels_missing",
    }
)  # fmt: skip
"""Reasons that lie in the machine rather than the file: tried again by a resumed build."""
BYTES_PER_VOXEL = {"zstd": 1.0, "lz4": 1.3}
"""Measured on five real chest and thorax scans at two spacings: 0.8 to 1.13 and 1.0 to 1.38."""
STEP_SHARE = {"zstd": {1: 1.0, 2: 0.9, 4: 0.8}, "lz4": {1: 1.0, 2: 1.0, 4: 1.0}}
"""Of those bytes, at a step of so many HU: the largest of benchmarks/disk.py. lz4 looks for what
comes again and has no short codes for few values: on some scans it gains nothing."""
HEADERS_SAMPLED = 64


@dataclass(frozen=True)
class BuildPlan:
    """What is to be done.

    Attributes:
        found: All scans of the manifest.
        jobs: Those to be built, by source, and there by place in an archive or by id.
        done: Ids of those in the store already, by the same recipe.
        settled_excluded: Ids of those that were excluded by the same recipe.
        stale: Ids the ledger knows that must be forgotten: changed, damaged, or gone.
        dropped: Ids the ledger knows that the manifest no longer names; part of `stale`.
        remade: Ids that are in the store by another recipe; part of `stale`.
        recipe_digest: Of the whole store; independent of files' times.
    """

    found: tuple[Scan, ...]
    jobs: tuple[ScanJob, ...]
    done: frozenset[str]
    settled_excluded: frozenset[str]
    stale: frozenset[str]
    dropped: frozenset[str]
    remade: frozenset[str]
    recipe_digest: str


@dataclass(frozen=True)
class SizePrediction:
    """What a build will need, from the headers of some scans.

    Attributes:
        bytes: Of the finished scans that are still to be built.
        voxels: Behind them.
        free_bytes: Room on the store's disk now.
        headers_read: Scans that were looked at; the rest is taken to be like them.
        unreadable: Of those, headers that could not be read.
    """

    bytes: int
    voxels: int
    free_bytes: int
    headers_read: int
    unreadable: int


def make_plan(
    scans: Sequence[Scan],
    entries: Mapping[str, Entry],
    store: Path,
    codec: str,
    *,
    step_hu: int = 1,
) -> BuildPlan:
    """Compare what was found with what is settled.

    Args:
        scans: All scans of the manifest.
        entries: What the ledger knows.
        store: Folder of the store; files that the ledger names are looked for there.
        codec: Key of `shard.CODECS`.
        step_hu: One of `hu_steps.STEPS_HU`.
    """
    codec_named(codec)
    checked_step(step_hu)
    # Workers may stand in another folder.
    place = store.absolute()
    jobs, done, excluded, remade, size_of = [], set(), set(), set(), file_sizes(store)
    for scan in sorted(scans, key=_order):
        recipe = scan_recipe(scan, codec, step_hu=step_hu)
        entry = entries.get(scan.id)
        if (
            entry is None
            or entry.recipe != recipe
            or not _stands(scan_folder(store, scan.id), entry, size_of)
        ):
            jobs.append(ScanJob(scan, recipe, place, codec, step_hu))
            if entry is not None and entry.recipe != recipe and entry.state != EXCLUDED:
                remade.add(scan.id)
        elif entry.state == EXCLUDED:
            excluded.add(scan.id)
        else:
            done.add(scan.id)
    known = frozenset(entries)
    return BuildPlan(
        found=tuple(scans),
        jobs=tuple(jobs),
        done=frozenset(done),
        settled_excluded=frozenset(excluded),
        stale=known - done - excluded,
        dropped=known - {scan.id for scan in scans},
        remade=frozenset(remade),
        recipe_digest=store_recipe(scans, codec, step_hu=step_hu),
    )


def _order(scan: Scan) -> tuple[str, int, str]:
    """By source; within it as a compressed tar is passed through, else by id."""
    packed = scan.packed
    is_stream = packed is not None and packed.archive.kind == "tar-stream" and packed.image
    place = min(member.offset for member in packed.image) if packed and is_stream else 0
    return scan.source, place, scan.id


def _stands(folder: Path, entry: Entry, size_of: Callable[[Path], int | None]) -> bool:
    """Whether a settled scan needs no more work: its files are there, as long as they were."""
    if entry.state == EXCLUDED:
        return entry.reason not in TRANSIENT_REASONS
    sizes = {place: size_of(folder / place) for place in entry.shards}
    return sizes == entry.shards and size_of(folder / DOCUMENT) is not None


def lost_scans(store: Path, entries: Mapping[str, Entry]) -> list[str]:
    """Scans that were stored and whose files are not there, as long as they were."""
    size_of = file_sizes(store)
    return [
        scan
        for scan, entry in entries.items()
        if entry.state != EXCLUDED and not _stands(scan_folder(store, scan), entry, size_of)
    ]


def may_pass(excluded: Iterable[ExcludedRow]) -> str:
    """What to say of scans that are out for a reason that lies in the machine; "" for none."""
    reasons = Counter(row.reason for row in excluded if row.reason in TRANSIENT_REASONS)
    if not reasons:
        return ""
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return (
        f"scans that are left out for a reason that may pass: {counted}. --resume tries them again."
    )


def predict_size(plan: BuildPlan, *, headers: int = HEADERS_SAMPLED) -> SizePrediction:
    """How big the scans to be built will be.

    An upper guess: the foreground crop is not known before voxels are read.

    Args:
        plan: From `make_plan`.
        headers: Scans to look at, spread evenly over the plan.
    """
    step = max(1, len(plan.jobs) // max(1, headers))
    sample = plan.jobs[::step]
    voxels = unreadable = 0
    for job in sample:
        try:
            voxels += _voxels(job)
        except VocoDataError:
            unreadable += 1
    scale = len(plan.jobs) / len(sample) if sample else 0.0
    total = round(voxels * scale)
    free = shutil.disk_usage(_existing(plan.jobs[0].store)).free if plan.jobs else 0
    first = plan.jobs[0] if plan.jobs else None
    per_voxel = 0.0 if first is None else bytes_per_voxel(first.codec, first.step_hu)
    return SizePrediction(round(total * per_voxel), total, free, len(sample), unreadable)


def bytes_per_voxel(codec: str, step_hu: int) -> float:
    """What a voxel takes on disk, an upper guess."""
    return BYTES_PER_VOXEL[codec] * STEP_SHARE[codec][checked_step(step_hu)]


def _voxels(job: ScanJob) -> int:
    """Voxels of a scan on its preset's grid, before the crop."""
    with unpacked(job.scan, head_only=True) as scan:
        header = read_header(scan.image, files=scan.files)
    volume_mm3 = 1.0
    for size, spacing in zip(header.shape_XYZ, header.spacing_mm, strict=True):
        volume_mm3 *= size * spacing
    chosen = preset(job.scan.preset)
    x, y, z = chosen.spacing_mm
    squeezed = 0 if chosen.squeeze_vox is None else math.prod(chosen.squeeze_vox)
    return round(volume_mm3 / (x * y * z)) + squeezed


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
