"""What is timed: the window attention of one stage of one size of network.

A stage has blocks in pairs, the second one shifted; a case is one such pair. Of each block it is
the attention half without its normalisation: linear layer for q, k, v, attention in windows,
linear layer after it. The two halves take the same map and their results are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vocotrain.errors import BenchmarkSettingsError
from vocotrain.sizes import model_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Triple = tuple[int, int, int]

CROPS_ON_GPU = {64: 22, 96: 8}
"""Crops of a batch: 22 are what one step of VoCo's released recipe sends through; for other sides
as many voxels as 8 crops of 96^3 have."""


@dataclass(frozen=True)
class AttentionCase:
    """Two blocks of one stage, unshifted and shifted."""

    size: str
    stage: int
    """From 1."""
    crop_vox: int
    """Side of the crop that the network gets."""
    maps: int
    side: int
    """Side of the stage's map, tokens."""
    channels: int
    heads: int
    window: Triple

    @property
    def name(self) -> str:
        """As a person reads it: `B 64^3 stage 1`."""
        return f"{self.size} {self.crop_vox}^3 stage {self.stage}"

    @property
    def map_xyz(self) -> Triple:
        """Tokens of the map along each axis."""
        return (self.side, self.side, self.side)

    @property
    def shifts(self) -> tuple[Triple, Triple]:
        """Shift of each of the two blocks, tokens."""
        x, y, z = self.window
        return (0, 0, 0), (x // 2, y // 2, z // 2)


def attention_cases(
    sizes: Sequence[str], crops_vox: Sequence[int], stages: Sequence[int], *, maps: int | None
) -> Iterator[AttentionCase]:
    """Each stage of each size at each crop.

    Args:
        sizes: Rows of the table of sizes.
        crops_vox: Sides of crops, voxels.
        stages: From 1; empty for all that a size has.
        maps: Maps in a batch; None for what a GPU is given (see CROPS_ON_GPU).

    Raises:
        ModelSizeError: There is no such size.
        BenchmarkSettingsError: A stage that the size lacks, or a crop too small for the stage.
    """
    for name in sizes:
        size = model_size(name)
        for crop_vox in crops_vox:
            for stage in stages or range(1, size.stages + 1):
                divisor = size.patch << (stage - 1)
                if stage not in range(1, size.stages + 1) or crop_vox < divisor:
                    msg = (
                        f"Stage {stage} of size '{name}' at a crop of {crop_vox}^3 voxels does not "
                        f"exist; expected a stage from 1 to {size.stages}, and a crop of at least "
                        f"{size.patch << (size.stages - 1)} voxels."
                    )
                    raise BenchmarkSettingsError(msg)
                yield AttentionCase(
                    size=name,
                    stage=stage,
                    crop_vox=crop_vox,
                    maps=maps or _maps_on_gpu(crop_vox),
                    side=crop_vox // divisor,
                    channels=size.widths[stage - 1],
                    heads=size.heads[stage - 1],
                    window=(size.window.x, size.window.y, size.window.z),
                )


def _maps_on_gpu(crop_vox: int) -> int:
    return CROPS_ON_GPU.get(crop_vox) or max(1, round(8 * (96 / crop_vox) ** 3))
