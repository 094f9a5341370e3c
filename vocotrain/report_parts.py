"""The parts of a report, each made from what lies on disk: scans, curves, the task on one field."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.geometry import Size
from vocotrain.charts import Line, line_chart
from vocotrain.figures import PLANES, Picture, middle, slice_picture
from vocotrain.report_page import (
    Accounting,
    Box,
    Cell,
    ChartCard,
    Legend,
    Panel,
    PositionCard,
    ScanCard,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from vocodata.store import Store
    from vocotrain.position_example import PositionExample
    from vocotrain.run_record import RunRecord

SCANS_SHOWN = 12
_LOSSES = (
    ("loss", "total"),
    ("intra", "intra-volume"),
    ("inter", "inter-volume"),
    ("regulariser", "regulariser"),
)


def scan_cards(
    store: Store, *, held_out: Collection[str], shown: int = SCANS_SHOWN
) -> list[ScanCard]:
    """Middle slices of the store's scans, the held-out ones first.

    Args:
        store: Where they are.
        held_out: Ids that were not trained on.
        shown: Most scans to show.
    """
    ids = sorted(store.ids(), key=lambda scan: scan not in held_out)
    return [_scan_card(store, scan, is_held_out=scan in held_out) for scan in ids[:shown]]


def _scan_card(store: Store, scan: str, *, is_held_out: bool) -> ScanCard:
    info = store.info(scan)
    volume_XYZ = store.read(scan, Size(0, 0, 0), info.shape_XYZ)
    low, high = info.window_hu
    panels = []
    for plane in PLANES:
        index = middle(info.shape_XYZ, plane)
        picture = slice_picture(
            volume_XYZ,
            plane,
            index=index,
            spacing_mm=info.spacing_mm,
            window_hu=info.window_hu,
        )
        alt = f"{scan}, {plane} slice {index}, {low:g} to {high:g} HU"
        panels.append(Panel(plane, picture, alt))
    size = " × ".join(map(str, info.shape_XYZ))  # noqa: RUF001 (a multiplication sign)
    spacing = " × ".join(f"{side:g}" for side in info.spacing_mm)  # noqa: RUF001
    facts = (
        f"{size} voxels of {spacing} mm, window {low:g} to {high:g} HU, "
        f"licence {info.licence or 'not given'}"
    )
    return ScanCard(scan, "held out" if is_held_out else "trained on", facts, panels)


def loss_chart(record: RunRecord) -> ChartCard:
    """The loss and its three terms."""
    styles = [f"line-{number}" for number in range(1, len(_LOSSES) + 1)]
    lines = [
        Line(title, *record.series(name), style)
        for (name, title), style in zip(_LOSSES, styles, strict=True)
    ]
    return ChartCard(
        "Loss",
        line_chart(lines, x_title="step", y_title="loss"),
        [Legend(line.name, f"var(--{line.style})") for line in lines],
        "The total is the sum of the three terms; lower is better.",
    )


def accuracy_chart(record: RunRecord, guess: float) -> ChartCard:
    """Position accuracy on training and held-out scans against a guess that never looks.

    Args:
        record: The run.
        guess: Accuracy expected of always naming the commonest cell.
    """
    steps, values = record.series("position_accuracy")
    lines = [Line("training scans", steps, values, "line-1")]
    held = record.series("heldout_position_accuracy")
    if held[0]:
        lines.append(Line("held-out scans", *held, "line-2", dots=True))
    ends = [min(steps, default=0.0), max(steps, default=1.0)]
    lines.append(Line("constant guess", ends, [guess, guess], "line-0", dashed=True))
    caption = (
        "Share of random crops whose most similar base cell is the one that they overlap most. "
        f"Always naming the commonest cell is right {guess:.0%} of the time on average"
    )
    exact = record.last("heldout_constant_guess")
    caption += f", {exact:.0%} on these held-out crops." if exact is not None else "."
    return ChartCard(
        "Position accuracy",
        line_chart(lines, x_title="step", y_title="share right", y_range=(0.0, 1.0)),
        [Legend(line.name, f"var(--{line.style})", dashed=line.dashed) for line in lines],
        caption,
    )


def constant_guess(grid: Sequence[int]) -> float:
    """Accuracy expected of always naming one cell: the likeliest, where crops lie uniformly.

    Along an axis of n >= 3 cells a crop's start is uniform over n - 1 cells, and a middle cell is
    nearest for one of them; of two cells each is nearest half of the time.

    >>> constant_guess((3, 3, 1))
    0.25
    """
    return float(np.prod([1 / max(cells - 1, 1) if cells != 2 else 0.5 for cells in grid]))


def position_card(example: PositionExample) -> PositionCard:
    """The example as it is shown: an axial slice, cells in the order of the picture."""
    shape, crop = Size(*example.field_XYZ.shape), example.crop_vox
    # With several layers of cells, the one that the crop overlaps most.
    best = int(np.argmax(example.label_K))
    layer = int(example.base_start_K3[best, 2])
    shown = [k for k, start in enumerate(example.base_start_K3) if start[2] == layer]
    cells = [
        Cell(
            _box(Size(*example.base_start_K3[k].tolist()), crop, shape),
            float(example.label_K[k]),
            float(example.similarity_K[k]),
        )
        for k in shown
    ]
    cells.sort(key=lambda cell: (round(cell.box.top, 4), round(cell.box.left, 4)))
    return PositionCard(
        scan=example.scan,
        panel=_field_panel(example, index=min(layer + crop.z // 2, shape.z - 1)),
        crop=_box(example.crop_start, crop, shape),
        cells=cells,
        columns=len({round(cell.box.left, 4) for cell in cells}),
        sentence=_verdict(example, best),
    )


def _verdict(example: PositionExample, best: int) -> str:
    whose = "a scan it was never trained on" if example.is_held_out else "a training scan"
    if int(np.argmax(example.similarity_K)) == best:
        return f"On this field of {whose}, the model names the cell that the crop overlaps most."
    return f"On this field of {whose}, the model names another cell than the one overlapped most."


def _field_panel(example: PositionExample, *, index: int) -> Panel:
    picture: Picture = slice_picture(
        example.field_XYZ,
        "axial",
        index=index,
        spacing_mm=example.spacing_mm,
        window_hu=example.window_hu,
    )
    return Panel("axial", picture, f"Axial slice of a field of {example.scan} with its base cells")


def _box(start: Size, crop: Size, field: Size) -> Box:
    """A box of voxels on an axial picture: its left is the largest x, its top the largest y."""
    return Box(
        left=1 - (start.x + crop.x) / field.x,
        top=1 - (start.y + crop.y) / field.y,
        width=crop.x / field.x,
        height=crop.y / field.y,
    )


def accounting(store: Store) -> Accounting:
    """Found, stored and excluded, as the store says."""
    rows = store.excluded().to_pylist()
    return Accounting(
        found=int(store.attributes["counts"]["found"]),
        stored=len(store),
        excluded=[(f"{row['source']}/{row['scan']}", row["reason"], row["detail"]) for row in rows],
    )
