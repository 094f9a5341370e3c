"""Cutting crops on a processor: one crop after another, each finished while the cache holds it.

A crop is a box of its field, so it is read as a view; a quarter turn swaps two axes of the view,
and only a mirrored axis costs a copy, of 16 bits a voxel. Window and shift then pass over the one
crop of the result that was just written. The specification reads every voxel through a number of
64 bits and passes over all crops four times.

Shapes as in reference.py; the same operations in the same order, so the same bits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vocokernels.cut_crops.reference import Augmentation
from vocokernels.workers import run_shares, share_out, worker_count


class _Cut(NamedTuple):
    """One crop: where it comes from, what is done to it."""

    volume: int
    crop: int
    start: list[int]
    flip: list[bool]
    turns: int
    shift: float | None


def cut_crops_cpu(
    field_BXYZ: Tensor,
    start_BN3: Tensor,
    size: tuple[int, int, int],
    window_hu_B2: Tensor,
    plan: Augmentation,
) -> Tensor:
    """Arguments as for `vocokernels.cut_crops`, checked and on the cpu; no gradient."""
    cuts = _cuts(start_BN3, plan)
    crops = field_BXYZ.new_empty((*start_BN3.shape[:2], 1, *size), dtype=torch.float32)
    # the specification takes the width in float32 too: other types would round otherwise
    window_B2 = window_hu_B2.float()
    lower, width = window_B2[:, 0].tolist(), (window_B2[:, 1] - window_B2[:, 0]).tolist()

    def fill(share: list[_Cut]) -> None:
        for cut in share:
            crop = crops[cut.volume, cut.crop, 0]
            crop.copy_(_view(field_BXYZ[cut.volume], size, cut))
            crop.sub_(lower[cut.volume]).div_(width[cut.volume]).clamp_(0.0, 1.0)
            if cut.shift is not None:
                crop.add_(cut.shift)

    if cuts:
        run_shares(fill, share_out(cuts, [1] * len(cuts), shares=worker_count()))
    return crops


def _cuts(start_BN3: Tensor, plan: Augmentation) -> list[_Cut]:
    starts = start_BN3.tolist()
    volumes, crops = start_BN3.shape[:2]
    flips = plan.flip.tolist() if plan.flip is not None else None
    turns = (plan.turns % 4).tolist() if plan.turns is not None else None
    shifts = plan.shift.float().tolist() if plan.shift is not None else None
    return [
        _Cut(
            volume=b,
            crop=n,
            start=starts[b][n],
            flip=flips[b][n] if flips else [False] * 3,
            turns=turns[b][n] if turns else 0,
            shift=shifts[b][n] if shifts else None,
        )
        for b in range(volumes)
        for n in range(crops)
    ]


def _view(field_XYZ: Tensor, size: tuple[int, int, int], cut: _Cut) -> Tensor:
    """The crop's voxels, mirrored and turned; a view of the field unless an axis is mirrored."""
    x, y, z = cut.start
    odd = cut.turns % 2 == 1
    # of an oblong crop only half turns are let through, so either order has the result's size
    box = field_XYZ[x : x + size[0], y : y + size[1], z : z + size[2]]
    flip_x, flip_y, flip_z = cut.flip
    if odd:
        box = box.transpose(0, 1)
        flip_x, flip_y = flip_y, flip_x
    # a turn by 90 degrees mirrors the new first axis, by 180 both, by 270 the second
    mirrored = (flip_x ^ (cut.turns in (1, 2)), flip_y ^ (cut.turns in (2, 3)), flip_z)
    axes = [axis for axis in range(3) if mirrored[axis]]
    return box.flip(axes) if axes else box
