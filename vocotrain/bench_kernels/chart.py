"""The document as a picture: a bar for each implementation of each case, on a logarithmic scale."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from vocotrain.bench_kernels.document import Document, Row

# Okabe and Ito 2008: apart for the colour-blind. Ours is the last one's neighbour to none.
COLOURS = {
    "monai": "#0072B2",
    "monai-flash": "#56B4E9",
    "monai-compile": "#009E73",
    "sdpa": "#E69F00",
    "flex": "#CC79A7",
    "loops": "#999999",
    "torch": "#999999",
    "chain": "#999999",
}
OURS = "#D55E00"
TITLES = {"forward": "forward, no gradients", "full": "forward and backward"}
STYLE: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 10, "font.family": "sans-serif"}
GROUP_WIDTH = 0.84
"""Of the bars of one case, where the next case begins at 1."""


def write_chart(path: Path, document: Document) -> Path:
    """Write the picture as a PNG: forward above, forward and backward below.

    Args:
        path: The file.
        document: What was measured.
    """
    rows = [row for row in document.rows if row.metric_name == "speed"]
    cases = {row.x_value for row in rows}
    with mpl.rc_context(STYLE):
        size = (max(6.0, 1.6 + 1.1 * len(cases)), 6.4)
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, mode in zip(figure.subplots(2, 1), TITLES, strict=True):
            _draw(axes, [row for row in rows if row.kernel_operation_mode == mode])
            axes.set_title(TITLES[mode], loc="left")
        figure.suptitle(_headline(document), fontsize=10)
        handles = {
            label: bars
            for axes in figure.axes
            for bars, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=9, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return path


def _draw(axes: Axes, rows: list[Row]) -> None:
    """Bars of one case side by side, those that are there sharing its width."""
    cases = list(dict.fromkeys(row.x_value for row in rows))
    for row in rows:
        beside = [other.kernel_provider for other in rows if other.x_value == row.x_value]
        width = GROUP_WIDTH / len(beside)
        left = cases.index(row.x_value) - GROUP_WIDTH / 2
        place = left + width * (beside.index(row.kernel_provider) + 0.5)
        low, high = row.y_value_50 - row.y_value_20, row.y_value_80 - row.y_value_50
        bar = axes.bar(
            place,
            row.y_value_50,
            0.9 * width,
            yerr=[[max(0.0, low)], [max(0.0, high)]],
            error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
            color=COLOURS.get(row.kernel_provider, OURS),
            label=row.kernel_provider,
        )
        axes.bar_label(bar, [_label(row.y_value_50)], fontsize=6.5, padding=2)
    axes.set_yscale("log")
    axes.set_ylabel("ms, less is better")
    axes.set_xticks(range(len(cases)), [_two_lines(case) for case in cases])
    axes.set_xlim(-0.6, len(cases) - 0.4)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", linewidth=0.4, alpha=0.6)


def _label(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _two_lines(case: str) -> str:
    """`B 64^3 stage 1` and `cut_crops 22 of 64^3`, broken where the name ends."""
    whole = case.replace("^3", "\N{SUPERSCRIPT THREE}")
    name, stage, number = whole.partition(" stage")
    return f"{name}\n{(stage + number).strip()}" if stage else whole.replace(" ", "\n", 1)


def _headline(document: Document) -> str:
    machine = document.machine
    name = machine["device"] if machine["device"] != "cpu" else machine["processor"]
    packages = machine["packages"]
    return (
        f"{name}, {document.settings['dtype']}, torch {packages['torch']}, "
        f"MONAI {packages['monai']}: medians, whiskers over the middle three fifths"
    )
