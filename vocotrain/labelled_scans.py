"""Which scans of a store a task can learn from and be measured on, and why the others cannot.

Labels are matched by *name*: the store says what each label value means, the task what its classes
are called. A scan without one of the classes is left out: nobody annotated that organ there, and
taking it as background would teach the network that the organ is background.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vocodata.geometry import Size
from vocotrain.errors import ConfigError, LabelsError
from vocotrain.tasks import class_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vocodata.geometry import Spacing
    from vocodata.store import Store
    from vocotrain.tasks import Task

_SPACING_TOLERANCE = 0.01
"""Relative difference of spacings that still counts as the same grid."""

_HOLDOUT_SHARE = 0.2
"""Share of the scans held out where the recipe names none."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One scan with labels for every class of the task.

    Attributes:
        id: Name in the store, `source/name`.
        shape_XYZ: Voxels on the store's grid.
        class_of: Label value -> class, (values,) uint8; what the task does not name is background.
        preset: Preset that its store entry was made with.
    """

    id: str
    shape_XYZ: Size  # noqa: N815 (shape letters)
    class_of: NDArray[np.uint8]
    preset: str


@dataclass(frozen=True)
class Split:
    """The scans of a run.

    Attributes:
        train: Learned from.
        holdout: Measured on, never learned from.
        left_out: Scan id -> why it is in neither.
    """

    train: tuple[LabelledScan, ...]
    holdout: tuple[LabelledScan, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def split_scans(
    store: Store,
    task: Task,
    *,
    train: Sequence[str] | None = None,
    holdout: Sequence[str] | None = None,
) -> Split:
    """Part the store's labelled scans into those trained on and those held out.

    Args:
        store: An open store.
        task: Its classes and grid.
        train: Ids or shell patterns such as `btcv/*`; None: every scan that is not held out.
        holdout: The same; None: a fifth of the scans, chosen by a digest of their names, so that
            the choice does not change when scans are added elsewhere; empty: none.

    Returns:
        The two lists in the order of the store, and the reasons.

    Raises:
        ConfigError: The task has no class names; a pattern that matches nothing; a scan that is
            both trained on and held out.
        LabelsError: No scan can be trained on, or a scan that was asked for by its id cannot serve.
    """
    if task.classes is None:
        raise ConfigError(_classes_missing(store, task))
    usable, left_out = _usable_scans(store, task)
    ids = store.ids()
    asked = [*(train or ()), *(holdout or ())]
    for scan_id in asked:
        if scan_id in left_out:
            msg = f"Scan '{scan_id}' was asked for, but {left_out[scan_id]}. Leave it out of data.*"
            raise LabelsError(msg)
    held = _default_holdout(usable) if holdout is None else _named(ids, holdout, "data.holdout")
    learned = set(ids) - held if train is None else _named(ids, train, "data.train")
    both = sorted(learned & held)
    if both:
        msg = (
            f"{_some(both)} would be trained on and held out; expected each scan in one list. "
            "Change data.train or data.holdout."
        )
        raise ConfigError(msg)
    split = Split(
        tuple(scan for scan in usable if scan.id in learned),
        tuple(scan for scan in usable if scan.id in held),
        left_out,
    )
    if not split.train:
        raise LabelsError(_nothing_to_learn(task, len(ids), left_out, len(split.holdout)))
    return split


def label_classes(label_names: Mapping[int, str], classes: Sequence[str]) -> NDArray[np.uint8]:
    """Table from label value to class, by name.

    Args:
        label_names: Label value -> name.
        classes: Class names in order, background first.

    Returns:
        (largest value + 1,) uint8; several values of one name are one class, values without a
        class of the task are 0, background.

    Raises:
        LabelsError: A class that no value is named after.

    >>> label_classes({1: "spleen", 5: "Liver"}, ["background", "liver", "spleen"]).tolist()
    [0, 2, 0, 0, 0, 1]
    """
    class_of = {class_key(name): index for index, name in enumerate(classes) if index > 0}
    named = {class_key(name) for name in label_names.values()}
    missing = [name for name in classes[1:] if class_key(name) not in named]
    if missing:
        msg = f"its labels do not name {', '.join(missing)}"
        raise LabelsError(msg)
    table = np.zeros(max(label_names) + 1, np.uint8)
    for value, name in label_names.items():
        table[value] = class_of.get(class_key(name), 0)
    return table


def to_classes(labels: NDArray[np.integer], class_of: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label values to classes; a value that the table does not know is background."""
    known = labels < len(class_of)
    classes: NDArray[np.uint8] = class_of[np.where(known, labels, 0)]
    return classes


def _usable_scans(store: Store, task: Task) -> tuple[list[LabelledScan], dict[str, str]]:
    assert task.classes is not None, "checked by the caller"
    usable: list[LabelledScan] = []
    left_out: dict[str, str] = {}
    for scan_id in store.ids():
        info = store.info(scan_id)
        if not store.has_labels(scan_id) or not info.label_names:
            left_out[scan_id] = "it has no labels, or nobody said what their values mean"
        elif not _same_grid(info.spacing_mm, task.spacing_mm):
            left_out[scan_id] = (
                f"its grid is {_millimetres(info.spacing_mm)}, the task asks for "
                f"{_millimetres(task.spacing_mm)}"
            )
        else:
            try:
                table = label_classes(info.label_names, task.classes)
            except LabelsError as error:
                left_out[scan_id] = str(error)
                continue
            usable.append(LabelledScan(scan_id, Size(*info.shape_XYZ), table, info.preset))
    return usable, left_out


def _same_grid(first: Spacing, second: Spacing) -> bool:
    return bool(np.allclose(first, second, rtol=_SPACING_TOLERANCE, atol=0))


def _default_holdout(scans: Sequence[LabelledScan]) -> set[str]:
    """A fifth of the scans, at least one where there are two, at least one left to learn from."""
    count = min(max(1, round(len(scans) * _HOLDOUT_SHARE)), len(scans) - 1)
    ranked = sorted(scans, key=lambda scan: hashlib.sha256(scan.id.encode()).digest())
    return {scan.id for scan in ranked[: max(count, 0)]}


def _named(ids: Sequence[str], patterns: Sequence[str], key: str) -> set[str]:
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(ids, pattern)
        if not matches:
            near = difflib.get_close_matches(pattern, ids, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            msg = (
                f"{key} '{pattern}' matches no scan of the store; expected an id such as "
                f"'{ids[0] if ids else 'source/name'}' or a pattern such as 'source/*'.{hint}"
            )
            raise ConfigError(msg)
        found.update(matches)
    return found


def _nothing_to_learn(task: Task, scans: int, left_out: Mapping[str, str], held: int) -> str:
    reasons = Counter(left_out.values()).most_common(3)
    because = "; ".join(f"{count} because {reason}" for reason, count in reasons)
    return (
        f"No scan is left to train task '{task.name}' on: the store has {scans}, {held} held out, "
        f"{len(left_out)} left out{': ' + because if because else ''}. Expected at least one scan "
        f"on a grid of {_millimetres(task.spacing_mm)} with labels named after "
        f"{', '.join(task.classes or ())}; name classes or grid by --set task.classes=[...] or "
        "task.spacing_mm=[x, y, z], or choose another task."
    )


def _classes_missing(store: Store, task: Task) -> str:
    names: Counter[str] = Counter()
    for scan_id in store.ids():
        names.update(set((store.info(scan_id).label_names or {}).values()))
    known = _some([name for name, _ in names.most_common()], most=30) or "none"
    return (
        f"Task '{task.name}' has {task.out_channels} classes but its source does not name them; "
        "the names must come from your store. Use --set 'task.classes=[background, ...]' with "
        f"label names of the store: {known}."
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _millimetres(spacing: Spacing) -> str:
    return " x ".join(f"{side:g}" for side in spacing) + " mm"
