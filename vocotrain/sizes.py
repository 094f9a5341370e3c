"""Model sizes: the rows of catalog/sizes.yaml, typed and checked, and what follows from them.

Nothing about a model is looked up by its width: feature widths, the smallest crop and the multiple
an input must have are all derived from the row. A size that is no row is made by hand:
`ModelSize(name="mine", feature_size=24, depths=(2, 2), heads=(2, 4), window=Size(4, 4, 4))`.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_args

import yaml

from vocodata.geometry import Size
from vocotrain.errors import InputShapeError, ModelSizeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Merging = Literal["octants", "doubled"]
"""Which neighbours a patch merging joins: all eight, or as MONAI up to 1.4 (two of them twice)."""

RELEASED_WINDOW = Size(7, 7, 7)
RELEASED_CROP_VOX = Size(64, 64, 64)
"""What the released sizes use."""


@dataclass(frozen=True)
class ModelSize:
    """Everything that fixes the shape of an encoder and its projection head.

    Attributes:
        name: What people call it.
        feature_size: Channels of the first stage, F; stage i has F * 2^i.
        depths: Swin blocks of each stage; their number is the number of stages.
        heads: Attention heads of each stage.
        window: Attention window, tokens.
        patch: Side of a token, voxels.
        mlp_ratio: Hidden width of a block's MLP over its channels.
        qkv_bias: Whether queries, keys and values have a bias.
        merging: `octants` joins the eight neighbours of a patch merging, as MONAI does since 1.5;
            `doubled` is MONAI's up to 1.4, which took two of them twice and left two out. Both have
            the same tensors; weights are good only for the one they were trained with. The released
            VoCo weights were trained with 1.3 (`doubled`).
        head_hidden: Hidden width of the projection head.
        head_width: Output width of the projection head.
        crop_vox: The crop this size is pretrained on, voxels.

    Raises:
        ModelSizeError: Numbers that do not make a model.
    """

    name: str
    feature_size: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: Size = RELEASED_WINDOW
    patch: int = 2
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    merging: Merging = "octants"
    head_hidden: int = 1024
    head_width: int = 1024
    crop_vox: Size = RELEASED_CROP_VOX

    def __post_init__(self) -> None:
        """Make triples of lists, and check once, here, so that nobody else has to."""
        try:
            object.__setattr__(self, "depths", tuple(self.depths))
            object.__setattr__(self, "heads", tuple(self.heads))
            object.__setattr__(self, "window", Size(*self.window))
            object.__setattr__(self, "crop_vox", Size(*self.crop_vox))
        except TypeError as error:
            msg = (
                f"Size '{self.name}': depths and heads are lists with a number a stage, window and "
                f"crop_vox three numbers (x, y, z); got depths {self.depths}, heads {self.heads}, "
                f"window {self.window}, crop_vox {self.crop_vox}."
            )
            raise ModelSizeError(msg) from error
        if faults := _faults(self):
            msg = f"Size '{self.name}': {'; '.join(faults)}."
            raise ModelSizeError(msg)

    @property
    def stages(self) -> int:
        """Number of Swin stages, n."""
        return len(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the hidden states 0 to n: F, 2F, ... 2^n F."""
        return tuple(self.feature_size << i for i in range(self.stages + 1))

    @property
    def feature_width(self) -> int:
        """Width of the pooled feature: F, the hidden states 0 to n-2, and hidden state n.

        24 F for the four stages of B, L and H.
        """
        return self.feature_size + sum(self.widths[: self.stages - 1]) + self.widths[-1]

    @property
    def step_vox(self) -> int:
        """What the decoder wants an input's sides to be a multiple of, voxels."""
        return self.patch << self.stages

    @property
    def smallest_crop_vox(self) -> Size:
        """The smallest crop that works, voxels: two voxels are left at the bottom, not one."""
        return Size(self.step_vox, self.step_vox, 2 * self.step_vox)

    def as_row(self) -> dict[str, Any]:
        """The numbers as plain lists, numbers and words, for YAML, JSON and metadata."""
        row = asdict(self)
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in row.items()
        }


def check_crop(size: ModelSize, crop_vox: Size) -> None:
    """Refuse a crop of which a size leaves a single voxel, which instance norm would make zero.

    Raises:
        InputShapeError: The crop is too small.
    """
    if 0 in crop_vox or all(side <= size.step_vox for side in crop_vox):
        came, smallest = ("x".join(map(str, each)) for each in (crop_vox, size.smallest_crop_vox))
        msg = (
            f"A crop of {came} voxels is too small for size '{size.name}': after {size.stages} "
            f"stages one voxel is left, which instance norm turns into zero. The smallest crop "
            f"that works has {smallest} voxels, in any order."
        )
        raise InputShapeError(msg)


@cache
def load_sizes() -> Mapping[str, ModelSize]:
    """All sizes by name, in the order of the table."""
    text = resources.files("vocotrain").joinpath("catalog/sizes.yaml").read_text(encoding="utf-8")
    return MappingProxyType(parse_sizes(text))


def parse_sizes(text: str) -> dict[str, ModelSize]:
    """Sizes of a table in the form of catalog/sizes.yaml.

    Raises:
        ModelSizeError: A row with unknown or missing keys, or numbers that do not make a model.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, given in yaml.safe_load(text).items():
        row = dict(given)
        base = row.pop("like", None)
        if base is not None and base not in rows:
            msg = f"sizes.yaml: '{name}' is like '{base}', which is not a row above it."
            raise ModelSizeError(msg)
        rows[name] = {**rows.get(base, {}), **row}
    return {name: size_from_row({"name": name, **row}) for name, row in rows.items()}


def size_from_row(row: Mapping[str, Any]) -> ModelSize:
    """The size of a row, as `ModelSize.as_row` gives it.

    Raises:
        ModelSizeError: Unknown or missing keys, or numbers that do not make a model.
    """
    try:
        return ModelSize(**row)
    except TypeError as error:
        known = ", ".join(ModelSize.__dataclass_fields__)
        msg = f"Size '{row.get('name', '?')}': {error}. The keys of a size are {known}."
        raise ModelSizeError(msg) from error


def model_size(size: str | ModelSize) -> ModelSize:
    """The size of that name, or the one given.

    Raises:
        ModelSizeError: No such row; the message names the nearest one.

    >>> model_size("B").feature_width
    1152
    """
    if isinstance(size, ModelSize):
        return size
    sizes = load_sizes()
    if size not in sizes:
        near = difflib.get_close_matches(size.lower(), [name.lower() for name in sizes], n=1)
        names = {name.lower(): name for name in sizes}
        hint = f"did you mean '{names[near[0]]}'?" if near else f"sizes are {', '.join(sizes)}."
        msg = f"There is no model size '{size}'; {hint}"
        raise ModelSizeError(msg)
    return sizes[size]


def _faults(size: ModelSize) -> list[str]:
    counts = {
        "feature_size": size.feature_size,
        "patch": size.patch,
        "head_hidden": size.head_hidden,
        "head_width": size.head_width,
        **{f"depths[{i}]": depth for i, depth in enumerate(size.depths)},
        **{f"heads[{i}]": heads for i, heads in enumerate(size.heads)},
        **{f"window.{axis}": side for axis, side in size.window._asdict().items()},
        **{f"crop_vox.{axis}": side for axis, side in size.crop_vox._asdict().items()},
    }
    faults = [
        f"{key} is {value!r}, expected a whole number above 0"
        for key, value in counts.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 1
    ]
    if size.merging not in get_args(Merging):
        faults.append(f"merging is {size.merging!r}, expected 'octants' or 'doubled'")
    if len(size.depths) < 2 or len(size.depths) != len(size.heads):
        faults.append(
            f"expected at least two stages and as many depths as heads, got {len(size.depths)} "
            f"depths and {len(size.heads)} heads"
        )
    if not size.feature_size * size.mlp_ratio >= 1:
        faults.append(f"mlp_ratio is {size.mlp_ratio!r}, expected at least one hidden channel")
    if faults:
        return faults
    return [
        f"stage {i + 1} has {width} channels, which {heads} heads do not divide"
        for i, (width, heads) in enumerate(zip(size.widths, size.heads, strict=False))
        if width % heads
    ]
