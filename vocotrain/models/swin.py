"""The 3-D Swin transformer of Swin UNETR v2, channels last.

Equals MONAI's `SwinTransformer(use_v2=True)` in names, numbers and gradients (MONAI 1.5 and later;
`ModelSize.merging` has the earlier function). Other than there, nothing is padded, rolled, masked
or cut into windows: `ops.window_attention` takes queries, keys and values of the map as they lie.
There is no dropout anywhere, so training and evaluation are one function.

Shape letters: B volumes, X Y Z tokens, C channels.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from vocodata.geometry import Size
from vocotrain import ops
from vocotrain.models.blocks import EncoderBlock, run
from vocotrain.models.token_mlp import token_mlp

if TYPE_CHECKING:
    from vocotrain.sizes import Merging, ModelSize

TABLE_STD = 0.02
"""Standard deviation of a fresh bias table, truncated at 2, as in MONAI."""

Offset = tuple[int, int, int]

NEIGHBOURS: dict[Merging, tuple[Offset, ...]] = {
    "octants": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)
    ),
    "doubled": (
        (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1)
    ),
}  # fmt: skip
"""Offsets x y z that a patch merging joins, in order; `doubled` is MONAI's up to 1.4."""


class SwinTransformer(nn.Module):
    """Tokens, and n stages of a residual convolution, Swin blocks and a patch merging.

    Modules are named as in MONAI: `patch_embed`, `layers1` to `layersn`, `layers1c` to `layersnc`.
    """

    def __init__(
        self, size: ModelSize, in_channels: int, *, backend: str, checkpointing: bool
    ) -> None:
        """Build the stages of a size."""
        super().__init__()
        self.checkpointing = checkpointing
        self.stages = size.stages
        self.patch_embed = PatchEmbedding(in_channels, size.feature_size, patch=size.patch)
        pairs = [
            (Stage(size, stage, backend=backend), EncoderBlock(width, width))
            for stage, width in enumerate(size.widths[:-1])
        ]
        for stage, (layer, _) in enumerate(pairs, start=1):
            self.add_module(f"layers{stage}", nn.ModuleList([layer]))
        for stage, (_, convolution) in enumerate(pairs, start=1):
            self.add_module(f"layers{stage}c", nn.ModuleList([convolution]))

    def forward(self, x_BXYZC: Tensor) -> list[Tensor]:
        """Hidden states 0 to n of a batch of crops, not normalised, channels last."""
        states = [self.patch_embed(x_BXYZC)]
        for stage in range(self.stages):
            states.append(self._run_stage(stage + 1, states[-1]))
        return states

    def _run_stage(self, stage: int, x_BXYZC: Tensor) -> Tensor:
        convolution = self.get_submodule(f"layers{stage}c.0")
        layer = self.get_submodule(f"layers{stage}.0")
        x_BXYZC = run(convolution, x_BXYZC, checkpointing=self.checkpointing)
        return run(layer, x_BXYZC, checkpointing=self.checkpointing)


def normalised(state_BXYZC: Tensor) -> Tensor:
    """A hidden state as the convolutions see it: layer norm without weights."""
    return functional.layer_norm(state_BXYZC, state_BXYZC.shape[-1:])


class PatchEmbedding(nn.Module):
    """Cubes of voxels to tokens: a convolution whose stride is its side."""

    def __init__(self, in_channels: int, out_channels: int, *, patch: int) -> None:
        """Draw the weights as torch does for a convolution."""
        super().__init__()
        self.proj = nn.Conv3d(in_channels, out_channels, patch, stride=patch)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Voxels to tokens; sides the patch does not divide are padded with zeros at the end."""
        patch = self.proj.kernel_size[0]
        x_BXYZC = _padded(x_BXYZC, patch)
        b, x, y, z, c = x_BXYZC.shape
        cells = x_BXYZC.view(b, x // patch, patch, y // patch, patch, z // patch, patch, c)
        tokens = cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(4)
        return functional.linear(tokens, self.proj.weight.flatten(1), self.proj.bias)


class Stage(nn.Module):
    """The Swin blocks of a stage, every second one shifted, and the patch merging after them."""

    def __init__(self, size: ModelSize, stage: int, *, backend: str) -> None:
        """Build stage number `stage`, counted from 0."""
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(size, stage, shifted=block % 2 == 1, backend=backend)
            for block in range(size.depths[stage])
        )
        self.downsample = PatchMerging(size.widths[stage], merging=size.merging)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to a map of half the side and twice the channels."""
        for block in self.blocks:
            x_BXYZC = block(x_BXYZC)
        y: Tensor = self.downsample(x_BXYZC)
        return y


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a layer norm and around a skip."""

    def __init__(self, size: ModelSize, stage: int, *, shifted: bool, backend: str) -> None:
        """Build a block of stage number `stage`, counted from 0."""
        super().__init__()
        width = size.widths[stage]
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(size, stage, shifted=shifted, backend=backend)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * size.mlp_ratio))

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to map."""
        x_BXYZC = x_BXYZC + self.attn(self.norm1(x_BXYZC))
        y_BXYZC: Tensor = self.mlp(x_BXYZC, self.norm2)
        return y_BXYZC


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a bias for each relative position."""

    relative_position_index: Tensor

    def __init__(self, size: ModelSize, stage: int, *, shifted: bool, backend: str) -> None:
        """Build the attention of stage number `stage`, counted from 0."""
        super().__init__()
        width, self.heads = size.widths[stage], size.heads[stage]
        self.window, self.backend = size.window, backend
        self.shift = Size(*(side // 2 if shifted else 0 for side in size.window))
        x, y, z = (2 * side - 1 for side in size.window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(x * y * z, self.heads))
        self.register_buffer("relative_position_index", relative_positions(size.window))
        self.qkv = nn.Linear(width, 3 * width, bias=size.qkv_bias)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=TABLE_STD)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to map."""
        mixed_BXYZC = ops.window_attention(
            self.qkv(x_BXYZC),
            self.relative_position_bias_table,
            heads=self.heads,
            window=self.window,
            shift=self.shift,
            pad_qkv=self.qkv.bias,
            backend=self.backend,
        )
        y: Tensor = self.proj(mixed_BXYZC)
        return y


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        """Widths outside and inside."""
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Tokens, and what becomes of them after a norm, added up."""
        return token_mlp(
            x,
            (norm.weight, norm.bias),
            (self.linear1.weight, self.linear1.bias),
            (self.linear2.weight, self.linear2.bias),
        )


class PatchMerging(nn.Module):
    """Eight neighbours to one token of twice the channels."""

    def __init__(self, width: int, *, merging: Merging) -> None:
        """Channels before, and which neighbours in which order."""
        super().__init__()
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(8 * width)
        self.offsets = NEIGHBOURS[merging]

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to a map of half the side; an odd side is padded with zeros at the end."""
        ops.check_no_transform("Patch merging", x_BXYZC)
        x_BXYZC = _padded(x_BXYZC, 2)
        neighbours: Tensor = _Neighbours.apply(x_BXYZC, self.offsets)  # type: ignore[no-untyped-call]  # torch's apply
        y: Tensor = self.reduction(self.norm(neighbours))
        return y


class _Neighbours(torch.autograd.Function):
    """Every second voxel along each axis, eight times, joined as channels.

    The gradient is written in its place once; torch's fills a map with zeros for each of the eight.
    """

    @staticmethod
    def forward(ctx: Any, x_BXYZC: Tensor, offsets: tuple[Offset, ...]) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.shape, ctx.offsets = x_BXYZC.shape, offsets
        return torch.cat([_every_second(x_BXYZC, offset) for offset in offsets], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 (torch's context)
        grad_x = grad.new_empty(ctx.shape)
        missing = set(itertools.product((0, 1), repeat=3))
        for offset, part in zip(ctx.offsets, grad.chunk(8, dim=-1), strict=True):
            target = _every_second(grad_x, offset)
            # `doubled` joins two of the neighbours twice, and two never
            target.copy_(part) if offset in missing else target.add_(part)
            missing.discard(offset)
        for i, j, k in missing:
            _every_second(grad_x, (i, j, k)).zero_()
        return grad_x, None


def _every_second(x_BXYZC: Tensor, offset: Offset) -> Tensor:
    i, j, k = offset
    return x_BXYZC[:, i::2, j::2, k::2]


def relative_positions(window: Size) -> Tensor:
    """Row of the bias table for each pair of tokens of a window, (w, w), w = x * y * z."""
    axes = [torch.arange(side) for side in window]
    place_w3 = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    offset_ww3 = place_w3[:, None] - place_w3[None] + torch.tensor(window) - 1
    _, y, z = (2 * side - 1 for side in window)
    return offset_ww3 @ torch.tensor([y * z, z, 1])


def _padded(x_BXYZC: Tensor, multiple: int) -> Tensor:
    """Zeros at the end of each side until it is a multiple."""
    x, y, z = (-side % multiple for side in x_BXYZC.shape[1:4])
    return functional.pad(x_BXYZC, (0, 0, 0, z, 0, y, 0, x)) if x or y or z else x_BXYZC
