"""Instance norm and leaky ReLU in one pass, channels last.

    y = leaky_relu((x - mean) / sqrt(var + eps) + residual)        mean, var over X, Y, Z, biased

Equals torch's `instance_norm` (no affine, no running statistics) followed by an addition and a
leaky ReLU. The point is memory traffic: on a CPU the volume is walked in pieces that stay in the
cache, and what is kept for the backward pass is x and y, which the convolutions around it keep
anyway. Statistics are in float32 (float64 for double), by two passes, so that a volume of equal
values gives zeros.

Shape letters: B volumes, X Y Z voxels, C channels, M = X*Y*Z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator

EPSILON = 1e-5
"""Added to the variance, as in torch's and MONAI's instance norm."""

PIECE_VALUES = 2**18
"""Values in a piece on a CPU: 1 MiB of float32, so that a piece and its temporaries stay cached."""


def instance_norm(
    x_BXYZC: Tensor, residual_BXYZC: Tensor | None = None, *, negative_slope: float = 1.0
) -> Tensor:
    """Instance norm over X, Y, Z, then the residual is added, then a leaky ReLU.

    Args:
        x_BXYZC: Channels-last maps.
        residual_BXYZC: Added after the norm; None: nothing is.
        negative_slope: Of the leaky ReLU; 1 is none. Not 0, which cannot be undone from y.

    Returns:
        Maps (B, X, Y, Z, C) of x's type.
    """
    x_BMC = x_BXYZC.contiguous().flatten(1, 3)
    residual_BMC = None if residual_BXYZC is None else residual_BXYZC.contiguous().flatten(1, 3)
    y_BMC: Tensor = _InstanceNorm.apply(x_BMC, residual_BMC, negative_slope)  # type: ignore[no-untyped-call]  # torch's apply
    return y_BMC.view(x_BXYZC.shape)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BMC: Tensor, residual_BMC: Tensor | None, slope: float) -> Tensor:  # noqa: ANN401 (torch's context)
        mean_B1C, scale_B1C = _statistics(x_BMC)
        y_BMC = torch.empty_like(x_BMC)
        for piece in _pieces(x_BMC):
            y = (x_BMC[piece] - mean_B1C[piece[0]]).mul_(scale_B1C[piece[0]])
            if residual_BMC is not None:
                y += residual_BMC[piece]
            y_BMC[piece] = y if slope == 1 else torch.nn.functional.leaky_relu_(y, slope)
        ctx.save_for_backward(x_BMC, y_BMC if slope != 1 else None, mean_B1C, scale_B1C)
        ctx.slope = slope
        ctx.residual_dtype = None if residual_BMC is None else residual_BMC.dtype
        return y_BMC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BMC: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401 (torch's context)
        x_BMC, y_BMC, mean_B1C, scale_B1C = ctx.saved_tensors
        before_BMC = g_BMC.contiguous()
        if y_BMC is not None:
            before_BMC = _before_activation(before_BMC, y_BMC, ctx.slope)
        residual = before_BMC.to(ctx.residual_dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, residual, None
        return _through_norm(before_BMC, x_BMC, mean_B1C, scale_B1C), residual, None


def _statistics(x_BMC: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and one over the standard deviation, (B, 1, C)."""
    kind = torch.promote_types(x_BMC.dtype, torch.float32)
    mean_B1C = torch.zeros(len(x_BMC), 1, x_BMC.shape[2], dtype=kind, device=x_BMC.device)
    variance_B1C = torch.zeros_like(mean_B1C)
    for piece in _pieces(x_BMC):
        mean_B1C[piece[0]] += x_BMC[piece].sum(1, keepdim=True, dtype=kind)
    mean_B1C /= x_BMC.shape[1]
    for piece in _pieces(x_BMC):
        deviation = x_BMC[piece] - mean_B1C[piece[0]]
        variance_B1C[piece[0]] += deviation.square_().sum(1, keepdim=True)
    return mean_B1C, (variance_B1C / x_BMC.shape[1] + EPSILON).rsqrt_()


def _before_activation(g_BMC: Tensor, y_BMC: Tensor, slope: float) -> Tensor:
    """Gradient before the leaky ReLU, whose sign y still shows."""
    return torch.ops.aten.leaky_relu_backward(g_BMC, y_BMC, slope, True)  # type: ignore[no-any-return]  # noqa: FBT003 (the operator's own signature)


def _through_norm(g_BMC: Tensor, x_BMC: Tensor, mean_B1C: Tensor, scale_B1C: Tensor) -> Tensor:
    """Gradient of x: the part of g that changes neither mean nor variance, scaled."""
    mean_g_B1C, slope_B1C = torch.zeros_like(mean_B1C), torch.zeros_like(mean_B1C)
    for piece in _pieces(x_BMC):
        g, rows = g_BMC[piece], piece[0]
        mean_g_B1C[rows] += g.sum(1, keepdim=True, dtype=mean_B1C.dtype)
        slope_B1C[rows] += (x_BMC[piece] - mean_B1C[rows]).mul_(g).sum(1, keepdim=True)
    mean_g_B1C /= x_BMC.shape[1]
    slope_B1C *= scale_B1C.square() / x_BMC.shape[1]
    dx_BMC = torch.empty_like(x_BMC)
    for piece in _pieces(x_BMC):
        rows = piece[0]
        g = g_BMC[piece] - mean_g_B1C[rows]
        g.addcmul_(x_BMC[piece] - mean_B1C[rows], slope_B1C[rows], value=-1)
        dx_BMC[piece] = g.mul_(scale_B1C[rows])
    return dx_BMC


def _pieces(x_BMC: Tensor) -> Iterator[tuple[slice, slice]]:
    """Index pairs (volumes, voxels) that cover x: one on an accelerator, cache-sized on a CPU."""
    volumes, voxels, channels = x_BMC.shape
    if x_BMC.device.type != "cpu":
        yield slice(None), slice(None)
        return
    rows = max(1, PIECE_VALUES // channels)
    together = max(1, rows // voxels)
    for b in range(0, volumes, together):
        for m in range(0, voxels, rows):
            yield slice(b, b + together), slice(m, m + rows)
