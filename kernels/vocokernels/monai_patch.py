"""Our window attention inside a MONAI model, and out of it again.

A block of MONAI's `SwinUNETR` or `SwinTransformer` is given another class: one that inherits from
the block's own and does the attention half by `window_attention`. Parameters, buffers, names,
hooks of other modules and everything else stay where they are, since the object is the same. The
layer around the blocks gets a class that no longer builds the region mask, which nobody reads.

The odd choice: classes are swapped and not functions, because a function put on an object would
go on speaking of that object after a copy, in a pickle or in a replica on another GPU.

MONAI is never imported: blocks are known by the name and the parts of their class, so copies of
MONAI's file in other projects are patched, too.
"""

from typing import Any, Self, get_args

import torch
from torch import Tensor, nn

from vocokernels.backends import BackendChoice, resolve_backend
from vocokernels.errors import PatchError
from vocokernels.window_attention import window_attention
from vocokernels.window_attention.boxes import as_triple, box_classes

BLOCK, LAYER = "SwinTransformerBlock", "BasicLayer"
_BLOCK_PARTS = ("norm1", "attn", "window_size", "shift_size", "forward_part1")
_ATTENTION_PARTS = (
    "dim",
    "qkv",
    "proj",
    "proj_drop",
    "attn_drop",
    "softmax",
    "num_heads",
    "scale",
    "relative_position_bias_table",
    "relative_position_index",
)
# what MONAI 1.3 to 1.6 call in a layer's forward; a layer that calls more is left as it is
_LAYER_CALLS = frozenset(
    (
        *("size", "len", "get_window_size", "window_size", "shift_size", "rearrange", "int", "np"),
        *("ceil", "use_hyena", "compute_mask", "device", "blocks", "view", "downsample"),
    )
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# classes made so far, by the id of the original (which they keep alive) and the backend
_MADE: dict[tuple[int, str], type[nn.Module]] = {}


class MonaiPatch:
    """What undoes a patch: call `undo`, or leave a `with` block."""

    def __init__(self, model: nn.Module, *, blocks: int) -> None:
        """Remember the model."""
        self.model = model
        self.blocks = blocks
        """How many blocks were patched."""

    def undo(self) -> None:
        """Give all modules of the model their own classes back; again does nothing."""
        unpatch_monai(self.model)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Undo."""
        self.undo()


def patch_monai(model: nn.Module, *, backend: str = "auto") -> MonaiPatch:
    """Let a MONAI model compute window attention by our kernels.

    Outputs and gradients are the same to rounding; parameters and the state dict are untouched, so
    weights load and save as before. Copies and pickles of a patched model are patched.

    Dropout after the attention (`proj_drop`) falls on the tokens of the map alone and no longer on
    pads, so with one seed it falls elsewhere than in MONAI; without dropout nothing differs.

    Args:
        model: Anything that holds blocks of MONAI's 3-D Swin transformer, v1 or v2, wrapped for
            several GPUs or not.
        backend: See `vocokernels.backends`.

    Returns:
        What undoes it.

    Raises:
        PatchError: No such block, one that is patched already, or one that computes something
            else: two dimensions, attention dropout while training, a hook inside its attention,
            another scale or another order of the bias table. The model is left as it was.
        UnknownBackendError: No backend has this name.
    """
    blocks = [(name, module) for name, module in model.named_modules() if _is_block(module)]
    if not blocks:
        message = (
            f"{type(model).__name__} holds no {BLOCK}; expected MONAI's SwinUNETR or "
            "SwinTransformer, or a model with one of them inside."
        )
        raise PatchError(message)
    for name, block in blocks:
        _check_block(name, block)
    if backend not in get_args(BackendChoice):
        # refuses in its own words; whether a known one can run depends on where the model will be
        resolve_backend(backend, next(model.parameters()))
    layers = [module for module in model.modules() if _is_layer_of_blocks(module)]
    for module in [block for _, block in blocks] + layers:
        module.__class__ = _subclass(type(module), backend)
    return MonaiPatch(model, blocks=len(blocks))


def unpatch_monai(model: nn.Module) -> None:
    """Undo a patch of a model whose handle is gone, such as a copy; others stay as they are."""
    for module in model.modules():
        if isinstance(module, _Patched):
            # mypy cannot know that the class was made for this
            module.__class__ = type(module).original  # type: ignore[assignment]


class _Patched(nn.Module):
    """A module that was given another class."""

    original: type[nn.Module]
    backend: str

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        """The class is made at run time, so a copy or pickle says how."""
        return _fresh, (type(self).original, type(self).backend), self.__dict__


class _BoxBlock(_Patched):
    """The attention half of a block."""

    def forward_part1(self, x_BXYZC: Tensor, _mask: Tensor | None) -> Tensor:
        """Normalisation, linear layer, attention, linear layer; no pads, so no mask."""
        block: Any = self
        attention = block.attn
        _check_unseen("This block", attention)
        out = window_attention(
            attention.qkv(block.norm1(x_BXYZC)),
            attention.relative_position_bias_table,
            heads=attention.num_heads,
            window=as_triple(block.window_size),
            shift=as_triple(block.shift_size),
            pad_qkv=_of_a_pad(attention.qkv, x_BXYZC),
            backend=type(self).backend,
        )
        dropped: Tensor = attention.proj_drop(attention.proj(out))
        return dropped


class _BoxLayer(_Patched):
    """All blocks of a stage, without the mask for their windows."""

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Blocks and patch merging, channels last between."""
        layer: Any = self
        x_BXYZC = x_BCXYZ.movedim(1, -1)
        for block in layer.blocks:
            x_BXYZC = block(x_BXYZC, None)
        if layer.downsample is not None:
            x_BXYZC = layer.downsample(x_BXYZC)
        return x_BXYZC.movedim(-1, 1)


def _subclass(original: type[nn.Module], backend: str) -> type[nn.Module]:
    """A class with the name of the original, whose methods come from ours first; made once."""
    key = (id(original), backend)
    if key not in _MADE:
        ours = _BoxBlock if _is_block_class(original) else _BoxLayer
        own = {"original": original, "backend": backend}
        _MADE[key] = type(original.__name__, (ours, original), own)
    return _MADE[key]


def _fresh(original: type[nn.Module], backend: str) -> nn.Module:
    """An empty module of the patched class, for a copy or pickle to fill."""
    kind = _subclass(original, backend)
    return kind.__new__(kind)


def _of_a_pad(qkv: nn.Module, x_BXYZC: Tensor) -> Tensor | None:
    """What the linear layer makes of a pad token, which is zero."""
    if type(qkv) is nn.Linear and not _has_hooks(qkv):
        return qkv.bias
    # something that was put in its place, such as an adapter of low rank
    made: Tensor = qkv(x_BXYZC.new_zeros(1, x_BXYZC.shape[-1]))
    return made[0]


def _is_block(module: nn.Module) -> bool:
    return _is_block_class(type(module))


def _is_block_class(kind: type) -> bool:
    return any(base.__name__ == BLOCK for base in kind.__mro__)


def _is_layer_of_blocks(module: nn.Module) -> bool:
    """A layer that does what MONAI's does, with nothing but blocks that can be patched."""
    code = getattr(type(module).forward, "__code__", None)
    if type(module).__name__ != LAYER or code is None or not set(code.co_names) <= _LAYER_CALLS:
        return False
    blocks = getattr(module, "blocks", None)
    return isinstance(blocks, nn.ModuleList) and all(_is_block(block) for block in blocks)


def _check_block(name: str, block: Any) -> None:  # noqa: ANN401 - MONAI's class, unknown here
    where = f"Block '{name}'"
    if isinstance(block, _Patched):
        message = f"{where} is patched already; undo that first (unpatch_monai)."
        raise PatchError(message)
    missing = [part for part in _BLOCK_PARTS if not hasattr(block, part)] or [
        f"attn.{part}" for part in _ATTENTION_PARTS if not hasattr(block.attn, part)
    ]
    if missing:
        message = (
            f"{where} is a {BLOCK} of {type(block).__module__} without {', '.join(missing)}; "
            "expected that of MONAI 1.3 or later."
        )
        raise PatchError(message)
    home = next(base for base in type(block).__mro__ if "forward_part1" in vars(base))
    if home.__name__ != BLOCK:
        message = (
            f"{where} is a {home.__name__} with an attention half of its own (forward_part1); "
            f"expected the one of MONAI's {BLOCK}."
        )
        raise PatchError(message)
    if len(block.window_size) != 3:
        message = (
            f"{where} has a window of {len(block.window_size)} axes; expected 3: these kernels "
            "take maps of three dimensions (spatial_dims=3)."
        )
        raise PatchError(message)
    _check_attention(where, block.attn, as_triple(block.window_size))


def _check_attention(where: str, attention: Any, window: tuple[int, int, int]) -> None:  # noqa: ANN401 - as above
    _check_unseen(where, attention)
    table = attention.relative_position_bias_table
    width = attention.dim // attention.num_heads
    if abs(attention.scale * width**0.5 - 1) > 1e-6:
        message = (
            f"{where} scales its logits by {attention.scale}; expected one over the root of the "
            f"head's {width} channels, {width**-0.5:.6f}."
        )
        raise PatchError(message)
    index = attention.relative_position_index
    (whole,) = box_classes(window, window, (0, 0, 0))
    expected = whole.table_rows()
    if table.shape[1] != attention.num_heads or not torch.equal(index.cpu(), expected):
        message = (
            f"{where} reads its bias table of {tuple(table.shape)} in another order than MONAI; "
            f"expected {attention.num_heads} heads and the usual relative_position_index."
        )
        raise PatchError(message)


def _check_unseen(where: str, attention: Any) -> None:  # noqa: ANN401 - as above
    """Refuse what happens inside of the attention, where the kernels pass by."""
    if attention.attn_drop.p and attention.training:
        message = (
            f"{where} drops a share of {attention.attn_drop.p} of its attention weights while "
            "training, which the kernels never hold; expected attn_drop_rate=0. Evaluation "
            "(model.eval()) works."
        )
        raise PatchError(message)
    if any(map(_has_hooks, (attention, attention.softmax, attention.attn_drop))):
        message = (
            f"{where} has a hook on its attention, its softmax or its dropout, which the kernels "
            "would pass by; expected none. Remove it, or hook the block."
        )
        raise PatchError(message)


def _has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, hooks, None) for hooks in _HOOKS)
