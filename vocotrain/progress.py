"""What a long job tells whoever listens.

The library prints nothing: it calls `on_event` with one plain value, and the command line, a
notebook or a test decides what to show. Listening is optional; `silent` is the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = float | int | str


@dataclass(frozen=True)
class ProgressEvent:
    """One thing that happened.

    Attributes:
        stage: What it is about: "start", "train", "eval", "checkpoint", "warning", "stopped",
            "done"; other jobs have their own words.
        step: Steps completed so far.
        total: Steps of the whole job.
        values: Numbers and words of the event, such as the loss or the path written.
    """

    stage: str
    step: int
    total: int
    values: Mapping[str, Value] = field(default_factory=dict)


OnEvent = Callable[[ProgressEvent], None]


def silent(_event: ProgressEvent) -> None:
    """Listen to nothing."""
