"""`report.html` of a run: what was trained, on what, whether it learned, and how to do it again.

Everything is read back from the run folder and the store, so a report can be written for any run,
also long after. A store that has moved away leaves the pictures out and says so.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocodata.errors import StoreError
from vocodata.store import open_store
from vocotrain.checkpoint import load_newest
from vocotrain.config import PretrainConfig, load_config
from vocotrain.objective import VoCo
from vocotrain.position_example import position_example
from vocotrain.report_page import Figure, Page, render
from vocotrain.report_parts import (
    SCANS_SHOWN,
    accounting,
    accuracy_chart,
    constant_guess,
    loss_chart,
    position_card,
    scan_cards,
)
from vocotrain.run_folder import CHECKPOINTS_NAME, CONFIG_NAME, write_text
from vocotrain.run_record import RunRecord, count_parameters, read_run
from vocotrain.sizes import model_size
from vocotrain.summary_picture import write_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vocodata.store import Store
    from vocotrain.report_page import Accounting, FinetuneCard, PositionCard, ScanCard

REPORT_NAME = "report.html"


@dataclass(frozen=True, eq=False)
class _Pictures:
    """What needs the store; empty when it is gone."""

    scans: Sequence[ScanCard] = ()
    scans_left_out: int = 0
    position: PositionCard | None = None
    accounting: Accounting | None = None
    notes: tuple[str, ...] = ()


def write_report(
    run: str | Path,
    *,
    finetune: FinetuneCard | None = None,
    commands: Sequence[str] | None = None,
    out: str | Path | None = None,
    picture: str | Path | None = None,
) -> Path:
    """Write the report of a pretraining run.

    Args:
        run: The run's folder.
        finetune: What fine-tuning from this run gave, if anything.
        commands: How to do it again; by default the one command of this run.
        out: The file; by default `report.html` in the run's folder.
        picture: Where to write a small PNG of the run as well; by default nowhere.

    Returns:
        The file.

    Raises:
        CheckpointError: It is no run, or one of its files is damaged.
    """
    folder = Path(run)
    page = pretrain_page(folder, finetune=finetune, commands=commands)
    path = folder / REPORT_NAME if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(page))
    if picture is not None:
        guess = constant_guess(load_config(folder / CONFIG_NAME).objective.grid)
        write_summary(Path(picture), page=page, record=read_run(folder), guess=guess)
    return path


def pretrain_page(
    run: Path,
    *,
    finetune: FinetuneCard | None = None,
    commands: Sequence[str] | None = None,
) -> Page:
    """All that the report of a pretraining run says; see `write_report`."""
    record = read_run(run)
    config = load_config(run / CONFIG_NAME)
    pictures = _pictures(config, run)
    guess = constant_guess(config.objective.grid)
    counts = record.data.get("counts", {})
    return Page(
        title=f"VoCo pretraining, size {config.model.size}",
        subtitle=_subtitle(record, config),
        figures=[*_figures(record, guess), *_finetune_figures(finetune)],
        run=_run_facts(record, config, counts),
        environment=_environment_facts(record),
        scans=pictures.scans,
        scans_left_out=pictures.scans_left_out,
        position=pictures.position,
        charts=[loss_chart(record), accuracy_chart(record, guess)] if record.training else [],
        accounting=pictures.accounting,
        finetune=finetune,
        commands=[pretrain_command(config)] if commands is None else commands,
        notes=pictures.notes,
    )


def summary(run: str | Path) -> dict[str, Any]:
    """Where the weights of a run lie, and its newest figures."""
    record = read_run(Path(run))
    names = ("loss", "position_accuracy", "heldout_position_accuracy")
    figures = {name: record.last(name) for name in names}
    return {
        "run": str(run),
        "encoder": str(record.final("encoder.safetensors")),
        **{name: value for name, value in figures.items() if value is not None},
    }


def pretrain_command(config: PretrainConfig) -> str:
    """The command that does a run again, from its saved settings."""
    recipe, again = (shlex.quote(f"{config.out}{end}") for end in (f"/{CONFIG_NAME}", "-again"))
    return f"voco train pretrain --recipe {recipe} --out {again}"


def _pictures(config: PretrainConfig, run: Path) -> _Pictures:
    try:
        store = open_store(config.data.store)
        held_out = set(read_run(run).data.get("held_out", ()))
        return _Pictures(
            scans=scan_cards(store, held_out=held_out),
            scans_left_out=max(0, len(store) - SCANS_SHOWN),
            position=_position(config, store, run),
            accounting=accounting(store),
        )
    except StoreError as error:
        return _Pictures(notes=(f"Without pictures of the scans: {error}",))


def _position(config: PretrainConfig, store: Store, run: Path) -> PositionCard | None:
    """The task on one field, by the newest checkpoint; None before there is one."""
    checkpoint = load_newest(run / CHECKPOINTS_NAME, on_damaged=lambda _: None)
    if checkpoint is None:
        return None
    objective = VoCo(model_size(config.model.size), config.objective)
    objective.load_state_dict(
        {
            name.removeprefix("model."): value
            for name, value in checkpoint.tensors.items()
            if name.startswith("model.")
        }
    )
    return position_card(position_example(objective.eval(), config, store))


def _subtitle(record: RunRecord, config: PretrainConfig) -> str:
    counts = record.data.get("counts", {})
    done = record.lines[-1]["step"] if record.lines else 0
    parts = [
        f"{done} of {config.train.steps} steps",
        f"{counts.get('trained_on', 0)} scans trained on, {counts.get('held_out', 0)} held out",
        f"{duration(training_seconds(record, config))} on {record.environment.get('device', '?')}",
    ]
    return ", ".join(parts)


def _figures(record: RunRecord, guess: float) -> list[Figure]:
    if not record.training:
        return []
    first, last = record.training[0], record.training[-1]
    figures = [
        Figure("Loss", f"{first['loss']:.2f} → {last['loss']:.2f}", "first and last logged step"),
        Figure(
            "Position accuracy, training",
            f"{last['position_accuracy']:.2f}",
            f"a constant guess gets {guess:.2f}",
        ),
    ]
    held = record.last("heldout_position_accuracy")
    if held is not None:
        exact = record.last("heldout_constant_guess")
        there = guess if exact is None else exact
        note = f"scans never trained on; a constant guess gets {there:.2f}"
        figures.append(Figure("Position accuracy, held-out", f"{held:.2f}", note))
    return figures


def _finetune_figures(finetune: FinetuneCard | None) -> list[Figure]:
    if finetune is None:
        return []
    value = " / ".join(f"{mean:.2f}" for _, _, mean in finetune.rows)
    return [Figure("Mean Dice, held-out", value, " / ".join(name for name, _, _ in finetune.rows))]


def _run_facts(
    record: RunRecord, config: PretrainConfig, counts: dict[str, int]
) -> list[tuple[str, str]]:
    encoder = record.final("encoder.safetensors")
    rate = record.last("scans_per_s")
    facts = [
        ("size", config.model.size),
        ("encoder", f"{count_parameters(encoder):,} parameters" if encoder.exists() else "not yet"),
        ("objective", config.objective.variant),
        ("steps", str(config.train.steps)),
        ("volumes a step", str(config.train.batch_size)),
        ("peak learning rate", f"{config.optim.lr:g}"),
        ("seed", str(config.train.seed)),
        ("training time", duration(training_seconds(record, config))),
        ("speed", f"{rate:.1f} volumes/s" if rate is not None else "not yet known"),
        ("scans trained on", str(counts.get("trained_on", 0))),
        ("scans held out", str(counts.get("held_out", 0))),
        ("store digest", str(record.data.get("store_digest", "unknown"))[:16]),
    ]
    licences = record.data.get("licences", {})
    words = "; ".join(f"{name} ({count})" for name, count in licences.items())
    return [*facts, ("licences", words or "unknown")]


def _environment_facts(record: RunRecord) -> list[tuple[str, str]]:
    packages = record.environment.get("packages", {})
    plain = {k: v for k, v in record.environment.items() if k not in {"packages", "byte_order"}}
    rows = {**plain, **{name: version or "not installed" for name, version in packages.items()}}
    return [(name.replace("_", " "), _words(value)) for name, value in rows.items()]


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def training_seconds(record: RunRecord, config: PretrainConfig) -> float:
    """Time spent on updates, from the speeds of all lines; looks and checkpoints are left out."""
    seconds, before = 0.0, 0
    for line in record.training:
        scans = (line["step"] - before) * config.train.batch_size
        seconds += scans / line["scans_per_s"] if line["scans_per_s"] > 0 else 0.0
        before = line["step"]
    return seconds


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(250), duration(7300), duration(12.34)
    ('4 min 10 s', '2 h 1 min', '12 s')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
