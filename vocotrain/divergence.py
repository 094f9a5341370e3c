"""A loss that is not finite stops the run, with the scans of the batch by name.

On a GPU the answer to "is it finite?" is fetched while the device works on, and looked at one step
later, so that asking does not stall it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from vocotrain.errors import TrainingDivergedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class _Watched(NamedTuple):
    is_finite: Tensor
    fetched: torch.cuda.Event | None
    scans: Sequence[str]
    step: int


class DivergenceGuard:
    """Watches the loss of each step."""

    def __init__(self) -> None:
        """Nothing to look at yet."""
        self._watched: _Watched | None = None

    def watch(self, loss: Tensor, *, scans: Sequence[str], step: int) -> None:
        """Take in the loss of a step, after looking at that of the step before.

        Args:
            loss: The total loss, a scalar.
            scans: Names of the scans of this process's batch.
            step: Updates done before this one.

        Raises:
            TrainingDivergedError: The loss before, or on the CPU this one, is not finite.
        """
        self.look()
        is_finite = torch.isfinite(loss.detach()).to("cpu", non_blocking=True)
        fetched = None
        if loss.is_cuda:
            fetched = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            fetched.record()
        self._watched = _Watched(is_finite, fetched, scans, step)
        if fetched is None:
            self.look()

    def look(self) -> None:
        """Look at the last loss taken in.

        Raises:
            TrainingDivergedError: It is not finite.
        """
        if self._watched is None:
            return
        is_finite, fetched, scans, step = self._watched
        if fetched is not None:
            fetched.synchronize()
        if not bool(is_finite):
            msg = (
                f"The loss of step {step + 1} is not finite. Its scans in this process: "
                f"{', '.join(scans)}. The checkpoints written before it are good. Look at these "
                "scans, lower optim.lr, set optim.clip_norm or precision=fp32, and resume."
            )
            raise TrainingDivergedError(msg)
        self._watched = None
