"""Cutting crops on a GPU: one pass from the fields to finished crops.

Flip and quarter turn move each axis of the crop along one axis of the field, forth or back. So
the voxel that a place (u, v, w) of a crop reads is

    origin + u * step_u + v * step_v + w * step_w

with four whole numbers a crop. They are worked out for all crops at once, wherever the plan lies,
and sent to the device in one small tensor; a program fills a stretch of one crop:

    fields  . . . . . . . . .        crops  [ BLOCK ][ BLOCK ][ Bl
            . . [a b c] . . .   ->            one program each, w fastest
            . . [d e f] . . .

Neighbours in w are neighbours in the field whatever the turn, so reads are as wide as writes.
Not differentiable: fields are data.
"""
# ruff: noqa: ANN001, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from vocokernels.cut_crops.reference import Augmentation
from vocokernels.errors import ShapeError
from vocokernels.launching import launch

# voxels a program; 8 a thread, so that the loads of 16-bit voxels are as wide as they can be
BLOCK = 1024
NUM_WARPS = 4
NUM_STAGES = 1
Triple = tuple[int, int, int]


@triton.jit
def _cut_crops_kernel(
    field_ptr,
    map_ptr,
    light_ptr,
    crop_ptr,
    size_v,
    size_w,
    crop_voxels,
    blocks,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    crop = (program // blocks).to(tl.int64)
    place = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = place < crop_voxels
    column = place // size_w
    w, v, u = place % size_w, column % size_v, column // size_v
    origin, step_u = tl.load(map_ptr + 4 * crop), tl.load(map_ptr + 4 * crop + 1)
    step_v, step_w = tl.load(map_ptr + 4 * crop + 2), tl.load(map_ptr + 4 * crop + 3)
    voxel = origin + u * step_u + v * step_v + w * step_w
    hu = tl.load(field_ptr + voxel, mask=inside, other=0).to(tl.float32)
    lower, width = tl.load(light_ptr + 3 * crop), tl.load(light_ptr + 3 * crop + 1)
    # the plain division is not rounded as the specification's
    value = tl.div_rn(hu - lower, tl.zeros_like(hu) + width)
    # comparisons instead of a minimum, which would hide NaN
    value = tl.where(value < 0.0, 0.0, value)
    value = tl.where(value > 1.0, 1.0, value)
    value += tl.load(light_ptr + 3 * crop + 2)
    tl.store(crop_ptr + crop * crop_voxels + place, value, mask=inside)


def cut_crops_triton(
    field_BXYZ: Tensor,
    start_BN3: Tensor,
    size: Triple,
    window_hu_B2: Tensor,
    plan: Augmentation,
) -> Tensor:
    """Arguments as for `vocokernels.cut_crops`, checked; fields on a GPU."""
    strides = field_BXYZ.stride()
    map_BN4 = crop_map(strides, start_BN3, size, plan).to(field_BXYZ.device, non_blocking=True)
    light_BN3 = _light(start_BN3, window_hu_B2, plan).to(field_BXYZ.device, non_blocking=True)
    crops: Tensor = _cut_op(field_BXYZ, map_BN4.contiguous(), light_BN3.contiguous(), *size)
    return crops


def crop_map(
    strides: tuple[int, ...], start_BN3: Tensor, size: Triple, plan: Augmentation
) -> Tensor:
    """Origin and steps of each crop in numbers of the field's memory: (B, N, 4), int64."""
    start = start_BN3.long()
    step = torch.tensor(strides[1:], device=start.device).expand_as(start)
    volume = torch.arange(len(start), device=start.device)[:, None] * strides[0]
    origin = volume + (start * step).sum(-1)
    last = torch.tensor(size, device=start.device) - 1
    if plan.flip is not None:
        flip = plan.flip.to(start.device)
        origin = origin + torch.where(flip, last * step, 0).sum(-1)
        step = torch.where(flip, -step, step)
    x, y, z = step.unbind(-1)
    if plan.turns is None:
        return torch.stack([origin, x, y, z], dim=-1)
    # by a quarter turn, place (u, v) shows what was at (v, last - u)
    turns = (plan.turns % 4).to(start.device)
    origin = origin + torch.where((turns == 2) | (turns == 3), last[0] * x, 0)
    origin = origin + torch.where((turns == 1) | (turns == 2), last[1] * y, 0)
    quarters = torch.stack([x, -y, -x, y]).gather(0, turns[None].long())[0]
    across = torch.stack([y, x, -y, -x]).gather(0, turns[None].long())[0]
    return torch.stack([origin, quarters, across, z], dim=-1)


def _light(start_BN3: Tensor, window_hu_B2: Tensor, plan: Augmentation) -> Tensor:
    """Lower end and width of the window, HU, and shift of each crop: (B, N, 3), float32."""
    window = window_hu_B2.float()[:, None].expand(-1, start_BN3.shape[1], -1)
    lower, upper = window.unbind(-1)
    shift = torch.zeros_like(lower) if plan.shift is None else plan.shift.to(window.device).float()
    return torch.stack([lower, upper - lower, shift], dim=-1)


@torch.library.custom_op("vocokernels::cut_crops_triton", mutates_args=())
def _cut_op(
    field_BXYZ: Tensor, map_BN4: Tensor, light_BN3: Tensor, x: int, y: int, z: int
) -> Tensor:
    volumes, crops, _ = map_BN4.shape
    crop_BN1XYZ = field_BXYZ.new_empty((volumes, crops, 1, x, y, z), dtype=torch.float32)
    voxels = x * y * z
    if voxels > 2**31 - BLOCK:
        message = (
            f"A crop of {x} x {y} x {z} has {voxels} voxels; backend 'triton' counts up to "
            f"{2**31 - BLOCK}. Cut it in parts, or take backend='reference'."
        )
        raise ShapeError(message)
    blocks = triton.cdiv(voxels, BLOCK)
    if crop_BN1XYZ.numel():
        launch(
            _cut_crops_kernel,
            (volumes * crops * blocks,),
            field_BXYZ,
            map_BN4,
            light_BN3,
            crop_BN1XYZ,
            y,
            z,
            voxels,
            blocks,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
    return crop_BN1XYZ


@_cut_op.register_fake
def _(
    field_BXYZ: Tensor,
    map_BN4: Tensor,
    light_BN3: Tensor,  # noqa: ARG001 - the operator's signature
    x: int,
    y: int,
    z: int,
) -> Tensor:
    return field_BXYZ.new_empty((*map_BN4.shape[:2], 1, x, y, z), dtype=torch.float32)
