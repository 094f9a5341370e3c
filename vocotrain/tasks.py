"""Downstream tasks: the rows of catalog/tasks.yaml, typed and checked."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vocodata.geometry import Size, Spacing
from vocotrain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKGROUND = "background"

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Millimetres = Annotated[float, Field(gt=0, le=50)]


@dataclass(frozen=True)
class Task:
    """One downstream task.

    Attributes:
        name: Key of the row.
        title: What is segmented, for people.
        kind: Only segmentation so far.
        classes: Class names in channel order, background first; None: the source tells only how
            many there are.
        out_channels: Classes with background.
        sided: Some classes differ by left and right, so a flip would make labels wrong.
        preset: Row of vocodata's presets that builds a store on this grid; None: no preset has it.
        spacing_mm: Grid of the task, mm.
        window_hu: Low and high end of the window mapped to [0, 1], HU.
        roi_vox: Size of a training crop and of the sliding window, voxels.
        crops_per_volume: Crops cut from each volume of a step.
        pos_neg: Of `sum(pos_neg)` crops, how many are centred on a labelled and on an unlabelled
            voxel.
        balance_classes: A labelled centre is drawn from a class drawn first, so small organs come
            as often as large ones; otherwise every labelled voxel is as likely (the protocol).
        overlap: Share of a sliding window that the next one covers again.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
        epochs: Passes over the training scans, or None where `steps` is given.
        warmup_epochs: Passes with rising learning rate.
        steps: Steps, or None where `epochs` is given.
        warmup_steps: Steps with rising learning rate.
        train_scans: Training scans of the source's split, for the record.
        source: Where the figures are from.
        note: What a reader should know, or None.
    """

    name: str
    title: str
    kind: Literal["segmentation"]
    classes: tuple[str, ...] | None
    out_channels: int
    sided: bool
    preset: str | None
    spacing_mm: Spacing
    window_hu: tuple[float, float]
    roi_vox: Size
    crops_per_volume: int
    pos_neg: tuple[int, int]
    balance_classes: bool
    overlap: float
    lr: float
    weight_decay: float
    epochs: int | None
    warmup_epochs: int | None
    steps: int | None
    warmup_steps: int | None
    train_scans: int | None
    source: str
    note: str | None

    def __post_init__(self) -> None:
        """Check what one field alone cannot show."""
        fault = _fault(self)
        if fault:
            msg = f"Task '{self.name}': {fault}"
            raise ConfigError(msg)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    title: str
    kind: Literal["segmentation"]
    classes: tuple[str, ...] | None
    out_channels: Annotated[int, Field(ge=2, le=255)]
    sided: bool
    preset: str | None
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    window_hu: tuple[float, float]
    roi_vox: tuple[Positive, Positive, Positive]
    crops_per_volume: Positive
    pos_neg: tuple[Count, Count]
    balance_classes: bool = False
    overlap: Annotated[float, Field(ge=0, lt=1)]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    epochs: Positive | None = None
    warmup_epochs: Count | None = None
    steps: Positive | None = None
    warmup_steps: Count | None = None
    train_scans: Positive | None
    source: str
    note: str | None = None


@cache
def load_tasks() -> Mapping[str, Task]:
    """All tasks by name, in the order of the table."""
    text = resources.files("vocotrain").joinpath("catalog/tasks.yaml").read_text(encoding="utf-8")
    return MappingProxyType(parse_tasks(text))


def parse_tasks(text: str) -> dict[str, Task]:
    """Tasks of a table in the form of catalog/tasks.yaml.

    Raises:
        ConfigError: A row that is wrong, with all faults and their keys; a name that comes twice.
    """
    try:
        rows = TypeAdapter(list[_Row]).validate_json(json.dumps(yaml.safe_load(text)))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        msg = f"tasks.yaml: {faults}. Correct these keys (rows count from 0)."
        raise ConfigError(msg) from error
    tasks = {row.name: _task(row) for row in rows}
    if len(tasks) < len(rows):
        names = [row.name for row in rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        msg = f"tasks.yaml: {', '.join(twice)} comes more than once; expected one row a name."
        raise ConfigError(msg)
    return tasks


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: No such row; the message lists all, and the nearest one.
    """
    tasks = load_tasks()
    if name not in tasks:
        near = difflib.get_close_matches(name, tasks, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        msg = f"Task '{name}' is not in tasks.yaml; expected one of {', '.join(tasks)}.{hint}"
        raise ConfigError(msg)
    return tasks[name]


def changed(row: Task, changes: Mapping[str, Any]) -> Task:
    """The task with some fields replaced, as a recipe's `task` section asks.

    New class names bring their own number of channels; new steps take the place of epochs.

    Raises:
        ConfigError: The fields no longer fit each other.
    """
    fields = dict(changes)
    if "classes" in fields:
        fields["out_channels"] = len(fields["classes"])
    return replace(row, **fields)


def class_key(name: str) -> str:
    """How a class name is compared: case, blanks and hyphens do not matter.

    >>> class_key("Right Kidney") == class_key("right_kidney")
    True
    """
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _task(row: _Row) -> Task:
    fields = row.model_dump()
    fields["spacing_mm"] = Spacing(*row.spacing_mm)
    fields["roi_vox"] = Size(*row.roi_vox)
    return Task(**fields)


def _fault(row: Task) -> str | None:
    """The first thing that does not fit, as a sentence, or None."""
    low, high = row.window_hu
    if not low < high:
        return f"window_hu is [{low:g}, {high:g}]; expected the lower end first."
    if not sum(row.pos_neg):
        return "pos_neg is [0, 0]; expected at least one of them above 0."
    if (row.epochs is None) == (row.steps is None):
        return f"epochs is {row.epochs} and steps is {row.steps}; expected exactly one of them."
    return None if row.classes is None else _class_fault(row.classes, row.out_channels)


def _class_fault(classes: tuple[str, ...], out_channels: int) -> str | None:
    if len(classes) < 2 or class_key(classes[0]) != BACKGROUND:
        return f"classes are {list(classes)}; expected 'background' first, then at least one more."
    if len({class_key(name) for name in classes}) < len(classes):
        return f"classes are {list(classes)}; expected each name once."
    if len(classes) != out_channels:
        return f"{len(classes)} classes for {out_channels} output channels; expected as many."
    return None
