"""Cutting crops, the specification: one gather for all crops of a batch.

Flips and quarter turns only change which voxel a place of the crop reads, and each axis of the
crop moves along one axis of the field. So the voxel's number is a sum of three parts, one of each
axis of the crop, and no crop is copied more than once:

    voxel(u, v, w) = along_u[u] + along_v[v] + along_w[w]

Shapes: B volumes, N crops each, X Y Z voxels of a field, U V W voxels of a crop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What is done to each crop; None is nothing."""

    flip: Tensor | None
    """(B, N, 3) of bool."""
    turns: Tensor | None
    """(B, N), quarter turns."""
    shift: Tensor | None
    """(B, N), in units of the window."""


def cut_crops_reference(
    field_BXYZ: Tensor,
    start_BN3: Tensor,
    size: tuple[int, int, int],
    window_hu_B2: Tensor,
    plan: Augmentation,
) -> Tensor:
    """Arguments as for `vocokernels.cut_crops`, checked; any device."""
    device = field_BXYZ.device
    u, v, w = (part.to(device) for part in _voxel_numbers(field_BXYZ, start_BN3, size, plan))
    number = u[..., :, None, None] + v[..., None, :, None] + w[..., None, None, :]
    crops = field_BXYZ.flatten(1).gather(1, number.flatten(1)).view(number.shape).float()
    lower, upper = window_hu_B2.to(device, torch.float32)[..., None, None, None, None].unbind(1)
    crops.sub_(lower).div_(upper - lower).clamp_(0.0, 1.0)
    if plan.shift is not None:
        crops.add_(plan.shift.to(device, torch.float32)[..., None, None, None])
    return crops[:, :, None]


def _voxel_numbers(
    field_BXYZ: Tensor, start_BN3: Tensor, size: tuple[int, int, int], plan: Augmentation
) -> tuple[Tensor, Tensor, Tensor]:
    """Each crop axis' part of the number of the voxel to read: (B, N, U), (B, N, V), (B, N, W)."""
    _, _, length_y, length_z = field_BXYZ.shape
    strides = (length_y * length_z, length_z, 1)
    parts = []
    for axis, stride in enumerate(strides):
        forth = torch.arange(size[axis], device=start_BN3.device)
        place = forth.expand(*start_BN3.shape[:2], -1)
        if plan.flip is not None:
            flipped = plan.flip[..., axis, None].to(start_BN3.device)
            place = torch.where(flipped, forth.flip(0), place)
        parts.append((start_BN3[..., axis, None] + place) * stride)
    x, y, z = parts
    if plan.turns is None:
        return x, y, z
    # by a quarter turn, place (u, v) shows what was at (v, last - u)
    turns = (plan.turns % 4)[..., None].to(start_BN3.device)
    if size[0] != size[1]:
        half = turns == 2
        return torch.where(half, x.flip(-1), x), torch.where(half, y.flip(-1), y), z
    u = torch.where(turns % 2 == 0, x, y)
    v = torch.where(turns % 2 == 0, y, x)
    u = torch.where((turns == 1) | (turns == 2), u.flip(-1), u)
    v = torch.where((turns == 2) | (turns == 3), v.flip(-1), v)
    return u, v, z
