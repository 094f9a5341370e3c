"""What a report page says, as plain values, and the page made of them.

The page is one HTML file without any address outside itself: pictures are `data:` addresses,
curves are SVG, the style sheet is inline. Words from data (names of scans, reasons) are escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from vocotrain.figures import Picture

Facts = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A number worth seeing first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture with its name and what it shows, in words."""

    name: str
    picture: Picture
    alt: str


@dataclass(frozen=True, eq=False)
class ScanCard:
    """One scan: where it was used, and its three middle slices."""

    id: str
    role: str
    facts: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Legend:
    """Names and CSS colours of a chart's lines or of a picture's areas."""

    name: str
    colour: str
    dashed: bool = False


@dataclass(frozen=True)
class ChartCard:
    """A chart, its legend, and a sentence on how to read it."""

    title: str
    svg: Markup
    legend: Sequence[Legend]
    caption: str


@dataclass(frozen=True)
class Box:
    """A crop on a picture, in shares of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Cell:
    """A base cell: where it lies, how much of the crop is in it, what the model says."""

    box: Box
    label: float
    similarity: float


@dataclass(frozen=True, eq=False)
class PositionCard:
    """One field with its base cells and one random crop."""

    scan: str
    panel: Panel
    crop: Box
    cells: Sequence[Cell]
    columns: int
    sentence: str


@dataclass(frozen=True, eq=False)
class Accounting:
    """Every scan that was found is in the store or excluded with a reason."""

    found: int
    stored: int
    excluded: Sequence[tuple[str, str, str]]

    @property
    def is_balanced(self) -> bool:
        """Whether none is missing."""
        return self.found == self.stored + len(self.excluded)


@dataclass(frozen=True, eq=False)
class FinetuneCard:
    """Dice of two fine-tuned models on scans that neither saw."""

    task: str
    steps: int
    classes: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, float], float]]
    holdout: Sequence[str]
    chart: ChartCard | None
    panels: Sequence[Panel]
    legend: Sequence[Legend]
    note: str


@dataclass(frozen=True, eq=False)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    figures: Sequence[Figure]
    run: Facts
    environment: Facts
    scans: Sequence[ScanCard] = ()
    scans_left_out: int = 0
    position: PositionCard | None = None
    charts: Sequence[ChartCard] = ()
    accounting: Accounting | None = None
    finetune: FinetuneCard | None = None
    commands: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def render(page: Page) -> str:
    """The page as HTML."""
    return _environment().get_template("report.html.j2").render(page=page)


@cache
def _environment() -> Environment:
    folder = resources.files("vocotrain").joinpath("templates")
    loader = FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
