"""One thing to time: an operation on given tensors, by several implementations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Peer:
    """One implementation."""

    name: str
    run: Callable[[], Tensor] | None
    """None if it cannot run here."""
    reason: str = ""
    """Why it cannot run."""
    has_backward: bool = True
    may_fail: bool = False
    """Whether an error is torch's own affair; else it counts as a wrong result."""


@dataclass(frozen=True)
class Work:
    """What one mode of one implementation moves and computes, by count."""

    moved_bytes: float
    flop: float


@dataclass(frozen=True, eq=False)
class Job:
    """An operation on given tensors."""

    kernel: str
    name: str
    """The case."""
    peers: Sequence[Peer]
    """The first is what the others are held against."""
    wanted: Sequence[Tensor]
    """What gradients are taken of; empty when there is no way back."""
    truth: Callable[[], list[Tensor]] | None = None
    """Output and gradients (see fixed_weights) that all are held against, in float32 and little
    memory; None for those of the first peer."""
    dtype: torch.dtype = torch.float32
    """A half type runs everything but the truth under autocast."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Sizes of the case."""
    work: Callable[[str], Work | None] = lambda _mode: None
    """By mode, what the mathematics needs at least; None where nobody counted."""


def fixed_weights(out: Tensor) -> Tensor:
    """Gradient of an output: numbers of either sign, 1 to 2 in size, the same at each call.

    Of either sign, because a bias adds them up over all tokens: what is mostly positive overflows
    float16 in the first stage, where training scales its loss down.
    """
    torch.manual_seed(0)
    weights = torch.rand(out.shape, device=out.device).mul_(2).sub_(1)
    return weights.add_(weights.sign()).to(out.dtype)
