"""The fine-tuning loop: read it from top to bottom, it is the whole run."""

from __future__ import annotations

import shlex
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from monai.losses.dice import DiceCELoss
from torch import nn

from vocotrain.checkpoint import Checkpoint, non_finite, save_checkpoint, training_tensors
from vocotrain.dice import mean_over_scans
from vocotrain.errors import TrainingDivergedError, TrainingStoppedError
from vocotrain.evaluation import evaluate_native, evaluate_store_grid
from vocotrain.finetune_report import FinetuneReport, mean_scores
from vocotrain.finetune_run import FinetuneRun, opened_finetune
from vocotrain.progress import OnEvent, silent
from vocotrain.run_folder import CHECKPOINTS_NAME, write_json
from vocotrain.schedule import learning_rate
from vocotrain.segmenter import SEGMENTER_NAME, Segmenter, save_segmenter

if TYPE_CHECKING:
    from torch import Tensor

    from vocotrain.finetune_config import FinetuneConfig
    from vocotrain.segmentation_data import CropBatch

RESULTS_NAME = "results.json"


def finetune(
    config: FinetuneConfig, *, resume: bool = False, on_event: OnEvent | None = None
) -> FinetuneReport:
    """Fine-tune a segmenter on a task and measure it on held-out scans.

    Args:
        config: All settings of the run.
        resume: Go on from the newest whole checkpoint of `config.out`.
        on_event: Called with what happens.

    Returns:
        What came of it; also in `results.json` of the run.

    Raises:
        TrainingStoppedError: SIGINT or SIGTERM came; a checkpoint was written.
        TrainingDivergedError: The loss is not finite.
        ScanReadError: A crop cannot be read from the store.
        VocoTrainError: Whatever `opened_finetune` refuses.
    """
    begin = time.perf_counter()
    with opened_finetune(config, resume=resume, on_event=on_event or silent) as run:
        loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
        run.model.train()
        while run.step < run.lesson.plan.steps:
            rate = train_step(run, next_batch(run), loss_of)
            run.step += 1
            if line_is_due(run):
                write_line(run, rate)
            wish = run.stop.number if run.step < run.lesson.plan.steps else 0
            if wish or run.step % config.train.checkpoint_every == 0:
                save(run)
            if wish:
                raise stopped(run, wish)
        return finish(run, begin)


def next_batch(run: FinetuneRun) -> CropBatch:
    """The next step's crops, on the device."""
    begin = time.perf_counter()
    batch = next(run.batches)
    run.waited_s += time.perf_counter() - begin
    return batch._replace(
        image_NCXYZ=batch.image_NCXYZ.to(run.device, non_blocking=True),
        class_NCXYZ=batch.class_NCXYZ.to(run.device, non_blocking=True),
    )


def train_step(run: FinetuneRun, batch: CropBatch, loss_of: nn.Module) -> float:
    """One update: forward, backward, clip, step.

    Returns:
        The learning rate of the update.
    """
    plan, precision = run.lesson.plan, run.precision
    rate = learning_rate(
        run.step,
        peak=plan.lr,
        warmup_steps=plan.warmup_steps,
        total_steps=plan.steps,
        starts_at_zero=False,
    )
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(run.device.type, dtype=precision.dtype, enabled=precision.is_autocast):
        logits_NKXYZ = run.model(batch.image_NCXYZ)
    loss: Tensor = loss_of(logits_NKXYZ.float(), batch.class_NCXYZ.long())
    run.guard.watch(loss, scans=batch.scans, step=run.step)
    run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch has no types here
    if plan.clip_norm is not None:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.model.parameters(), plan.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    run.loss_sum += loss.detach()
    return rate


def line_is_due(run: FinetuneRun) -> bool:
    """After the first step, the last, each `log_every`-th, and whenever scans are looked at."""
    ends = run.step in {1, run.lesson.plan.steps}
    return ends or run.step % run.config.train.log_every == 0 or look_is_due(run)


def look_is_due(run: FinetuneRun) -> bool:
    """Whether the held-out scans are looked at on the way; the end has its own look."""
    every = run.config.train.eval_every
    is_on_the_way = every > 0 and run.step % every == 0 and run.step < run.lesson.plan.steps
    return is_on_the_way and bool(run.lesson.split.holdout)


def write_line(run: FinetuneRun, rate: float) -> None:
    """One line of metrics: means since the line before, and what the held-out scans say.

    Raises:
        TrainingDivergedError: The loss of this step is not finite.
    """
    run.guard.look()
    steps = run.step - run.logged_step
    values: dict[str, float] = {
        "loss": float(run.loss_sum) / steps,
        "lr": rate,
        **run.clock.read(scans=steps * run.config.train.batch_size, waited_s=run.waited_s),
    }
    run.loss_sum.zero_()
    run.logged_step = run.step
    if look_is_due(run):
        with run.clock:
            values |= look(run)
    run.metrics.write(run.step, values)
    run.tell("train", **values)


def look(run: FinetuneRun) -> dict[str, float]:
    """Dice on the held-out scans now; the best weights so far are kept."""
    lesson = run.lesson
    scans = evaluate_store_grid(segmenter_of(run), lesson.store, lesson.split.holdout)
    mean = mean_over_scans(scans)
    if mean is not None and (run.best is None or mean > run.best[1]):
        run.best = (run.step, mean)
        save_segmenter(
            run.model,
            replace(lesson.spec, steps=run.step),
            run.out / CHECKPOINTS_NAME / "best" / SEGMENTER_NAME,
            dice_store_grid=mean,
            chosen_by="the held-out scans themselves",
        )
    return mean_scores("dice_store_grid", scans, lesson.spec.classes)


def save(run: FinetuneRun) -> None:
    """Write a checkpoint from which the run goes on bit for bit, unless there is one.

    Raises:
        TrainingDivergedError: Loss or weights are not finite; nothing is written.
    """
    run.guard.look()
    if run.saved_step == run.step:
        return
    tensors = training_tensors(run.model, run.optimizer) | {"loss_sum": run.loss_sum}
    if bad := non_finite(tensors):
        msg = (
            f"After step {run.step} {len(bad)} tensors are not finite, the first is {bad[0]}; no "
            "checkpoint was written of them. Lower optim.lr or set optim.clip_norm, and resume "
            "from the one before."
        )
        raise TrainingDivergedError(msg)
    state = {
        "scaler": run.scaler.state_dict(),
        "logged_step": run.logged_step,
        "best": run.best,
        "weights_share": run.weights_share,
    }
    with run.clock:
        path = save_checkpoint(
            run.out / CHECKPOINTS_NAME,
            Checkpoint(run.step, tensors, state),
            keep=run.config.train.keep_checkpoints,
        )
    run.saved_step = run.step
    run.tell("checkpoint", path=str(path))


def finish(run: FinetuneRun, begin: float) -> FinetuneReport:
    """Write the final weights, measure them, and write down what came of it."""
    save(run)
    lesson, split = run.lesson, run.lesson.split
    path = run.out / CHECKPOINTS_NAME / "final" / SEGMENTER_NAME
    save_segmenter(run.model, lesson.spec, path)
    segmenter = segmenter_of(run)
    report = FinetuneReport(
        run=run.out,
        segmenter=path,
        task=lesson.task.name,
        size=lesson.size.name,
        classes=lesson.spec.classes,
        steps=run.step,
        train=tuple(scan.id for scan in split.train),
        holdout=tuple(scan.id for scan in split.holdout),
        left_out=dict(split.left_out),
        weights_share=run.weights_share,
        dice_store_grid=tuple(evaluate_store_grid(segmenter, lesson.store, split.holdout)),
        dice_native=tuple(evaluate_native(segmenter, scan) for scan in lesson.native.values()),
        best=run.best,
        seconds=round(time.perf_counter() - begin, 3),
    )
    is_new = not (run.out / RESULTS_NAME).exists()
    if is_new and report.means:
        run.metrics.write(run.step, report.means)
    write_json(run.out / RESULTS_NAME, report.as_json())
    run.tell("done", path=str(path), **report.means)
    return report


def segmenter_of(run: FinetuneRun) -> Segmenter:
    """The network as it is now, ready to segment."""
    return Segmenter(run.model, run.lesson.spec, run.device, run.precision)


def stopped(run: FinetuneRun, number: int) -> TrainingStoppedError:
    """What to raise when somebody asked to stop and the checkpoint is written."""
    msg = (
        f"Stopped by {signal.Signals(number).name} after step {run.step} of "
        f"{run.lesson.plan.steps}; a checkpoint was written. Go on by "
        f"`voco train finetune --resume {shlex.quote(str(run.out))}`."
    )
    run.tell("stopped", signal=signal.Signals(number).name)
    return TrainingStoppedError(msg, number)
