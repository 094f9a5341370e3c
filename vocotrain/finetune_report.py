"""What came of a fine-tuning run, as a value, as JSON and as numbers for the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocotrain.dice import ScanDice, by_scan, mean_by_class, mean_over_scans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vocotrain.dice import Scores


@dataclass(frozen=True)
class FinetuneReport:
    """What came of a run.

    Attributes:
        run: Its folder.
        segmenter: The final weights, ready for `predict`.
        task: Row of tasks.yaml.
        size: Of the network.
        classes: Class names, background first.
        steps: Updates done.
        train: Scans learned from.
        holdout: Scans measured on.
        left_out: Scan id -> why it was in neither.
        weights_share: Share of the starting weights that matched; None from scratch.
        dice_store_grid: Of each held-out scan on the store's grid, as the protocol measures.
        dice_native: Of each on its own grid; empty without `data.sources`.
        best: Step and mean Dice (store grid) of the best look on the way, whose weights are in
            checkpoints/best; None without looks. It was chosen by the held-out scans themselves.
        seconds: The whole run, since it was started or resumed.
    """

    run: Path
    segmenter: Path
    task: str
    size: str
    classes: tuple[str, ...]
    steps: int
    train: tuple[str, ...]
    holdout: tuple[str, ...]
    left_out: Mapping[str, str]
    weights_share: float | None
    dice_store_grid: tuple[ScanDice, ...]
    dice_native: tuple[ScanDice, ...]
    best: tuple[int, float] | None
    seconds: float

    @property
    def means(self) -> dict[str, float]:
        """Mean Dice over scans, whole and by class, by the name of its grid."""
        return mean_scores("dice_store_grid", self.dice_store_grid, self.classes) | mean_scores(
            "dice_native", self.dice_native, self.classes
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, means added."""
        return {
            "run": str(self.run),
            "segmenter": str(self.segmenter),
            "task": self.task,
            "size": self.size,
            "classes": list(self.classes),
            "steps": self.steps,
            "train": list(self.train),
            "holdout": list(self.holdout),
            "left_out": dict(self.left_out),
            "weights_share": self.weights_share,
            "dice_store_grid": _summary(self.dice_store_grid, self.classes),
            "dice_native": _summary(self.dice_native, self.classes),
            "best": None if self.best is None else {"step": self.best[0], "dice": self.best[1]},
            "seconds": self.seconds,
        }


def mean_scores(name: str, scans: Sequence[ScanDice], classes: tuple[str, ...]) -> dict[str, float]:
    """Means under `name` and `name.<class>`; what has no score is not there."""
    scores: Scores = {name: mean_over_scans(scans)}
    scores |= {f"{name}.{key}": value for key, value in mean_by_class(scans, classes).items()}
    return {key: value for key, value in scores.items() if value is not None}


def _summary(scans: tuple[ScanDice, ...], classes: tuple[str, ...]) -> dict[str, Any] | None:
    if not scans:
        return None
    return {
        "mean": mean_over_scans(scans),
        "by_class": mean_by_class(scans, classes),
        "by_scan": by_scan(scans),
    }
