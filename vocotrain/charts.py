"""Line charts as inline SVG that takes its colours from the page.

Own code instead of a plotting library's SVG: the lines then follow the reader's light or dark
theme through CSS variables, the text stays text, and a chart is a few kilobytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 520, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 42
TICKS = 5


@dataclass(frozen=True)
class Line:
    """One named curve. `style` names a CSS variable of the page, without its dashes."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    dashed: bool = False
    dots: bool = False


def line_chart(
    lines: Sequence[Line], *, x_title: str, y_title: str, y_range: tuple[float, float] | None = None
) -> Markup:
    """An SVG element with axes, ticks and one path a line; the legend is the page's.

    Args:
        lines: Curves; those without a finite point are left out.
        x_title: Words under the horizontal axis.
        y_title: Words beside the vertical axis.
        y_range: Ends of the vertical axis; by default from 0 or below to the largest value.
    """
    frame = _Frame.around(lines, y_range)
    drawn = "".join(_path(line, frame) for line in lines)
    label = escape(f"{y_title} over {x_title}: {', '.join(line.name for line in lines)}")
    return Markup(  # noqa: S704 - every text inside went through escape
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{_grid(frame)}{drawn}{_titles(x_title, y_title)}</svg>"
    )


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers inside a range, about `count` of them.

    >>> ticks(0, 400)
    [0.0, 100.0, 200.0, 300.0, 400.0]
    """
    rough = (high - low) / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = min((size * m for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


@dataclass(frozen=True)
class _Frame:
    """Ranges of both axes, and where a value lies in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, lines: Sequence[Line], y_range: tuple[float, float] | None) -> "_Frame":
        """Ranges that hold every finite point."""
        points = [point for line in lines for point in _finite(line)] or [(0.0, 0.0)]
        x, y = [p[0] for p in points], [p[1] for p in points]
        y_low, y_high = y_range or (min(0.0, *y), max(y) * 1.05)
        x_high = max(x) if max(x) > min(x) else min(x) + 1.0
        return cls(min(x), x_high, y_low, y_high if y_high > y_low else y_low + 1.0)

    def across(self, x: float) -> float:
        share = (x - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(self, y: float) -> float:
        share = (y - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _finite(line: Line) -> list[tuple[float, float]]:
    pairs = zip(line.x, line.y, strict=True)
    return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def _path(line: Line, frame: _Frame) -> str:
    places = [(frame.across(x), frame.down(y)) for x, y in _finite(line)]
    if not places:
        return ""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    colour = f"var(--{escape(line.style)})"
    dash = ' stroke-dasharray="6 5"' if line.dashed else ""
    path = f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
    if not line.dots and len(places) > 1:
        return path
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places)
    return f'{path}<g fill="{colour}">{dots}</g>'


def _grid(frame: _Frame) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        y = frame.down(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    # Along the horizontal axis lie steps: there is none between two of them.
    for value in filter(float.is_integer, ticks(frame.x_low, frame.x_high, 6)):
        x = frame.across(value)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    return "".join(parts)


def _titles(x_title: str, y_title: str) -> str:
    middle = (HEIGHT - BOTTOM + TOP) / 2
    return (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
        f'<text transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
