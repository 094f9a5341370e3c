"""The report as tables for people: medians, and each goal with what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vocotrain.bench_loader.readers import BASELINE, UNCHECKED
from vocotrain.bench_loader.scaling import NOTHING_SHARED
from vocotrain.bench_loader.settings import CROPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vocodata.geometry import Size
    from vocotrain.bench_loader.running import LoaderReport

HEADER = ("volume", "malloc", "reader", *CROPS, "read MB", "from disk MB", "x field's bytes")
GOAL_HEADER = ("goal", "asked", "measured", "")
_BYTES_PER_HU = 2


class Goal(NamedTuple):
    """A reader that is to be so many times as fast as another."""

    reader: str
    peer: str
    malloc: str
    times: tuple[float | None, ...]
    """For each of `CROPS`, or None."""


_B2ND, _NNUNET = "b2nd int16, blocks of 16^3", "b2nd float32, as nnU-Net"
GOALS = (
    Goal("voco zstd", BASELINE, "default", (5, 12, 28)),
    Goal("voco lz4", BASELINE, "default", (11, None, None)),
    Goal("voco zstd", BASELINE, "tuned", (1.7, 3, 8)),
    Goal("voco lz4", BASELINE, "tuned", (1.7, 3, 8)),
    Goal("voco zstd", "tensorstore on voco zstd", "default", (1.3, 1.3, 1.3)),
    Goal("voco lz4", "tensorstore on voco lz4", "default", (1.3, 1.3, 1.3)),
    Goal("voco zstd", _B2ND, "default", (1, 1, 1)),
    Goal("voco zstd", _NNUNET, "default", (1.9, 1.9, 1.9)),
    Goal(UNCHECKED, _NNUNET, "default", (1.9, 1.9, 1.9)),
)
MOST_READ, LEAST_SAVED, LEAST_SCALING = 2.2, 14.0, 1.8
LEAST_IDLE = 1.9
"""What processes that share nothing must reach, or something else takes the cores."""


def table(report: LoaderReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines: wall ms and, in processor time, how many times as fast as the baseline."""
    lines = []
    for size, malloc, reader in dict.fromkeys(
        (row.volume_vox, row.malloc, row.reader) for row in report.rows
    ):
        cells = []
        for crop in CROPS:
            row = report.row(size, malloc, crop, reader)
            assert row is not None
            times = _times(report, size, Goal(reader, BASELINE, malloc, ()), crop)
            cells.append(f"{row.wall_ms:.2f} ms {times:.1f}x")
        field = report.row(size, malloc, "field", reader)
        assert field is not None
        disk = "" if field.disk_mb is None else f"{field.disk_mb:.1f}"
        share = f"{field.read_mb / _crop_mb('field'):.2f}" if field.read_mb > 0.1 else ""
        label = "x".join(map(str, size))
        lines.append((label, malloc, reader, *cells, f"{field.read_mb:.1f}", disk, share))
    return HEADER, lines


def goals(report: LoaderReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and lines: what was asked, what came, `met` or `MISSED`; peers not there are left out.

    Ratios are of processor time, the smallest over the sizes of volumes.
    """
    lines = [
        _line(f"{goal.reader} over {goal.peer}, {crop}, {goal.malloc} malloc", asked, times)
        for goal in GOALS
        for crop, asked in zip(CROPS, goal.times, strict=True)
        if asked is not None
        for times in _smallest(report, goal, crop)
    ]
    read = max(row.read_mb / _crop_mb(row.crop) for row in report.rows if row.reader == "voco zstd")
    lines.append(_line("bytes read over the crop's, zstd", MOST_READ, read, is_most=True))
    saved = list(_disk_saved(report))
    if saved:
        lines.append(_line("bytes from disk for a field, .pt over zstd", LEAST_SAVED, min(saved)))
    for work, found in report.scaling.items():
        spread = f"({found.least:.2f} to {found.most:.2f}; by the slower {found.by_slower:.2f})"
        goal = f"two processes over one, {work} {spread}"
        if work == NOTHING_SHARED:
            is_idle = found.together >= LEAST_IDLE
            verdict = "the machine itself" if is_idle else "busy machine: measure again"
            lines.append((goal, "", f"{found.together:.2f}", verdict))
        else:
            lines.append(_line(goal, LEAST_SCALING, found.together))
    return GOAL_HEADER, lines


def _line(goal: str, asked: float, times: float, *, is_most: bool = False) -> tuple[str, ...]:
    is_met = times <= asked if is_most else times >= asked
    return goal, f"{asked:g}", f"{times:.2f}", "met" if is_met else "MISSED"


def _smallest(report: LoaderReport, goal: Goal, crop: str) -> Iterator[float]:
    sizes = dict.fromkeys(row.volume_vox for row in report.rows)
    found = [_times(report, size, goal, crop) for size in sizes]
    measured = [times for times in found if times > 0]
    if measured:
        yield min(measured)


def _times(report: LoaderReport, size: Size, goal: Goal, crop: str) -> float:
    """How many times as fast the reader is as its peer, in processor time; 0 if not measured."""
    ours = report.row(size, goal.malloc, crop, goal.reader)
    theirs = report.row(size, goal.malloc, crop, goal.peer)
    return theirs.processor_ms / ours.processor_ms if ours and theirs else 0.0


def _disk_saved(report: LoaderReport) -> Iterator[float]:
    for row in report.rows:
        peer = report.row(row.volume_vox, row.malloc, row.crop, BASELINE)
        if row.reader == "voco zstd" and row.disk_mb and peer and peer.disk_mb:
            yield peer.disk_mb / row.disk_mb


def _crop_mb(crop: str) -> float:
    size = CROPS[crop]
    return size.x * size.y * size.z * _BYTES_PER_HU / 1e6
