"""Swin UNETR v2: the encoder that VoCo pretrains, and a decoder to voxels.

Shape letters: B volumes, C channels, X Y Z voxels, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocotrain.errors import InputShapeError
from vocotrain.models.blocks import DecoderBlock, OutputBlock, channels_first
from vocotrain.models.encoder import EncoderHalf, check_input
from vocotrain.models.swin import normalised

if TYPE_CHECKING:
    from torch import Tensor

    from vocotrain.sizes import ModelSize


class SwinUNETR(EncoderHalf):
    """A segmentation network whose tensors are MONAI's `SwinUNETR(use_v2=True)`.

    Names, shapes, order, values and gradients are the same, so weights go either way. n stages have
    n + 1 decoder blocks: decoder{n+1} joins hidden state n-1, decodern ... decoder1 the maps of
    encodern ... encoder1.
    """

    def __init__(
        self,
        size: str | ModelSize = "B",
        in_channels: int = 1,
        out_channels: int = 21,
        *,
        backend: str = "auto",
        checkpointing: bool = False,
    ) -> None:
        """Build a network.

        Args:
            size: A row of catalog/sizes.yaml by name, or one made by hand.
            in_channels: Channels of the input; 1 for CT.
            out_channels: Classes, background included, K.
            backend: Of the window attention: auto, reference, cpu or triton.
            checkpointing: Compute each block again in the backward pass, for less memory.
        """
        super().__init__(size, in_channels, backend=backend, checkpointing=checkpointing)
        self.out_channels = out_channels
        widths = self.size.widths
        for stage in reversed(range(1, self.size.stages + 1)):
            block = DecoderBlock(widths[stage], widths[stage - 1])
            self.add_module(f"decoder{stage + 1}", block)
        self.decoder1 = DecoderBlock(widths[0], widths[0], side=self.size.patch)
        self.out = OutputBlock(widths[0], out_channels)

    def forward(self, x_BCXYZ: Tensor) -> Tensor:
        """Logits (B, K, X, Y, Z): a view, channels last in memory.

        Raises:
            InputShapeError: Another number of axes or channels, a side that is no multiple of
                `size.step_vox`, or a crop too small.
        """
        check_sides(x_BCXYZ, self.size, self.in_channels)
        skips, y, state = self.encode(x_BCXYZ)
        for stage, skip in reversed(list(enumerate([*skips, normalised(state)], start=1))):
            y = self._block(f"decoder{stage}", y, skip)
        logits: Tensor = self.out(y)
        return channels_first(logits)


def check_sides(x_BCXYZ: Tensor, size: ModelSize, in_channels: int) -> None:
    """Refuse a batch whose sides the decoder cannot put together again.

    Raises:
        InputShapeError: As said, or what `check_input` refuses.
    """
    check_input(x_BCXYZ, size, in_channels)
    sides = tuple(x_BCXYZ.shape[2:])
    if any(side % size.step_vox for side in sides):
        padded = "x".join(str(side + -side % size.step_vox) for side in sides)
        msg = (
            f"Swin UNETR '{size.name}' takes sides that are multiples of {size.step_vox} voxels, "
            f"got {sides[0]}x{sides[1]}x{sides[2]}. Pad the volume to {padded}, or predict in "
            f"sliding windows whose sides are multiples of {size.step_vox}."
        )
        raise InputShapeError(msg)
