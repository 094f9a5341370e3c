"""The half of Swin UNETR that VoCo pretrains, and its pooled feature.

Shape letters: N crops, C channels, X Y Z voxels, D feature width; B volumes of a batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vocodata.geometry import Size
from vocotrain.errors import InputShapeError
from vocotrain.models.blocks import EncoderBlock, channels_first, channels_last, run
from vocotrain.models.swin import SwinTransformer, normalised
from vocotrain.ops import check_no_transform
from vocotrain.sizes import ModelSize, check_crop, model_size

BOTTOM = "encoder10"
"""The block on the last hidden state, called so for any number of stages, as in MONAI for four."""


class Encoded(NamedTuple):
    """What the encoder half makes of a batch; channels last.

    Attributes:
        skips: Maps of encoder1 (full size) to encodern.
        bottom: Map of encoder10.
        state: Hidden state n-1, not normalised, which only a decoder uses.
    """

    skips: list[Tensor]
    bottom: Tensor
    state: Tensor


class EncoderHalf(nn.Module):
    """swinViT, encoder1 to encodern, encoder10: what the encoder and Swin UNETR have in common.

    encoder1 sees the input, encoder2 ... encodern the hidden states 0 ... n-2, encoder10 hidden
    state n; n is the number of stages, four for the released sizes.
    """

    def __init__(
        self, size: str | ModelSize, in_channels: int, *, backend: str, checkpointing: bool
    ) -> None:
        """Build the modules of a size."""
        super().__init__()
        self.size = model_size(size)
        self.in_channels = in_channels
        self.checkpointing = checkpointing
        widths = self.size.widths
        self.swinViT = SwinTransformer(
            self.size, in_channels, backend=backend, checkpointing=checkpointing
        )
        self.encoder1 = EncoderBlock(in_channels, widths[0])
        for stage, width in enumerate(widths[: self.size.stages - 1]):
            self.add_module(f"encoder{stage + 2}", EncoderBlock(width, width))
        self.add_module(BOTTOM, EncoderBlock(widths[-1], widths[-1]))

    def encode(self, x_BCXYZ: Tensor) -> Encoded:
        """Maps of a batch (B, C, X, Y, Z).

        Raises:
            InputShapeError: Another number of axes or channels, or a crop too small.
        """
        check_input(x_BCXYZ, self.size, self.in_channels)
        x_BXYZC = channels_last(x_BCXYZ)
        states = self.swinViT(x_BXYZC)
        maps = [x_BXYZC, *map(normalised, states[: self.size.stages - 1])]
        skips = [self._block(f"encoder{i}", map_) for i, map_ in enumerate(maps, start=1)]
        return Encoded(skips, self._block(BOTTOM, normalised(states[-1])), states[-2])

    def _block(self, name: str, *maps: Tensor) -> Tensor:
        return run(self.get_submodule(name), *maps, checkpointing=self.checkpointing)


class VoCoEncoder(EncoderHalf):
    """The encoder that VoCo pretrains.

    The names of its tensors are those of the released SSL files, and of the same part of
    `SwinUNETR`.
    """

    def __init__(
        self,
        size: str | ModelSize = "B",
        in_channels: int = 1,
        *,
        backend: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        """Build an encoder.

        Args:
            size: A row of catalog/sizes.yaml by name, or one made by hand.
            in_channels: Channels of a crop; 1 for CT.
            backend: Of the window attention: auto, reference, cpu or triton.
            checkpointing: Compute each block again in the backward pass, for less memory.
        """
        super().__init__(size, in_channels, backend=backend, checkpointing=checkpointing)

    @property
    def feature_width(self) -> int:
        """Width of the pooled feature, D."""
        return self.size.feature_width

    def forward(self, crop_NCXYZ: Tensor) -> Tensor:
        """Pooled features (N, D), float32 even under autocast: the five maps' means, joined.

        Raises:
            InputShapeError: Another number of axes or channels, or a crop too small.
        """
        encoded = self.encode(crop_NCXYZ)
        return torch.cat([_pooled(map_) for map_ in (*encoded.skips, encoded.bottom)], dim=1)

    def feature_maps(self, crop_NCXYZ: Tensor) -> list[Tensor]:
        """Maps (N, C, X, Y, Z) of encoder1, ... encodern, encoder10; views, channels last.

        Raises:
            InputShapeError: Another number of axes or channels, or a crop too small.
        """
        encoded = self.encode(crop_NCXYZ)
        return [channels_first(map_) for map_ in (*encoded.skips, encoded.bottom)]


def check_input(x_BCXYZ: Tensor, size: ModelSize, in_channels: int) -> None:
    """Refuse a batch that the encoder cannot take.

    Raises:
        InputShapeError: Nothing in it, another number of axes or channels, or so small that a
            single voxel is left at the bottom, which instance norm would turn into zeros.
    """
    shape = tuple(x_BCXYZ.shape)
    if len(shape) != 5 or shape[0] == 0 or shape[1] != in_channels:
        msg = (
            f"Expected a batch (B, {in_channels}, X, Y, Z), got shape {shape}. A model for another "
            "number of channels is built with in_channels=."
        )
        raise InputShapeError(msg)
    check_crop(size, Size(*shape[2:]))


def _pooled(map_BXYZC: Tensor) -> Tensor:
    check_no_transform("The encoder's pooling", map_BXYZC)
    pooled_BC: Tensor = _Pool.apply(map_BXYZC)  # type: ignore[no-untyped-call]  # torch's apply
    return pooled_BC


class _Pool(torch.autograd.Function):
    """Mean over the voxels in float32; its gradient is a view, where torch's is a whole map."""

    @staticmethod
    def forward(ctx: Any, map_BXYZC: Tensor) -> Tensor:  # noqa: ANN401 (torch's context)
        ctx.shape, ctx.dtype = map_BXYZC.shape, map_BXYZC.dtype
        kind = torch.promote_types(map_BXYZC.dtype, torch.float32)
        return map_BXYZC.mean(dim=(1, 2, 3), dtype=kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BC: Tensor) -> Tensor:  # noqa: ANN401 (torch's context)
        voxels = ctx.shape[1:4].numel()
        grad_BXYZC: Tensor = (grad_BC / voxels).to(ctx.dtype)[:, None, None, None]
        return grad_BXYZC.expand(ctx.shape)
