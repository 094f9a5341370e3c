"""The demo: four real CT scans to a store, a pretrained encoder, two fine-tuned ones, a report.

Every stage calls the very function that a command calls, with the settings that the command would
resolve, and tells the command. What is finished stays; what was stopped goes on.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.building import build
from vocodata.sample_scans import fetch_samples
from vocotrain.config import load_config
from vocotrain.errors import RunExistsError
from vocotrain.finetune_config import load_finetune_config
from vocotrain.finetuning import RESULTS_NAME, finetune
from vocotrain.pretraining import pretrain
from vocotrain.report import summary, write_report
from vocotrain.report_finetune import finetune_card
from vocotrain.report_parts import constant_guess
from vocotrain.run_folder import CONFIG_NAME, write_json
from vocotrain.run_record import read_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocodata.building import BuildEvent
    from vocodata.sample_scans import SampleSet
    from vocotrain.progress import OnEvent
    from vocotrain.report_page import FinetuneCard

SIZE = "tiny"
TASK = "demo-organs"
STAGES = 6
MARKER_NAME = "demo.json"
"""What tells a demo's folder from any other, which is never written to."""


@dataclass(frozen=True)
class DemoStage:
    """A stage begins.

    Attributes:
        number: From 1 to `stages`.
        stages: Of all.
        title: What it does, for people.
        command: What a user would type to do the same; empty where no command is needed.
    """

    number: int
    stages: int
    title: str
    command: str


@dataclass(frozen=True)
class DemoResult:
    """What came of it.

    Attributes:
        store: The store.
        encoder: The pretrained weights.
        report: The page.
        first_loss: At the first logged step.
        last_loss: At the last.
        training_accuracy: Position accuracy on training scans, at the end.
        heldout_accuracy: On the held-out scan.
        constant_guess: What a guess that never looks gets on average.
        heldout_constant_guess: What the best such guess gets on the held-out scan's crops.
        dice: What each fine-tuned network was started from, and its mean Dice.
    """

    store: Path
    encoder: Path
    report: Path
    first_loss: float
    last_loss: float
    training_accuracy: float
    heldout_accuracy: float
    constant_guess: float
    heldout_constant_guess: float
    dice: dict[str, float]

    def dice_sentence(self) -> str:
        """The Dice figures in words."""
        return ", ".join(f"{value:.2f} {name}" for name, value in self.dice.items())


@dataclass(frozen=True)
class _Places:
    """Where the demo puts things."""

    out: Path

    @property
    def store(self) -> Path:
        return self.out / "ct.zarr"

    @property
    def pretrained(self) -> Path:
        return self.out / "pretrain"

    @property
    def finetuned(self) -> dict[str, Path]:
        return {
            "from pretraining": self.out / "finetune",
            "from scratch": self.out / "finetune-from-scratch",
        }

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    @property
    def picture(self) -> Path:
        return self.out / "summary.png"

    def all(self) -> list[Path]:
        """Everything the demo ever writes."""
        ledgers = sorted(self.out.glob("ct.zarr.ledger.sqlite*"))
        files = [self.report, self.picture, self.out / MARKER_NAME]
        return [self.store, self.pretrained, *self.finetuned.values(), *ledgers, *files]


@dataclass(frozen=True)
class Listeners:
    """Who is told of what."""

    stage: Callable[[DemoStage], None]
    build: Callable[[BuildEvent], None]
    train: OnEvent
    say: Callable[[str], None]


def run_demo(
    out: str | Path,
    *,
    listeners: Listeners,
    cache: Path | None = None,
    overwrite: bool = False,
    settings: tuple[str, ...] = (),
) -> DemoResult:
    """Run the demo, or what is left of it.

    Args:
        out: Folder for all of it; new, empty, or of an earlier demo.
        listeners: Who is told of what.
        cache: Where the sample scans are kept; None: the user's cache folder.
        overwrite: Throw an earlier demo in that folder away.
        settings: Words `a.b=c` for the pretraining and both fine-tunings alike.

    Returns:
        Where things lie, and the figures.

    Raises:
        SampleUnavailableError: The scans are neither cached nor to be fetched.
        RunExistsError: The folder holds something that is no demo.
    """
    places = _Places(Path(out))
    _prepare(places, overwrite=overwrite)
    words = _Commands(listeners.stage)
    words.tell("Fetch four public CT scans", [])
    samples = fetch_samples(cache, on_event=listeners.say)
    commands = [
        _build(places, samples, words, listeners),
        _pretrain(places, samples, words, listeners, settings),
        *_finetune(places, samples, words, listeners, settings),
    ]
    words.tell("Write the report", [])
    card = finetune_card(places.finetuned, places.store)
    report = write_report(
        places.pretrained,
        finetune=card,
        commands=commands,
        out=places.report,
        picture=places.picture,
    )
    return _result(places, report, card)


@dataclass
class _Commands:
    """Counts stages and tells each with its command."""

    listener: Callable[[DemoStage], None]
    number: int = 0

    def tell(self, title: str, words: list[str]) -> str:
        self.number += 1
        command = shlex.join(words)
        self.listener(DemoStage(self.number, STAGES, title, command))
        return command


def _prepare(places: _Places, *, overwrite: bool) -> None:
    marker = places.out / MARKER_NAME
    if places.out.exists() and not places.out.is_dir():
        msg = f"{places.out} is a file; expected a new or empty folder. Choose another --out."
        raise RunExistsError(msg)
    if places.out.is_dir() and any(places.out.iterdir()) and not marker.is_file():
        msg = (
            f"{places.out} holds something that is no demo; expected a new or empty folder. "
            "Choose another --out."
        )
        raise RunExistsError(msg)
    if overwrite:
        for path in places.all():
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    places.out.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"kind": "voco demo"})


def _build(places: _Places, samples: SampleSet, words: _Commands, listeners: Listeners) -> str:
    going_on = ["--resume"] if places.store.exists() else []
    typed = ["--sources", str(samples.manifest), "--out", str(places.store), "--workers", "0"]
    command = words.tell("Build the store", ["voco", "data", "build", *typed, *going_on])
    build(
        samples.manifest,
        places.store,
        workers=0,
        resume=places.store.exists(),
        on_event=listeners.build,
    )
    return command.removesuffix(" --resume")


def _pretrain(
    places: _Places,
    samples: SampleSet,
    words: _Commands,
    listeners: Listeners,
    settings: tuple[str, ...],
) -> str:
    run = places.pretrained
    sets = [_holdout(samples), *settings]
    typed = ["--size", SIZE, "--data", str(places.store), "--out", str(run), *_set_words(sets)]
    command = words.tell("Pretrain an encoder", ["voco", "train", "pretrain", *typed])
    if (run / "report.html").is_file():
        listeners.say(f"{run} is finished.")
        return command
    given = {"model.size": SIZE, "data.store": str(places.store), "out": str(run)}
    config = load_config(None, sets, values=given)
    pretrain(config, resume=_is_begun(run), on_event=listeners.train)
    write_report(run)
    return command


def _finetune(
    places: _Places,
    samples: SampleSet,
    words: _Commands,
    listeners: Listeners,
    settings: tuple[str, ...],
) -> list[str]:
    commands = []
    for (name, run), weights in zip(
        places.finetuned.items(), (places.pretrained, None), strict=True
    ):
        sets = [_holdout(samples), f"data.sources={samples.manifest}", *settings]
        given = {"task.name": TASK, "data.store": str(places.store), "out": str(run)}
        if weights is None:
            sets.append(f"model.size={SIZE}")
        else:
            given["model.weights"] = str(weights)
        typed = ["--from", str(weights or "none"), "--data", str(places.store), "--task", TASK]
        typed += ["--out", str(run), *_set_words(sets)]
        command = words.tell(f"Fine-tune {name}", ["voco", "train", "finetune", *typed])
        commands.append(command)
        if (run / RESULTS_NAME).is_file():
            listeners.say(f"{run} is finished.")
            continue
        config = load_finetune_config(None, sets, values=given)
        finetune(config, resume=_is_begun(run), on_event=listeners.train)
    return commands


def _holdout(samples: SampleSet) -> str:
    return f"data.holdout=[{', '.join(samples.held_out)}]"


def _set_words(sets: list[str]) -> list[str]:
    return [word for one in sets for word in ("--set", one)]


def _is_begun(run: Path) -> bool:
    return (run / CONFIG_NAME).is_file()


def _result(places: _Places, report: Path, card: FinetuneCard) -> DemoResult:
    record = read_run(places.pretrained)
    facts = summary(places.pretrained)
    grid = load_config(places.pretrained / CONFIG_NAME).objective.grid
    return DemoResult(
        store=places.store,
        encoder=record.final("encoder.safetensors"),
        report=report,
        first_loss=record.training[0]["loss"],
        last_loss=float(facts["loss"]),
        training_accuracy=float(facts["position_accuracy"]),
        heldout_accuracy=float(facts["heldout_position_accuracy"]),
        constant_guess=constant_guess(grid),
        heldout_constant_guess=record.last("heldout_constant_guess") or constant_guess(grid),
        dice={name: mean for name, _, mean in card.rows},
    )
