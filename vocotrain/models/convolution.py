"""Convolutions of side 3 that keep the size of a map, channels last, and their gradients.

The same numbers in three ways, each the fastest somewhere:

- a map of few channels, as the input: the values around each voxel are gathered a slab at a time,
  while they are in the cache, and multiplied with the weight. Libraries fill channels up to 16;
- fewer voxels than channels, as at the bottom: the values around all voxels are fewer than the
  weights, so the weights are used as they lie, not brought into another order first;
- all others: torch's convolution, in the layout that it is fastest in.

Shape letters: B maps, X Y Z voxels, C channels in, D channels out, S voxels of a slab, K = 27 C
values around a voxel, in the order of the weight (D, C, 3, 3, 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vocotrain.models.pieces import PIECE_VALUES, for_each

FEW_CHANNELS = 4


class Slab(NamedTuple):
    """Some planes of a map."""

    map: int
    planes: slice


def convolve(x_BXYZC: Tensor, weight: Tensor) -> Tensor:
    """Convolution of side 3, padded with zeros; a fresh contiguous map (B, X, Y, Z, D)."""
    if _has_few_channels(x_BXYZC):
        return _convolve_slabs(x_BXYZC, weight)
    if _has_few_voxels(x_BXYZC, weight):
        return functional.linear(_around(x_BXYZC).flatten(4), weight.flatten(1))
    return _last(functional.conv3d(_first(x_BXYZC), weight, padding=1))


def convolve_backward(
    grad_BXYZD: Tensor, x_BXYZC: Tensor, weight: Tensor, *, of_input: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the input, empty unless asked for, and of the weight; both fresh."""
    if _has_few_channels(x_BXYZC):
        grad_weight = _slab_weight_gradient(grad_BXYZD, x_BXYZC, weight)
        if not of_input:
            return x_BXYZC.new_empty(0), grad_weight
        return _torch_backward(grad_BXYZD, x_BXYZC, weight, (True, False))[0], grad_weight
    if _has_few_voxels(x_BXYZC, weight):
        around_RK = _around(x_BXYZC).flatten(4).flatten(0, 3)
        grad_weight = (grad_BXYZD.flatten(0, 3).T @ around_RK).view(weight.shape)
        grad_x = _spread(grad_BXYZD, weight) if of_input else x_BXYZC.new_empty(0)
        return grad_x, grad_weight
    return _torch_backward(grad_BXYZD, x_BXYZC, weight, (of_input, True))


def _torch_backward(
    grad_BXYZD: Tensor, x_BXYZC: Tensor, weight: Tensor, of_input_and_weight: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of torch's convolution; of the input empty unless asked for."""
    one, zero, whole = [1, 1, 1], [0, 0, 0], False
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        _first(grad_BXYZD), _first(x_BXYZC), weight, None,
        one, one, one, whole, zero, 1, [*of_input_and_weight, False],
    )  # fmt: skip
    return _last(of_x) if of_input_and_weight[0] else x_BXYZC.new_empty(0), of_weight


def _has_few_channels(x_BXYZC: Tensor) -> bool:
    return x_BXYZC.shape[-1] <= FEW_CHANNELS and x_BXYZC.device.type == "cpu"


def _has_few_voxels(x_BXYZC: Tensor, weight: Tensor) -> bool:
    if x_BXYZC.dtype == torch.bfloat16 and x_BXYZC.shape[1] == 2 and x_BXYZC.device.type == "cpu":
        # oneDNN's gradient of the weight adds memory that nobody wrote: now and then not a number
        return True
    return x_BXYZC.shape[:-1].numel() <= len(weight)


def _around(x_BXYZC: Tensor) -> Tensor:
    """The 27 values around each voxel, a view (B, X, Y, Z, C, 3, 3, 3) of the padded map."""
    padded = functional.pad(x_BXYZC, (0, 0, 1, 1, 1, 1, 1, 1))
    around: Tensor = padded.unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)
    return around


def _spread(grad_BXYZD: Tensor, weight: Tensor) -> Tensor:
    """Gradient of the input of a map of few voxels: undo `_around`."""
    b, x, y, z, _ = grad_BXYZD.shape
    c = weight.shape[1]
    around = (grad_BXYZD @ weight.flatten(1)).view(b, x, y, z, c, 3, 3, 3)
    padded = around.new_zeros(b, x + 2, y + 2, z + 2, c)
    for i, j, k in torch.cartesian_prod(*[torch.arange(3)] * 3).tolist():
        padded[:, i : i + x, j : j + y, k : k + z] += around[..., i, j, k]
    return padded[:, 1:-1, 1:-1, 1:-1].contiguous()


def _convolve_slabs(x_BXYZC: Tensor, weight: Tensor) -> Tensor:
    y_BXYZD = x_BXYZC.new_empty(*x_BXYZC.shape[:4], len(weight))
    around, weight_KD = _around(x_BXYZC), weight.flatten(1).T

    def one(slab: Slab) -> None:
        target_SD = y_BXYZD[slab.map, slab.planes].flatten(0, 2)
        torch.mm(_columns(around, slab).T, weight_KD, out=target_SD)

    for_each(one, _slabs(y_BXYZD))
    return y_BXYZD


def _slab_weight_gradient(grad_BXYZD: Tensor, x_BXYZC: Tensor, weight: Tensor) -> Tensor:
    around = _around(x_BXYZC)

    def one(slab: Slab) -> Tensor:
        return _columns(around, slab) @ grad_BXYZD[slab.map, slab.planes].flatten(0, 2)

    found = for_each(one, _slabs(grad_BXYZD))
    return torch.stack(found).sum(0).T.reshape(weight.shape)


def _columns(around: Tensor, slab: Slab) -> Tensor:
    """Values around the voxels of a slab, (K, S): a row for each entry of a weight."""
    columns = around[slab.map, slab.planes].permute(3, 4, 5, 6, 0, 1, 2)
    return columns.reshape(columns.shape[:4].numel(), -1)


def _slabs(y_BXYZD: Tensor) -> list[Slab]:
    maps, planes = y_BXYZD.shape[:2]
    step = max(1, PIECE_VALUES // y_BXYZD.shape[2:].numel())
    return [Slab(b, slice(x, x + step)) for b in range(maps) for x in range(0, planes, step)]


def _first(x_BXYZC: Tensor) -> Tensor:
    """Seen as (B, C, X, Y, Z)."""
    return x_BXYZC.permute(0, 4, 1, 2, 3)


def _last(x_BCXYZ: Tensor) -> Tensor:
    """As a contiguous map (B, X, Y, Z, C); no copy if it lies so."""
    return x_BCXYZ.permute(0, 2, 3, 4, 1).contiguous()
