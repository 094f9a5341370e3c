"""One small picture of a run, for a README or a slide: the task, the learning, the outcome."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from vocotrain.figures import Picture
    from vocotrain.report_page import Box, Page, PositionCard
    from vocotrain.run_record import RunRecord

AMBER = "#ffb000"
STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 10, "font.family": "sans-serif"}


def write_summary(path: Path, *, page: Page, record: RunRecord, guess: float) -> Path:
    """Write the picture as a PNG below 200 kB.

    Args:
        path: The file.
        page: The run's report.
        record: The run, for its curves.
        guess: Position accuracy of a constant guess.
    """
    panels = page.finetune.panels[1:] if page.finetune else ()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * (2 + len(panels)), 3.1), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, 2 + len(panels), squeeze=False)[0]
        _draw_position(axes[0], page.position)
        _draw_accuracy(axes[1], record, guess)
        for place, panel in zip(axes[2:], panels, strict=True):
            _draw_picture(place, panel.picture, panel.name)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return path


def _draw_position(axes: Axes, card: PositionCard | None) -> None:
    if card is None:
        axes.set_axis_off()
        return
    _draw_picture(axes, card.panel.picture, "where does the amber crop lie?")
    for cell in card.cells:
        axes.add_patch(_rectangle(cell.box, card.panel.picture, color="white", alpha=0.6))
        left, top = cell.box.left + cell.box.width / 2, cell.box.top + cell.box.height / 2
        axes.text(
            left * card.panel.picture.width_mm,
            top * card.panel.picture.height_mm,
            f"{cell.similarity:.2f}",
            color="white",
            ha="center",
            va="center",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )
    axes.add_patch(_rectangle(card.crop, card.panel.picture, color=AMBER, linewidth=2))


def _draw_picture(axes: Axes, picture: Picture, title: str) -> None:
    axes.imshow(
        picture.pixels,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, picture.width_mm, picture.height_mm, 0),
        interpolation="bilinear" if picture.pixels.ndim == 2 else "nearest",
    )
    axes.set_title(title)
    axes.set_axis_off()
    for x, letter, side in zip((0.02, 0.98), picture.edges, ("left", "right"), strict=True):
        axes.text(x, 0.97, letter, transform=axes.transAxes, color="white", ha=side, va="top")


def _draw_accuracy(axes: Axes, record: RunRecord, guess: float) -> None:
    axes.plot(*record.series("position_accuracy"), color="#0b6e8f", label="training scans")
    axes.plot(
        *record.series("heldout_position_accuracy"),
        color="#c2570c",
        marker="o",
        markersize=3,
        label="held-out scans",
    )
    axes.axhline(guess, color="#7b8794", linestyle="--", linewidth=1, label="constant guess")
    axes.set(title="position accuracy", xlabel="step", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", fontsize=8)


def _rectangle(box: Box, picture: Picture, **style: object) -> Rectangle:
    return Rectangle(
        (box.left * picture.width_mm, box.top * picture.height_mm),
        box.width * picture.width_mm,
        box.height * picture.height_mm,
        fill=False,
        **style,  # type: ignore[arg-type]  # matplotlib's own keywords
    )
