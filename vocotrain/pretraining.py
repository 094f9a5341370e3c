"""The pretraining loop: read it from top to bottom, it is the whole run."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING

import torch
from torch import nn

from vocotrain.checkpoint import Checkpoint, non_finite, save_checkpoint, training_tensors
from vocotrain.errors import TrainingDivergedError, TrainingStoppedError
from vocotrain.progress import OnEvent, silent
from vocotrain.run import Run, opened_run
from vocotrain.run_folder import CHECKPOINTS_NAME, whole_folder
from vocotrain.schedule import learning_rate
from vocotrain.weights import save_weights

if TYPE_CHECKING:
    from pathlib import Path

    from vocotrain.config import PretrainConfig
    from vocotrain.data import FieldBatch

FINAL_NAME = "final"


def pretrain(
    config: PretrainConfig, *, resume: bool = False, on_event: OnEvent | None = None
) -> Path:
    """Pretrain an encoder.

    Args:
        config: All settings of the run.
        resume: Go on from the newest whole checkpoint of `config.out`; from the start if the run
            was killed before the first.
        on_event: Called with what happens.

    Returns:
        `checkpoints/final` of the run, with `encoder.safetensors` and `heads.safetensors`.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        TrainingDivergedError: The loss is not finite.
        ScanReadError: A field cannot be read from the store.
        LoaderDiedError: A process that reads fields was killed.
        VocoTrainError: Whatever `opened_run` refuses.
    """
    with opened_run(config, resume=resume, on_event=on_event or silent) as run:
        while run.step < config.train.steps:
            rate = train_step(run, run.batches.next())
            run.step += 1
            if line_is_due(run):
                write_line(run, rate)
            wish = run.world.largest(run.stop.number)
            if wish or is_due(run.step, config.train.checkpoint_every):
                save(run)
            if wish and run.step < config.train.steps:
                raise stopped(run, wish)
        return write_final(run)


def train_step(run: Run, batch: FieldBatch) -> float:
    """One update: forward, backward, clip, step, teacher.

    Returns:
        The learning rate of the update.
    """
    optim, precision = run.config.optim, run.precision
    rate = learning_rate(
        run.step,
        peak=optim.lr,
        warmup_steps=optim.warmup_steps,
        total_steps=run.config.train.steps,
        starts_at_zero=optim.warmup_from_zero,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(run.device.type, precision.dtype, enabled=precision.is_autocast):
        output = run.model(batch)
    loss = output.terms.total()
    run.guard.watch(loss, scans=batch.scans, step=run.step)
    run.scaler.scale(loss).backward()
    if optim.clip_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.objective.parameters(), optim.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.objective.update_teacher()
    run.means.add(output)
    return rate


def is_due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps is done after this one; 0 is never."""
    return every > 0 and step % every == 0


def line_is_due(run: Run) -> bool:
    """After the first step, the last, each `log_every`-th, and whenever the monitor looks."""
    ends = run.step in {1, run.config.train.steps}
    return ends or is_due(run.step, run.config.train.log_every) or look_is_due(run)


def look_is_due(run: Run) -> bool:
    """After each `eval_every`-th step and the last, unless the monitor never looks."""
    every = run.config.train.eval_every
    return is_due(run.step, every) or (every > 0 and run.step == run.config.train.steps)


def write_line(run: Run, rate: float) -> None:
    """Write means, speed and, if it is time, what the monitor sees: the only wait for the device.

    Raises:
        TrainingDivergedError: The loss of this step is not finite.
    """
    run.guard.look()
    means = run.means.take(run.world)
    scans = (run.step - run.logged_step) * run.config.train.batch_size
    values = {**means, "lr": rate, **run.clock.read(scans=scans, waited_s=run.batches.waited_s)}
    run.logged_step = run.step
    with run.clock:
        if run.monitor is not None and look_is_due(run):
            precision = run.precision
            with torch.autocast(run.device.type, precision.dtype, enabled=precision.is_autocast):
                values |= run.monitor.look(run.objective)
    if run.metrics is not None:
        run.metrics.write(run.step, values)
    run.tell("train", **values)


def save(run: Run) -> None:
    """Write a checkpoint of this step, unless there is one.

    Raises:
        TrainingDivergedError: Loss or weights are not finite; nothing is written.
    """
    run.guard.look()
    if run.saved_step == run.step:
        return
    with run.clock:
        sums, count = run.means.state(run.world)
        tensors = {**training_tensors(run.objective, run.optimizer), "means.sums": sums}
        if bad := non_finite(tensors):
            msg = (
                f"After step {run.step} {len(bad)} tensors are not finite, the first is {bad[0]}; "
                "no checkpoint was written of them. Lower optim.lr or set optim.clip_norm, and "
                "resume from the one before."
            )
            raise TrainingDivergedError(msg)
        state = {
            "scaler": run.scaler.state_dict(),
            "means_count": count,
            "logged_step": run.logged_step,
            "store_digest": run.data.digest,
        }
        if run.world.is_writer:
            path = save_checkpoint(
                run.out / CHECKPOINTS_NAME,
                Checkpoint(run.step, tensors, state),
                keep=run.config.train.keep_checkpoints,
            )
            run.tell("checkpoint", path=str(path))
        run.world.wait()
    run.saved_step = run.step


def write_final(run: Run) -> Path:
    """Write the last checkpoint, and the weights that leave the run."""
    save(run)
    final = run.out / CHECKPOINTS_NAME / FINAL_NAME
    if run.world.is_writer:
        facts = {
            "objective": run.config.objective.variant,
            "step": run.step,
            "store_digest": run.data.digest,
            "crop_vox": list(run.data.settings.crop_vox),
            "spacing_mm": [list(spacing) for spacing in run.data.spacings_mm],
            "window_hu": [list(window) for window in run.data.windows_hu],
        }
        with whole_folder(final) as folder:
            save_weights(run.objective.encoder, folder / "encoder.safetensors", facts)
            heads = {
                f"{name}.{key}": value
                for name in ("student", "teacher")
                for key, value in getattr(run.objective, name).state_dict().items()
            }
            save_weights(heads, folder / "heads.safetensors", facts)
        run.tell("done", path=str(final))
    run.world.wait()
    return final


def stopped(run: Run, number: int) -> TrainingStoppedError:
    """What to raise when somebody asked to stop and the checkpoint is written."""
    run.tell("stopped", signal=signal.Signals(number).name)
    msg = (
        f"Stopped by {signal.Signals(number).name} after step {run.step} of "
        f"{run.config.train.steps}, with a checkpoint. Go on with "
        f"`voco train pretrain --resume {shlex.quote(str(run.out))}`."
    )
    return TrainingStoppedError(msg, number)
