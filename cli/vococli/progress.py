"""Talk on stderr while a command works: bars on a terminal, plain lines elsewhere.

The libraries send events; here they become one small value, a tick, and a tick becomes a
bar or a line. Plain lines come at most once every few seconds, so that a log stays short.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from vocodata.building import BuildEvent
    from vocotrain.demo import DemoStage
    from vocotrain.progress import ProgressEvent

SECONDS_BETWEEN_LINES: Final = 5.0
# Stages of a run that happen once: sentences, not bars. Others are no news while a bar moves.
SENTENCES: Final = frozenset({"start", "warning", "stopped"})
SILENT: Final = frozenset({"checkpoint", "done"})
# Numbers beside a bar, and what to call them; all numbers are in metrics.jsonl.
SHOWN: Final = {
    "now": "now",
    "loss": "loss",
    "position_accuracy": "position accuracy",
    "heldout_position_accuracy": "held-out",
    "dice_store_grid": "Dice",
    "scans_per_s": "scans/s",
    "data_stall": "data stall",
}


@dataclass(frozen=True)
class Tick:
    """How far one stage is, and what to say beside it."""

    stage: str
    done: int
    total: int
    note: str = ""


class Shower(Protocol):
    """Where ticks and sentences go."""

    def tick(self, tick: Tick) -> None:
        """Show how far a stage is."""

    def say(self, text: str) -> None:
        """Show one sentence that must not be lost."""

    def close(self) -> None:
        """Leave the terminal as it was."""


@dataclass
class PlainShower:
    """One line a tick, at most one each few seconds; the first and last of a stage always."""

    stream: TextIO
    every_s: float = SECONDS_BETWEEN_LINES
    clock: Callable[[], float] = time.monotonic
    _last_s: dict[str, float] = field(default_factory=dict)

    def tick(self, tick: Tick) -> None:
        """Write a line when the stage is new, done, or silent for long enough."""
        now_s = self.clock()
        waited_s = now_s - self._last_s.get(tick.stage, float("-inf"))
        if waited_s < self.every_s and tick.done < tick.total:
            return
        self._last_s[tick.stage] = now_s
        self.say(f"{tick.stage} {tick.done}/{tick.total} {tick.note}".rstrip())

    def say(self, text: str) -> None:
        """Write a line at once."""
        typer.echo(text, file=self.stream)
        self.stream.flush()

    def close(self) -> None:
        """Nothing is open."""


class BarShower:
    """Bars for people, drawn by rich; made only when the first tick comes."""

    def __init__(self) -> None:
        """Remember no stage yet."""
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def tick(self, tick: Tick) -> None:
        """Move the bar of the tick's stage."""
        bars = self._started()
        if tick.stage not in self._tasks:
            self._tasks[tick.stage] = bars.add_task(tick.stage, total=tick.total, note="")
        bars.update(self._tasks[tick.stage], completed=tick.done, total=tick.total, note=tick.note)

    def say(self, text: str) -> None:
        """Write a sentence above the bars, as it is: no markup, no colours."""
        if self._bars is None:
            typer.echo(text, err=True)
        else:
            self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop drawing and leave the last state on the screen."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}

    def _started(self) -> "RichProgress":
        if self._bars is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as RichProgress

            self._bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self._bars


class Progress:
    """Turns the libraries' events into ticks and sentences; `close` it in the end."""

    def __init__(self, shower: Shower) -> None:
        """Show events there."""
        self._shower = shower
        from vocodata.progress import Pace

        self._pace = Pace()
        self._begun: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the terminal as it was."""
        self._shower.close()

    def say(self, text: str) -> None:
        """Show one sentence."""
        self._shower.say(text)

    def stage(self, event: "DemoStage") -> None:
        """Show that a stage of the demo begins, and which command does the same."""
        command = f"\n    {event.command}" if event.command else ""
        self.say(f"\n[{event.number}/{event.stages}] {event.title}{command}")

    def build(self, event: "BuildEvent") -> None:
        """Show what a build did."""
        if event.kind == "note":
            self.say(event.message)
            return
        if event.kind == "excluded":
            self.say(f"excluded {event.scan}: {event.message}")
        note = self._pace.add(event)
        self._shower.tick(Tick("build", event.done, event.total, note))

    def count(self, stage: str, done: int, total: int) -> None:
        """Show how many of equal things are done, how fast, and how long the rest takes."""
        from vocodata.progress import clock

        now_s = time.monotonic()
        begun_s, before = self._begun.setdefault(stage, (now_s, done))
        note = ""
        if done > before and now_s > begun_s:
            rate = (done - before) / (now_s - begun_s)
            note = f"{rate:.1f}/s"
            if done < total:
                note += f", {clock((total - done) / rate)} to go"
        self._shower.tick(Tick(stage, done, total, note))

    def train(self, event: "ProgressEvent") -> None:
        """Show what a training run did."""
        if event.stage in SENTENCES:
            # A run begins or ends: whatever bars there are belong to what was before.
            self._shower.close()
            message = event.values.get("message")
            self.say(f"{event.stage}: {_words(event.values) if message is None else message}")
        elif event.stage not in SILENT:
            shown = {name: event.values[key] for key, name in SHOWN.items() if key in event.values}
            self._shower.tick(Tick(event.stage, event.step, event.total, _words(shown)))


def open_progress() -> Progress:
    """Bars when stderr is a terminal, plain lines otherwise."""
    return Progress(BarShower() if sys.stderr.isatty() else PlainShower(sys.stderr))


def _words(values: "Mapping[str, float | int | str]") -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in values.items())


def _number(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
