"""The numbers of a run: a JSON object a line, and the same for TensorBoard.

A line holds means over the steps since the line before. The running sums belong to a checkpoint, so
a resumed run writes the lines that an unbroken one would have written (but for the two timings).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Self

import torch
from torch.utils.tensorboard import SummaryWriter

from vocotrain.run_folder import METRICS_NAME, TENSORBOARD_NAME, whole_lines, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from vocotrain.distributed import World
    from vocotrain.objective import VoCoOutput
    from vocotrain.progress import Value

TERMS = ("loss", "intra", "inter", "regulariser", "position_accuracy")


class TermMeans:
    """Means of losses and accuracy since the last line, added up on the device."""

    def __init__(self, device: torch.device) -> None:
        """Nothing added yet."""
        self._sums = torch.zeros(len(TERMS), dtype=torch.float64, device=device)
        self._count = 0

    def add(self, output: VoCoOutput) -> None:
        """Add one step, without waiting for the device."""
        terms = output.terms
        values = (terms.total(), terms.intra, terms.inter, terms.regulariser)
        now = torch.stack([*(v.detach().float() for v in values), output.position_accuracy.float()])
        self._sums += now
        self._count += 1

    def take(self, world: World) -> dict[str, float]:
        """The means over steps and processes; then begin anew."""
        means = world.mean(self._sums / max(self._count, 1)).tolist()
        self._sums.zero_()
        self._count = 0
        return dict(zip(TERMS, means, strict=True))

    def state(self, world: World) -> tuple[Tensor, int]:
        """Sums, as a mean over processes, and count, for a checkpoint."""
        return world.mean(self._sums), self._count

    def restore(self, sums: Tensor, count: int) -> None:
        """Go on from a checkpoint's sums."""
        self._sums.copy_(sums)
        self._count = count


class StepClock:
    """Speed and waiting between two lines; what is not training is left out."""

    def __init__(self) -> None:
        """Start now."""
        self._begin = time.perf_counter()
        self._waited_s = 0.0
        self._paused_at: float | None = None

    def read(self, *, scans: int, waited_s: float) -> dict[str, float]:
        """Scans per second, and the share of time spent waiting for data; then begin anew.

        Args:
            scans: Volumes of all processes since the last reading.
            waited_s: Seconds waited for data since the run began.
        """
        now = time.perf_counter()
        seconds = max(now - self._begin, 1e-9)
        stall = min((waited_s - self._waited_s) / seconds, 1.0)
        self._begin, self._waited_s = now, waited_s
        return {"scans_per_s": scans / seconds, "data_stall": stall}

    def __enter__(self) -> Self:
        """Stand still for as long as the block lasts."""
        self._paused_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Go on."""
        assert self._paused_at is not None
        self._begin += time.perf_counter() - self._paused_at


class MetricsLog:
    """Appends lines to `metrics.jsonl` and scalars to TensorBoard's event files."""

    def __init__(self, run: Path, *, step: int) -> None:
        """Open both; lines past `step`, which a resumed run writes again, are dropped.

        Args:
            run: The run's folder.
            step: Updates done already; 0 in a new run.
        """
        path = run / METRICS_NAME
        write_text(path, "".join(_lines_up_to(path, step)))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / TENSORBOARD_NAME), purge_step=step + 1)

    def write(self, step: int, values: Mapping[str, Value]) -> None:
        """Write one line."""
        self._file.write(json.dumps({"step": step, **values}, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()


def _lines_up_to(path: Path, step: int) -> list[str]:
    return [f"{line}\n" for line in whole_lines(path) if json.loads(line)["step"] <= step]
