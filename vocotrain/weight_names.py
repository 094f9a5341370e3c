"""Names of tensors in checkpoints: what to take off, and which model they are of.

Files around VoCo wrap and prefix their tensors in several ways: the released SSL files have bare
names, training checkpoints `module.backbone.`, older self-supervised files `module.swin_vit.`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from vocodata.geometry import Size
from vocotrain.errors import WeightsFileError
from vocotrain.sizes import load_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

WRAPPERS = ("state_dict", "network_weights", "net", "student", "model", "model_state_dict")
"""Keys under which a checkpoint may keep its tensors, in the order they are looked for."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "encoder.")
"""What data parallelism, compilation, checkpoints and objectives put before a name."""

RENAMED = {"swin_vit.": "swinViT."}

PATCH_EMBEDDING = "swinViT.patch_embed.proj.weight"
INPUT_CONVOLUTIONS = (
    PATCH_EMBEDDING,
    "encoder1.layer.conv1.conv.weight",
    "encoder1.layer.conv3.conv.weight",
)
"""Tensors whose second axis is the input's channels."""

OUTPUT_HEAD = ("out.conv.conv.weight", "out.conv.conv.bias")
"""Tensors whose first axis is the classes."""

_TABLE = re.compile(r"swinViT\.layers(\d+)\.0\.blocks\.(\d+)\.attn\.relative_position_bias_table")
_FIRST_INDEX = "swinViT.layers1.0.blocks.0.attn.relative_position_index"
_ENCODER = re.compile(r"(swinViT|encoder\d+)\.")
_DECODER = re.compile(r"(decoder\d+|out)\.")


class Architecture(NamedTuple):
    """What the shapes of a checkpoint's tensors say of its model; window is None if not a cube."""

    feature_size: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: Size | None


def plain_names(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names that our models use.

    Raises:
        WeightsFileError: No tensors in it, or two of one name.
    """
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return plain_names(content[wrapper])
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            continue
        plain = _plain_name(name)
        if plain in state:
            msg = f"Two tensors of the checkpoint are called '{plain}', one of them as '{name}'."
            raise WeightsFileError(msg)
        state[plain] = tensor
    if not state:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        msg = f"Expected tensors by name in the checkpoint, got {keys}."
        raise WeightsFileError(msg)
    return state


def is_encoder(name: str) -> bool:
    """Whether a tensor is of the half that VoCo pretrains."""
    return _ENCODER.match(name) is not None


def is_decoder(name: str) -> bool:
    """Whether a tensor is of the decoder or the output head."""
    return _DECODER.match(name) is not None


def architecture_of(state: Mapping[str, Tensor]) -> Architecture | None:
    """The architecture that a checkpoint's shapes show, None if it has no Swin transformer."""
    state = plain_names(state)
    tables = {
        (int(match[1]), int(match[2])): tensor
        for name, tensor in state.items()
        if (match := _TABLE.fullmatch(name)) and tensor.ndim == 2
    }
    if PATCH_EMBEDDING not in state or not tables:
        return None
    stages = sorted({stage for stage, _ in tables})
    tokens = len(state.get(_FIRST_INDEX, ()))
    side = round(tokens ** (1 / 3))
    return Architecture(
        feature_size=state[PATCH_EMBEDDING].shape[0],
        depths=tuple(sum(1 for place in tables if place[0] == stage) for stage in stages),
        heads=tuple(tables[stage, 0].shape[1] for stage in stages if (stage, 0) in tables),
        window=Size(side, side, side) if tokens and side**3 == tokens else None,
    )


def infer_size(state: Mapping[str, Tensor]) -> str:
    """Name of the size whose shapes a checkpoint has.

    Raises:
        WeightsFileError: No Swin transformer in it, or one that is no row of catalog/sizes.yaml.
    """
    found = architecture_of(state)
    for name, size in load_sizes().items():
        if found and found == (size.feature_size, size.depths, size.heads, size.window):
            return name
    msg = f"The checkpoint is of no known size: {found or 'it has no Swin transformer'}."
    raise WeightsFileError(msg)


def _plain_name(name: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
