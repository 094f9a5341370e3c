"""A fine-tuning run: all that the loop needs, made anew or taken up where it stopped.

One process. All chance is a function of the seed and the step, so a resumed run goes on as if it
had never stopped.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vocotrain.checkpoint import load_newest, restore
from vocotrain.config import config_yaml
from vocotrain.device import Precision, chosen_precision, device_kind
from vocotrain.distributed import process_count
from vocotrain.divergence import DivergenceGuard
from vocotrain.environment import environment
from vocotrain.errors import ConfigError
from vocotrain.finetune_config import FinetuneConfig, load_finetune_config
from vocotrain.lesson import Lesson, all_sites, bill_of, look_up_lesson, with_size
from vocotrain.memory import keep_freed_memory
from vocotrain.metrics import MetricsLog, StepClock
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.progress import OnEvent, ProgressEvent, Value
from vocotrain.resume import check_same_run
from vocotrain.run_folder import (
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    DATA_NAME,
    ENVIRONMENT_NAME,
    check_free,
    check_is_run,
    locked,
    write_json,
    write_text,
)
from vocotrain.segmentation_data import CropSource
from vocotrain.stop_signal import StopSignal
from vocotrain.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from torch import Tensor

    from vocotrain.segmentation_data import CropBatch

WEIGHTS_NAME = "weights.json"
"""In the run folder: what became of each tensor of the weights it started from."""

MAY_CHANGE_ON_RESUME = frozenset(
    {
        "out",
        "data.store",
        "data.sources",
        "data.workers",
        "model.checkpointing",
        "train.log_every",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.eval_every",
        "device",
        "threads",
    }
)
"""Keys that a resumed run may have otherwise; the store may move, but its digest must stay."""

_SAVED = ("scaler", "weights_share", "logged_step", "best", "loss_sum")
"""What a checkpoint of fine-tuning holds beside weights and moments."""


@dataclass(eq=False)
class FinetuneRun:
    """A run in progress.

    Attributes:
        config: Its settings.
        out: Its folder.
        lesson: What it learns.
        device: Where it computes.
        precision: Arithmetic of the forward pass.
        model: The network.
        optimizer: AdamW.
        scaler: Loss scaling; idle but for fp16.
        batches: Where crops come from.
        metrics: Where lines go.
        clock: Time since the last line.
        guard: Watches the loss.
        stop: Whether somebody asked to stop.
        on_event: Who listens.
        step: Updates done.
        waited_s: Seconds waited for crops.
        loss_sum: Sum of losses since the last line.
        logged_step: Updates done at the last line.
        saved_step: Updates done at the last checkpoint; -1 if there is none.
        best: Step and mean Dice of the best look at the held-out scans so far, or None.
        weights_share: Share of the starting weights that matched; None from scratch.
    """

    config: FinetuneConfig
    out: Path
    lesson: Lesson
    device: torch.device
    precision: Precision
    model: SwinUNETR
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    batches: Generator[CropBatch, None, None]
    metrics: MetricsLog
    clock: StepClock
    guard: DivergenceGuard
    stop: StopSignal
    on_event: OnEvent
    step: int
    waited_s: float
    loss_sum: Tensor
    logged_step: int
    saved_step: int
    best: tuple[int, float] | None
    weights_share: float | None

    def tell(self, stage: str, **values: Value) -> None:
        """Tell the listener."""
        self.on_event(ProgressEvent(stage, self.step, self.lesson.plan.steps, values))


@contextmanager
def opened_finetune(
    config: FinetuneConfig, *, resume: bool, on_event: OnEvent
) -> Iterator[FinetuneRun]:
    """Make a run, or take one up; the folder is locked and signals are kept while it is open.

    Raises:
        ConfigError: Settings that do not fit the task, the size or the store; several processes.
        LabelsError: No scan has the labels that the task needs.
        WeightsMismatchError: The weights are of another size.
        WeightsFileError: The weights cannot be read.
        DeviceUnavailableError: The device or precision asked for is not there.
        RunExistsError: The folder is not empty, and `resume` is not asked for.
        RunLockedError: Another process writes it.
        CheckpointError: Nothing to resume from.
        ResumeMismatchError: It was started with other settings.
        StoreMismatchError: It was started on another store.
    """
    if process_count() > 1:
        msg = (
            f"torchrun started {process_count()} processes, and a fine-tuning takes one; start "
            "`voco train finetune` without torchrun."
        )
        raise ConfigError(msg)
    out = Path(config.out)
    kind = device_kind(config.device)
    precision = chosen_precision(config.precision, kind)
    check_is_run(out) if resume else check_free(out)
    config = with_size(config)
    lesson = look_up_lesson(config)
    if resume:
        check_same_run(
            load_finetune_config(out / CONFIG_NAME),
            config,
            may_change=MAY_CHANGE_ON_RESUME,
            store=config.data.store,
            digest=lesson.store.digest,
        )
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if kind == "cpu":
            keep_freed_memory()
        device = torch.device(kind)
        run = _assembled(config, lesson, device, precision, resume=resume, on_event=on_event)
        stack.enter_context(run.stop)
        stack.callback(run.metrics.close)
        stack.callback(run.batches.close)
        run.tell(
            "start",
            device=str(device),
            precision=precision.name,
            scans=len(lesson.split.train),
            held_out=len(lesson.split.holdout),
            left_out=len(lesson.split.left_out),
        )
        yield run


def _assembled(
    config: FinetuneConfig,
    lesson: Lesson,
    device: torch.device,
    precision: Precision,
    *,
    resume: bool,
    on_event: OnEvent,
) -> FinetuneRun:
    out = Path(config.out)
    plan, seed = lesson.plan, config.train.seed
    model = _build_model(config, lesson)

    def warn(message: str) -> None:
        on_event(ProgressEvent("warning", 0, plan.steps, {"message": message}))

    found = load_newest(out / CHECKPOINTS_NAME, on_damaged=warn, needs=_SAVED) if resume else None
    share = found.state["weights_share"] if found else _start_from_weights(config, model, out)
    sites = all_sites(lesson.store, lesson.split, seed=seed)
    model = model.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision.is_scaled)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    if found is not None:
        restore(model, optimizer, found.tensors)
        scaler.load_state_dict(found.state["scaler"])
        loss_sum.copy_(found.tensors["loss_sum"])
    state: Mapping[str, Any] = found.state if found else {"logged_step": 0, "best": None}
    step = found.step if found else 0
    _write_papers(config, lesson, device, precision)
    source = CropSource(
        lesson.store, lesson.split.train, sites, lesson.settings, seed, config.train.batch_size
    )
    return FinetuneRun(
        config=config,
        out=out,
        lesson=lesson,
        device=device,
        precision=precision,
        model=model,
        optimizer=optimizer,
        scaler=scaler,
        batches=source.batches(step, plan.steps, workers=config.data.workers),
        metrics=MetricsLog(out, step=step),
        clock=StepClock(),
        guard=DivergenceGuard(),
        stop=StopSignal(),
        on_event=on_event,
        step=step,
        waited_s=0.0,
        loss_sum=loss_sum,
        logged_step=state["logged_step"],
        saved_step=found.step if found else -1,
        best=tuple(state["best"]) if state["best"] else None,
        weights_share=share,
    )


def _build_model(config: FinetuneConfig, lesson: Lesson) -> SwinUNETR:
    """The network with the weights of the run's seed; torch's own generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed)
        return SwinUNETR(
            lesson.size,
            out_channels=lesson.task.out_channels,
            checkpointing=config.model.checkpointing,
        )


def _start_from_weights(config: FinetuneConfig, model: SwinUNETR, out: Path) -> float | None:
    """Load the weights to start from and keep the report; None from scratch."""
    if config.model.weights is None:
        return None
    report = load_weights(model, config.model.weights)
    write_json(out / WEIGHTS_NAME, asdict(report))
    return report.share


def _write_papers(
    config: FinetuneConfig, lesson: Lesson, device: torch.device, precision: Precision
) -> None:
    """Settings last: a folder with a config.yaml has the other papers too."""
    out = Path(config.out)
    write_json(out / ENVIRONMENT_NAME, environment(device, precision, processes=1))
    write_json(out / DATA_NAME, bill_of(config, lesson))
    write_text(out / CONFIG_NAME, config_yaml(config))
