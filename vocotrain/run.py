"""A pretraining run: all that the loop needs, made anew or taken up where it stopped."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vocotrain.checkpoint import load_newest, restore
from vocotrain.config import PretrainConfig, config_yaml
from vocotrain.data import Batches, FieldSource
from vocotrain.device import Precision, chosen_precision, device_kind
from vocotrain.distributed import World, joined_world
from vocotrain.divergence import DivergenceGuard
from vocotrain.environment import environment
from vocotrain.memory import keep_freed_memory
from vocotrain.metrics import MetricsLog, StepClock, TermMeans
from vocotrain.monitor import Monitor, make_monitor
from vocotrain.objective import VoCo
from vocotrain.progress import OnEvent, ProgressEvent, Value
from vocotrain.resume import (
    changed_processes,
    check_resumable,
    check_same_exclusions,
    check_steps,
)
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
from vocotrain.stop_signal import StopSignal
from vocotrain.training_data import TrainingData, look_up_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vocotrain.sizes import ModelSize


_WARMUP_TOO_LONG = (
    "optim.warmup_steps is {}, not less than train.steps: the rate never reaches optim.lr. "
    "Set a shorter warm-up, or train longer."
)

_SAVED = ("scaler", "means_count", "logged_step", "means.sums")
"""What a checkpoint of pretraining holds beside weights and moments."""


@dataclass(eq=False)
class Run:
    """A run in progress.

    Attributes:
        config: Its settings.
        out: Its folder.
        world: This process among those of the run.
        device: Where it computes.
        precision: Arithmetic of the forward pass.
        data: What it is trained on.
        objective: Encoder and heads.
        model: The same, in the wrapper that averages gradients if there are several processes.
        optimizer: AdamW over what has gradients.
        scaler: Loss scaling; idle but for fp16.
        batches: Where batches come from.
        monitor: Fields that are looked at; None where this process does not look.
        metrics: Where lines go; None where this process does not write.
        means: Sums since the last line.
        clock: Time since the last line.
        guard: Watches the loss.
        stop: Whether somebody asked to stop.
        on_event: Who listens.
        step: Updates done.
        logged_step: Updates done at the last line.
        saved_step: Updates done at the last checkpoint; -1 if there is none.
    """

    config: PretrainConfig
    out: Path
    world: World
    device: torch.device
    precision: Precision
    data: TrainingData
    objective: VoCo
    model: nn.Module
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    batches: Batches
    monitor: Monitor | None
    metrics: MetricsLog | None
    means: TermMeans
    clock: StepClock
    guard: DivergenceGuard
    stop: StopSignal
    on_event: OnEvent
    step: int
    logged_step: int
    saved_step: int

    def tell(self, stage: str, **values: Value) -> None:
        """Tell the listener, once for all processes."""
        if self.world.is_writer:
            event = ProgressEvent(stage, self.step, self.config.train.steps, values)
            self.on_event(event)


@contextmanager
def opened_run(config: PretrainConfig, *, resume: bool, on_event: OnEvent) -> Iterator[Run]:
    """Make a run, or take one up; the folder is locked and signals are kept while it is open.

    Args:
        config: Its settings.
        resume: Go on from the newest whole checkpoint of `config.out`.
        on_event: Who listens.

    Yields:
        The run.

    Raises:
        ConfigError: Settings that do not fit the store or the number of processes.
        InputShapeError: A crop too small for the size.
        ManifestError: A list of `data.exclude` cannot be read.
        DeviceUnavailableError: The device or precision asked for is not there.
        RunExistsError: The folder is not empty, and `resume` is not asked for.
        RunLockedError: Another process writes it.
        CheckpointError: Nothing to resume from.
        ResumeMismatchError: It was started with other settings.
        StoreMismatchError: It was started on another store.
    """
    out = Path(config.out)
    kind = device_kind(config.device)
    precision = chosen_precision(config.precision, kind)
    with ExitStack() as stack:
        world = stack.enter_context(joined_world(kind))
        device = torch.device(kind, world.local_rank) if kind == "cuda" else torch.device("cpu")
        if resume:
            check_is_run(out)
        elif world.is_writer:
            check_free(out)
        data = look_up_data(config, processes=world.size)
        if resume:
            check_resumable(config, data.digest)
            check_same_exclusions(out, sorted(data.excluded.scans))
        if world.is_writer:
            stack.enter_context(locked(out))
        world.wait()
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if kind == "cpu":
            keep_freed_memory()
        warnings = [*data.warnings, *(changed_processes(out, world.size) if resume else ())]
        run = _assembled(config, data, world, device, precision, resume=resume, on_event=on_event)
        stack.enter_context(run.stop)
        stack.callback(run.batches.close)
        if run.metrics is not None:
            stack.callback(run.metrics.close)
        run.tell("start", device=str(device), precision=precision.name, scans=len(data.training))
        for message in warnings:
            run.tell("warning", message=message)
        if config.optim.warmup_steps >= config.train.steps:
            run.tell("warning", message=_WARMUP_TOO_LONG.format(config.optim.warmup_steps))
        yield run


def build_objective(config: PretrainConfig, size: ModelSize) -> VoCo:
    """Encoder and heads with the weights of the run's seed; torch's own generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.train.seed)
        return VoCo(size, config.objective, checkpointing=config.model.checkpointing)


def build_optimizer(config: PretrainConfig, objective: VoCo) -> torch.optim.AdamW:
    """AdamW over what has gradients; the teacher is no part of it."""
    return torch.optim.AdamW(
        [parameter for parameter in objective.parameters() if parameter.requires_grad],
        lr=config.optim.lr,
        betas=config.optim.betas,
        weight_decay=config.optim.weight_decay,
        amsgrad=config.optim.amsgrad,
        fused=True,
    )


def _assembled(
    config: PretrainConfig,
    data: TrainingData,
    world: World,
    device: torch.device,
    precision: Precision,
    *,
    resume: bool,
    on_event: OnEvent,
) -> Run:
    out = Path(config.out)
    objective = build_objective(config, data.size).to(device)
    optimizer = build_optimizer(config, objective)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.is_scaled)
    means = TermMeans(device)

    def warn(message: str) -> None:
        on_event(ProgressEvent("warning", 0, config.train.steps, {"message": message}))

    found = load_newest(out / CHECKPOINTS_NAME, on_damaged=warn, needs=_SAVED) if resume else None
    if found is not None:
        restore(objective, optimizer, found.tensors)
        scaler.load_state_dict(found.state["scaler"])
        means.restore(found.tensors["means.sums"], found.state["means_count"])
    step = found.step if found is not None else 0
    check_steps(out, done=step, wanted=config.train.steps)
    if world.is_writer:
        _write_papers(config, data, device, precision, world)
    return Run(
        config=config,
        out=out,
        world=world,
        device=device,
        precision=precision,
        data=data,
        objective=objective,
        model=_averaging(objective, world, device),
        optimizer=optimizer,
        scaler=scaler,
        batches=_batches(config, data, world, device, step),
        monitor=_monitor(config, data, device) if world.is_writer else None,
        metrics=MetricsLog(out, step=step) if world.is_writer else None,
        means=means,
        clock=StepClock(),
        guard=DivergenceGuard(),
        stop=StopSignal(),
        on_event=on_event,
        step=step,
        logged_step=found.state["logged_step"] if found is not None else 0,
        saved_step=found.step if found is not None else -1,
    )


def _batches(
    config: PretrainConfig, data: TrainingData, world: World, device: torch.device, step: int
) -> Batches:
    source = FieldSource(
        store=data.store,
        table=data.training,
        settings=data.settings,
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        rank=world.rank,
        world=world.size,
    )
    return Batches(
        source,
        range(step, config.train.steps),
        device=device,
        workers=config.data.workers,
        prefetch_batches=config.data.prefetch_batches,
    )


def _monitor(config: PretrainConfig, data: TrainingData, device: torch.device) -> Monitor | None:
    if config.train.eval_every == 0:
        return None
    return make_monitor(
        data.store,
        training=data.training,
        held_out=data.held_out,
        settings=data.settings,
        seed=config.train.seed,
        fields=config.train.eval_fields,
        batch_size=config.train.batch_size,
        device=device,
    )


def _averaging(objective: VoCo, world: World, device: torch.device) -> nn.Module:
    """Wrap for several processes; buffers are constants and the teacher has no gradients."""
    if world.size == 1:
        return objective
    devices = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)


def _write_papers(
    config: PretrainConfig,
    data: TrainingData,
    device: torch.device,
    precision: Precision,
    world: World,
) -> None:
    """Settings last: a folder with a config.yaml has the other papers too."""
    out = Path(config.out)
    write_json(out / ENVIRONMENT_NAME, environment(device, precision, processes=world.size))
    write_json(out / DATA_NAME, data.bill)
    write_text(out / CONFIG_NAME, config_yaml(config))
