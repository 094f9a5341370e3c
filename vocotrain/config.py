"""The settings of a pretraining run: one frozen tree, and the recipes that fill it.

A recipe is one YAML file in `recipes/` or anywhere; `--set a.b=c` changes single values. What a
recipe leaves out of `objective` is what its variant says (`VARIANTS`), so `objective.variant` alone
switches between the authors' released objective and ours, and every single repair can be switched
on top. The resolved tree is saved with the run and is all that resuming needs.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from vocodata.geometry import Size
from vocotrain.errors import ConfigError
from vocotrain.fields import FieldSettings
from vocotrain.settings import Settings, closest, merged, read_tree, recipe_text, validated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Count = Annotated[int, Field(ge=1)]
CountOrNever = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Shares = tuple[Share, Share, Share]

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "reference": {
        "teacher_start": "random",
        "teacher_update": "before_use",
        "teacher_momentum": 0.9,
        "row_dropout": 0.2,
        "reach_last": False,
        "shift_probability": 0.5,
        "shift_range": 0.1,
        "crop_flips": [0.2, 0.2, 0.2],
        "crop_turn": 0.2,
        "field_flips": [0.0, 0.0, 0.0],
    },
    "voco": {
        "teacher_start": "student",
        "teacher_update": "after_step",
        "teacher_momentum": 0.99,
        "row_dropout": 0.0,
        "reach_last": True,
        "shift_probability": 1.0,
        "shift_range": 0.1,
        "crop_flips": [0.0, 0.0, 0.0],
        "crop_turn": 0.0,
        "field_flips": [0.0, 0.0, 0.0],
    },
}
"""What each variant of the objective says where a recipe says nothing.

The released values do not converge in small runs: whole rows are dropped, the teacher head starts
unrelated to the student, and crops are flipped and turned while their label still asks for left
and right. Each repair can be switched alone.
"""
_FLAGS = {
    "data.store": "--data STORE",
    "out": "--out RUN",
    "model.size": "--size tiny (or B, L, H)",
}


class DataConfig(Settings):
    """What is trained on."""

    store: str
    """A folder or URL of a store that `voco data build` wrote."""
    holdout: tuple[str, ...] = ()
    """Ids or patterns (`btcv/*`) of scans that are never trained on; they are monitored."""
    exclude: tuple[str, ...] = ()
    """Files with ids of scans that are not looked at in any way, as `voco data dedup` and
    `leak-check` write them."""
    workers: CountOrNever = 0
    """Loader processes; 0 reads in a thread of the training process."""
    prefetch_batches: Count = 2
    """Batches made ahead, per loader process."""


class ModelConfig(Settings):
    """What is trained."""

    size: str
    """A row of catalog/sizes.yaml."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


class ObjectiveConfig(Settings):
    """The VoCo objective and the changes made to its crops."""

    variant: Literal["voco", "reference"]
    """Formula of the loss, and what the keys left out are."""
    grid: tuple[Count, Count, Count] = (3, 3, 1)
    """Base cells along x, y, z; more than one along z gives three-dimensional labels."""
    crop_vox: tuple[Count, Count, Count] | None = None
    """Voxels of a crop along x, y, z; null takes the size's own."""
    crops: Count = 2
    """Random crops of each field."""
    teacher_start: Literal["student", "random"]
    """Whether the teacher head starts as a copy of the student head."""
    teacher_update: Literal["after_step", "before_use"]
    """When the teacher follows: after the optimiser's step, or in the forward pass before use."""
    teacher_momentum: Share
    """Share of itself that the teacher keeps at each update."""
    row_dropout: Annotated[float, Field(ge=0, lt=1)]
    """Chance that the student does not see a crop's feature at all."""
    reach_last: bool
    """Whether a random crop may lie at the very last position."""
    shift_probability: Share
    """Chance that a crop's intensity is shifted."""
    shift_range: NotNegative
    """Largest shift, as a share of the HU window."""
    crop_flips: Shares
    """Chances that a crop is mirrored along x, y, z while its label stays."""
    crop_turn: Share
    """Chance that a crop is turned by 90, 180 or 270 degrees in the x, y plane."""
    field_flips: Shares
    """Chances that the whole field and its labels are mirrored along x, y, z."""

    def field_settings(self, size_crop_vox: Size) -> FieldSettings:
        """What a sample looks like under these settings.

        Args:
            size_crop_vox: Crop that the model size is made for, voxels.
        """
        return FieldSettings(
            grid=Size(*self.grid),
            crop_vox=Size(*(self.crop_vox or size_crop_vox)),
            crops=self.crops,
            reach_last=self.reach_last,
            shift_probability=self.shift_probability,
            shift_range=self.shift_range,
            crop_flips=self.crop_flips,
            crop_turn=self.crop_turn,
            field_flips=self.field_flips,
            row_dropout=self.row_dropout,
        )


class OptimConfig(Settings):
    """AdamW and its schedule."""

    lr: Positive
    """Rate at the end of the warm-up."""
    warmup_steps: CountOrNever
    """Updates until the peak."""
    warmup_from_zero: bool = False
    """The authors' warm-up: the first update runs at rate 0."""
    weight_decay: NotNegative = 0.01
    """Decay per unit of learning rate."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    """Decay of the running means of gradient and square."""
    amsgrad: bool = False
    """Keep the largest running square."""
    clip_norm: Positive | None = None
    """Largest norm of all gradients together; null does not clip."""


class TrainConfig(Settings):
    """How long, how much at once, and what is written when."""

    steps: Count
    """Updates of the whole run."""
    seed: CountOrNever = 0
    """Start of all chance: weights and samples."""
    batch_size: Annotated[int, Field(ge=2)]
    """Volumes in the global batch."""
    log_every: Count
    """Steps between lines of metrics.jsonl; numbers are means over them."""
    checkpoint_every: Count
    """Steps between checkpoints."""
    keep_checkpoints: Count = 3
    """Newest checkpoints that are kept."""
    eval_every: CountOrNever
    """Steps between looks at the held-out scans; 0 never looks."""
    eval_fields: Count = 16
    """Fields of each look; the same ones every time."""


class PretrainConfig(Settings):
    """A whole pretraining run."""

    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    optim: OptimConfig
    train: TrainConfig
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; auto is bf16 or fp16, as the GPU has it, and fp32 on CPU."""
    threads: Count | None = None
    """Threads of each process on the CPU; null leaves torch's choice."""
    out: str
    """A folder for the run."""

    @model_validator(mode="after")
    def _a_turned_crop_keeps_its_shape(self) -> Self:
        crop = self.objective.crop_vox
        if crop is not None and crop[0] != crop[1] and self.objective.crop_turn > 0:
            msg = (
                f"objective.crop_turn is {self.objective.crop_turn}, but objective.crop_vox is "
                f"{list(crop)}; expected as many voxels along x as along y, or no turns."
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _grid_has_cells_to_tell_apart(self) -> Self:
        if max(self.objective.grid) < 2:
            msg = "objective.grid has one cell; expected at least two, or there is no position."
            raise ValueError(msg)
        return self


def load_config(
    recipe: str | Path | None = None,
    sets: Sequence[str] = (),
    *,
    values: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """Read a recipe, put values over it, and check the whole.

    Args:
        recipe: Name of a recipe of ours, or a YAML file, such as the config.yaml of a run. None
            takes the recipe made for the model size.
        sets: Words `a.b=c` of the command line; they win.
        values: Dotted key to value for what has an option of its own, such as `data.store`.

    Returns:
        The resolved settings.

    Raises:
        ConfigError: Every fault at once, with its key.
    """
    given = merged({}, values or {}, sets)
    if recipe is None:
        model = given.get("model")
        recipe = "tiny" if isinstance(model, dict) and model.get("size") == "tiny" else "voco"
    text, where = _read_recipe(recipe)
    tree = merged(read_tree(text, where), values or {}, sets)
    return validated(PretrainConfig, _with_variant(tree), where, flags=_FLAGS)


def recipe_names() -> list[str]:
    """Names of the recipes that come with the toolkit."""
    folder = resources.files("vocotrain") / "recipes"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def config_yaml(config: Settings) -> str:
    """Write settings as YAML that `load_config` reads back to the same value."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_recipe(recipe: str | Path) -> tuple[str, str]:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        return recipe_text(path), str(path)
    names = recipe_names()
    if str(recipe) not in names:
        msg = (
            f"No recipe is named {str(recipe)!r}; expected one of {', '.join(names)}, or a file "
            f"that ends in .yaml.{closest(str(recipe), names)}"
        )
        raise ConfigError(msg)
    file = resources.files("vocotrain") / "recipes" / f"{recipe}.yaml"
    return file.read_text(encoding="utf-8"), f"recipe {str(recipe)!r}"


def _with_variant(tree: dict[str, Any]) -> dict[str, Any]:
    """Fill what the recipe leaves out of the objective; an unknown variant is left to the check."""
    objective = tree.get("objective")
    if not isinstance(objective, dict):
        return tree
    variant = objective.get("variant")
    said = VARIANTS.get(variant, VARIANTS["voco"]) if isinstance(variant, str) else VARIANTS["voco"]
    return {**tree, "objective": {**said, **objective}}
