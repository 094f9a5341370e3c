"""Convolution blocks of Swin UNETR, channels last.

Maps are (B, X, Y, Z, C) and contiguous everywhere inside the model. Seen as (B, C, X, Y, Z) such a
map is torch's `channels_last_3d`, which is the layout convolutions are fastest in, and layer norms,
linear layers and attention take it as it is: nothing is ever copied to change layout. The names of
parameters are MONAI's, so a `conv` sits inside each convolution.

Shape letters: B volumes, X Y Z voxels, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from vocotrain.models.residual import residual_unit

if TYPE_CHECKING:
    from collections.abc import Callable


class Convolution(nn.Module):
    """The weight of a convolution that keeps the size of the map, under MONAI's name for it."""

    def __init__(
        self, in_channels: int, out_channels: int, *, side: int, bias: bool = False
    ) -> None:
        """Draw the weights as torch does."""
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, side, padding=side // 2, bias=bias)


class Upsampling(nn.Module):
    """A transposed convolution whose stride is its side: each voxel becomes a cube of voxels."""

    def __init__(self, in_channels: int, out_channels: int, *, side: int) -> None:
        """Draw the weights as torch does."""
        super().__init__()
        self.conv = nn.ConvTranspose3d(in_channels, out_channels, side, stride=side, bias=False)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Upsample."""
        y_BCXYZ: Tensor = self.conv(x_BXYZC.permute(0, 4, 1, 2, 3))
        return y_BCXYZ.permute(0, 2, 3, 4, 1).contiguous()


class ResidualUnit(nn.Module):
    """Two convolutions with instance norm, and a way around them."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Widths; where they differ the way around is a convolution of side 1."""
        super().__init__()
        self.conv1 = Convolution(in_channels, out_channels, side=3)
        self.conv2 = Convolution(out_channels, out_channels, side=3)
        self.conv3 = (
            Convolution(in_channels, out_channels, side=1) if in_channels != out_channels else None
        )

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to map."""
        around = None if self.conv3 is None else self.conv3.conv.weight
        return residual_unit(x_BXYZC, self.conv1.conv.weight, self.conv2.conv.weight, around)


class EncoderBlock(nn.Module):
    """A residual unit under the name `layer`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Widths."""
        super().__init__()
        self.layer = ResidualUnit(in_channels, out_channels)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to map."""
        y: Tensor = self.layer(x_BXYZC)
        return y


class DecoderBlock(nn.Module):
    """Upsample, join the skip, and a residual unit."""

    def __init__(self, in_channels: int, out_channels: int, *, side: int = 2) -> None:
        """Widths, and by how much to upsample."""
        super().__init__()
        self.transp_conv = Upsampling(in_channels, out_channels, side=side)
        self.conv_block = ResidualUnit(2 * out_channels, out_channels)

    def forward(self, x_BXYZC: Tensor, skip_BXYZC: Tensor) -> Tensor:
        """Map and skip to map."""
        y: Tensor = self.conv_block(torch.cat((self.transp_conv(x_BXYZC), skip_BXYZC), dim=-1))
        return y


class OutputBlock(nn.Module):
    """Channels to classes."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Widths."""
        super().__init__()
        self.conv = Convolution(in_channels, out_channels, side=1, bias=True)

    def forward(self, x_BXYZC: Tensor) -> Tensor:
        """Map to logits: side 1 is a linear layer on the channels."""
        conv = self.conv.conv
        return functional.linear(x_BXYZC, conv.weight.flatten(1), conv.bias)


def channels_last(x_BCXYZ: Tensor) -> Tensor:
    """A batch (B, C, X, Y, Z) as a contiguous map (B, X, Y, Z, C); no copy for one channel."""
    if x_BCXYZ.shape[1] == 1 and x_BCXYZ.is_contiguous():
        return x_BCXYZ.view(x_BCXYZ.shape[0], *x_BCXYZ.shape[2:], 1)
    return x_BCXYZ.permute(0, 2, 3, 4, 1).contiguous()


def channels_first(x_BXYZC: Tensor) -> Tensor:
    """A map seen as (B, C, X, Y, Z), no copy."""
    return x_BXYZC.permute(0, 4, 1, 2, 3)


def run(block: Callable[..., Tensor], *maps: Tensor, checkpointing: bool) -> Tensor:
    """Run a block; with checkpointing its insides are computed again in the backward pass."""
    if not (checkpointing and torch.is_grad_enabled()):
        return block(*maps)
    result: Tensor = checkpoint(block, *maps, use_reentrant=False, preserve_rng_state=False)
    return result
