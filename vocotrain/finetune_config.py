"""The settings of a fine-tuning run: a task by name, and what differs from its row.

Most keys are null: the task's row says the value. `resolve_task` and `resolve_plan` put the two
together; the run keeps the whole tree and the figures that came of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from vocodata.geometry import Size, Spacing
from vocotrain.config import (  # noqa: TC001 (pydantic reads them at run time)
    Count,
    CountOrNever,
    NotNegative,
    Positive,
    Share,
)
from vocotrain.errors import ConfigError
from vocotrain.segmentation_data import CropSettings
from vocotrain.settings import Settings, merged, read_tree, recipe_text, validated
from vocotrain.tasks import Task, changed, load_tasks, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vocotrain.sizes import ModelSize

_FLIP = 0.2
"""Chance of a flip along each axis, and of a turn, where no class has a side (the protocol's)."""

Millimetres = Annotated[float, Field(gt=0, le=50)]


def _known_task(name: str) -> str:
    return task(name).name


class TaskConfig(Settings):
    """What is segmented. Null takes what the task's row says."""

    name: Annotated[str, AfterValidator(_known_task)]
    """A row of catalog/tasks.yaml."""
    classes: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Class names as the store's labels have them, background first."""
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] | None = None
    """Grid that the store must have, x y z, mm."""
    window_hu: tuple[float, float] | None = None
    """Window mapped to [0, 1], HU."""
    roi_vox: tuple[Count, Count, Count] | None = None
    """Crop and sliding window x y z, voxels."""
    crops_per_volume: Count | None = None
    """Crops cut from each volume of a step."""
    pos_neg: tuple[CountOrNever, CountOrNever] | None = None
    """Ratio of crops centred on labelled and on unlabelled voxels."""
    balance_classes: bool | None = None
    """Draw a class first, then a labelled voxel of it, so that small organs come as often."""
    overlap: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of a sliding window that the next one covers again."""
    blending: Literal["constant", "gaussian"] = "constant"
    """Weight of a window's voxels where windows overlap; constant is the protocol's."""


class FinetuneDataConfig(Settings):
    """What is learned from and measured on."""

    store: str
    """A folder or URL of a store with labels."""
    train: tuple[str, ...] | None = None
    """Ids or patterns (`btcv/*`) to learn from; null: all that are not held out."""
    holdout: tuple[str, ...] | None = None
    """Ids or patterns to measure on; null: a fifth of the scans; []: none."""
    sources: str | None = None
    """Manifest that the store was built from: then Dice is measured on the scans' own grids too."""
    workers: CountOrNever = 1
    """Threads that read crops ahead; 0 reads when asked."""


class FinetuneModelConfig(Settings):
    """What is fine-tuned."""

    size: str | None = None
    """A row of catalog/sizes.yaml; null: the size that `weights` says it has."""
    weights: str | None = None
    """Run folder, .safetensors or .pt to start from; null: from scratch."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


class AugmentConfig(Settings):
    """Changes made to a crop and its labels. Null: 0.2, or 0 where classes have a side."""

    flip: Share | None = None
    """Chance of a mirroring, for each axis."""
    turn: Share | None = None
    """Chance of 90, 180 or 270 degrees in the x, y plane."""
    shift_probability: Share = 0.1
    """Chance that the intensity is shifted."""
    shift_range: NotNegative = 0.1
    """Largest shift, as a share of the window."""


class FinetuneOptimConfig(Settings):
    """AdamW and its schedule. Null takes what the task's row says."""

    lr: Positive | None = None
    """Rate at the end of the warm-up."""
    warmup_steps: CountOrNever | None = None
    """Updates until the peak."""
    weight_decay: NotNegative | None = None
    """Decay per unit of learning rate."""
    clip_norm: Positive | None = None
    """Largest norm of all gradients together; null does not clip."""


class FinetuneTrainConfig(Settings):
    """How long, how much at once, and what is written when."""

    steps: Count | None = None
    """Updates of the whole run; null: what the task's row says."""
    seed: CountOrNever = 0
    """Start of all chance: new weights and samples."""
    batch_size: Count = 1
    """Volumes of a step."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl; numbers are means over them."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Newest checkpoints that are kept."""
    eval_every: CountOrNever = 0
    """Steps between looks at the held-out scans; 0 looks once, at the end."""


class FinetuneConfig(Settings):
    """A whole fine-tuning run."""

    task: TaskConfig
    data: FinetuneDataConfig
    model: FinetuneModelConfig = FinetuneModelConfig()
    augment: AugmentConfig = AugmentConfig()
    optim: FinetuneOptimConfig = FinetuneOptimConfig()
    train: FinetuneTrainConfig = FinetuneTrainConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 or fp16, as the GPU has it, and fp32 on CPU."""
    threads: Count | None = None
    """Threads on the CPU; null leaves torch's choice."""
    out: str
    """A folder for the run."""


@dataclass(frozen=True)
class OptimPlan:
    """The figures of the optimiser, all decided.

    Attributes:
        steps: Updates of the whole run.
        lr: Rate at the end of the warm-up.
        warmup_steps: Updates until the peak.
        weight_decay: Decay per unit of learning rate.
        clip_norm: Largest norm of all gradients together, or None.
    """

    steps: int
    lr: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float | None


def load_finetune_config(
    recipe: str | Path | None = None,
    sets: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
) -> FinetuneConfig:
    """Read a recipe, put values over it, and check the whole.

    Args:
        recipe: A YAML file, such as the config.yaml of a run; None starts from nothing, as
            `task.name`, `data.store` and `out` are all that a run needs.
        sets: Words `a.b=c` of the command line; they win.
        values: Dotted key to value for what has an option of its own, such as `model.weights`.

    Raises:
        ConfigError: Every fault at once, with its key.
    """
    where = "the command line" if recipe is None else str(recipe)
    tree = {} if recipe is None else read_tree(recipe_text(Path(recipe)), where)
    flags = {
        "task.name": f"--task NAME ({', '.join(load_tasks())})",
        "data.store": "--data STORE",
        "out": "--out RUN",
    }
    return validated(FinetuneConfig, merged(tree, values or {}, sets), where, flags=flags)


def resolve_task(config: TaskConfig) -> Task:
    """The task's row with the recipe's changes.

    Raises:
        ConfigError: No such task, or changes that do not fit.
    """
    given = config.model_dump(exclude={"name", "blending"}, exclude_none=True)
    if "spacing_mm" in given:
        given["spacing_mm"] = Spacing(*given["spacing_mm"])
    if "roi_vox" in given:
        given["roi_vox"] = Size(*given["roi_vox"])
    return changed(task(config.name), given)


def resolve_plan(config: FinetuneConfig, row: Task, train_scans: int) -> OptimPlan:
    """Steps, rates and decay: the recipe's, or else the task's.

    Args:
        config: The recipe.
        row: The task.
        train_scans: Scans learned from; an epoch of the task's row sees each of them once.
    """
    per_epoch = ceil(train_scans / config.train.batch_size)
    steps = config.train.steps or row.steps or (row.epochs or 0) * per_epoch
    warmup = config.optim.warmup_steps
    if warmup is None:
        warmup = row.warmup_steps or (row.warmup_epochs or 0) * per_epoch
        # a run cut short keeps the row's share of warm-up, not its length
        whole = row.steps or (row.epochs or 0) * per_epoch
        warmup = min(warmup, round(steps * warmup / whole))
    decay = config.optim.weight_decay
    return OptimPlan(
        steps=steps,
        lr=config.optim.lr or row.lr,
        warmup_steps=warmup,
        weight_decay=row.weight_decay if decay is None else decay,
        clip_norm=config.optim.clip_norm,
    )


def crop_settings(config: AugmentConfig, row: Task) -> CropSettings:
    """What a training sample looks like.

    Raises:
        ConfigError: Turns are asked for, but a crop is not square in x and y.
    """
    is_square = row.roi_vox.x == row.roi_vox.y
    if config.turn and not is_square:
        msg = (
            f"augment.turn is {config.turn:g}, but roi_vox is {list(row.roi_vox)}; expected x and "
            "y alike. Set augment.turn=0 or another task.roi_vox."
        )
        raise ConfigError(msg)
    usual = 0.0 if row.sided else _FLIP
    return CropSettings(
        roi_vox=row.roi_vox,
        crops=row.crops_per_volume,
        window_hu=row.window_hu,
        positive_share=row.pos_neg[0] / sum(row.pos_neg),
        balance_classes=row.balance_classes,
        flip=usual if config.flip is None else config.flip,
        turn=(usual if is_square else 0.0) if config.turn is None else config.turn,
        shift_probability=config.shift_probability,
        shift_range=config.shift_range,
    )


def check_roi(row: Task, size: ModelSize) -> None:
    """Refuse a crop that the network cannot halve as often as it must.

    Raises:
        ConfigError: A side of `roi_vox` is no multiple of the size's step, or the crop too small.
    """
    step = size.step_vox
    if any(side % step for side in row.roi_vox) or max(row.roi_vox) < 2 * step:
        better = [max(1, round(side / step)) * step for side in row.roi_vox]
        if max(better) < 2 * step:
            better[2] = 2 * step
        msg = (
            f"roi_vox of task '{row.name}' is {list(row.roi_vox)}; size '{size.name}' expects "
            f"multiples of {step} voxels, one side at least {2 * step}. "
            f"Set task.roi_vox={better} or choose another size."
        )
        raise ConfigError(msg)
