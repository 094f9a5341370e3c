"""Region presets: the rows of catalog/presets.yaml, typed and checked."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vocodata.errors import PresetError
from vocodata.geometry import Size, Spacing
from vocodata.quality import QualityLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

Millimetres = Annotated[float, Field(gt=0, le=50)]
Voxels = Annotated[int, Field(gt=1, le=4096)]


@dataclass(frozen=True)
class Preset:
    """How scans of a region are brought onto a grid, and the window training sees them through.

    Attributes:
        name: Key of the row.
        region: Part of the body, for people.
        spacing_mm: Grid of the store, mm.
        window_hu: Low and high end of the window mapped to [0, 1] in training; the store keeps HU.
        foreground_above_hu: The scan is cropped to the box of voxels above this; None: not cropped.
        squeeze_vox: The cropped scan is also squeezed to this size; None: not.
        quality: Limits beyond which a scan gets a flag.
    """

    name: str
    region: str
    spacing_mm: Spacing
    window_hu: tuple[float, float]
    foreground_above_hu: float | None
    squeeze_vox: Size | None
    quality: QualityLimits = field(default_factory=QualityLimits)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    region: str
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    window_hu: tuple[float, float]
    foreground_above_hu: float | None
    squeeze_vox: tuple[Voxels, Voxels, Voxels] | None
    quality: QualityLimits = Field(default_factory=QualityLimits)


@cache
def load_presets() -> Mapping[str, Preset]:
    """All presets by name, in the order of the table."""
    text = resources.files("vocodata").joinpath("catalog/presets.yaml").read_text(encoding="utf-8")
    return MappingProxyType(parse_presets(text))


def parse_presets(text: str) -> dict[str, Preset]:
    """Presets of a table in the form of catalog/presets.yaml.

    Raises:
        PresetError: A row that is wrong, with all faults and their keys.
    """
    try:
        rows = TypeAdapter(dict[str, _Row]).validate_python(yaml.safe_load(text))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        msg = f"presets.yaml: {faults}. Correct these keys."
        raise PresetError(msg) from error
    return {name: _preset(name, row) for name, row in rows.items()}


def _preset(name: str, row: _Row) -> Preset:
    low, high = row.window_hu
    if not low < high:
        msg = (
            f"presets.yaml: {name}.window_hu is [{low:g}, {high:g}]; expected the lower end first."
        )
        raise PresetError(msg)
    return Preset(
        name=name,
        region=row.region,
        spacing_mm=Spacing(*row.spacing_mm),
        window_hu=row.window_hu,
        foreground_above_hu=row.foreground_above_hu,
        squeeze_vox=None if row.squeeze_vox is None else Size(*row.squeeze_vox),
        quality=row.quality,
    )


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        PresetError: No such row; the message names the nearest one.
    """
    presets = load_presets()
    if name not in presets:
        raise PresetError(unknown_preset(name))
    return presets[name]


def unknown_preset(name: str) -> str:
    """What to say about a preset that is not there."""
    names = list(load_presets())
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(names)}."
    return f"Preset '{name}' is not in presets.yaml; {hint}"
