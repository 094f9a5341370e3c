"""What a run folder says of itself, read back for a report or for `voco info`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from vocotrain.errors import CheckpointError
from vocotrain.run_folder import (
    CHECKPOINTS_NAME,
    DATA_NAME,
    ENVIRONMENT_NAME,
    METRICS_NAME,
    check_is_run,
    whole_lines,
)

if TYPE_CHECKING:
    from pathlib import Path

Line = dict[str, Any]
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True)
class RunRecord:
    """A run folder.

    Attributes:
        path: The folder.
        environment: `environment.json`; empty if the run has none yet.
        data: `data.json`; empty if the run has none yet.
        lines: `metrics.jsonl`, the lines in order.
    """

    path: Path
    environment: Line
    data: Line
    lines: tuple[Line, ...]

    @cached_property
    def training(self) -> list[Line]:
        """Lines with a loss."""
        return [line for line in self.lines if "loss" in line]

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of one number, where it was written."""
        pairs = [(line["step"], line[name]) for line in self.lines if name in line]
        return [float(step) for step, _ in pairs], [float(value) for _, value in pairs]

    def last(self, name: str) -> float | None:
        """The newest value of a number, or None."""
        _, values = self.series(name)
        return values[-1] if values else None

    def final(self, name: str) -> Path:
        """Where a file of the final weights lies."""
        return self.path / CHECKPOINTS_NAME / "final" / name


def read_run(path: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        CheckpointError: It is no run, or one of its files is damaged.
    """
    check_is_run(path)
    return RunRecord(
        path=path,
        environment=_json(path / ENVIRONMENT_NAME),
        data=_json(path / DATA_NAME),
        lines=tuple(json.loads(line) for line in whole_lines(path / METRICS_NAME)),
    )


def count_parameters(path: Path) -> int:
    """Floating-point numbers in a safetensors file; only its header is read."""
    with safe_open(path, framework="np") as file:
        parts = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (no dict)
        return sum(math.prod(part.get_shape()) for part in parts if part.get_dtype() in _FLOATS)


def _json(path: Path) -> Line:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} is not JSON ({error}); expected what a run wrote. Restore the file."
        raise CheckpointError(msg) from error
    if not isinstance(value, dict):
        msg = f"{path} holds {type(value).__name__}; expected names and values. Restore the file."
        raise CheckpointError(msg)
    return value
