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
from torch.nn import functional

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
            rows = piece[0]
            y = _workspace(y_BMC[piece], mean_B1C.dtype)
            torch.sub(x_BMC[piece], mean_B1C[rows], out=y).mul_(scale_B1C[rows])
            if residual_BMC is not None:
                y += residual_BMC[piece]
            _keep(y if slope == 1 else functional.leaky_relu_(y, slope), y_BMC[piece])
        ctx.save_for_backward(x_BMC, y_BMC if slope != 1 else None, mean_B1C, scale_B1C)
        ctx.slope = slope
        ctx.residual_dtype = None if residual_BMC is None else residual_BMC.dtype
        return y_BMC

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_BMC: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # noqa: ANN401 (torch's context)
        x_BMC, y_BMC, mean_B1C, scale_B1C = ctx.saved_tensors
        g_BMC = g_BMC.contiguous()
        before_BMC = g_BMC if y_BMC is None else torch.empty_like(g_BMC)
        mean_g_B1C, slope_B1C = torch.zeros_like(mean_B1C), torch.zeros_like(mean_B1C)
        for piece in _pieces(x_BMC):
            rows, g = piece[0], before_BMC[piece]
            if y_BMC is not None:
                _before_activation(g_BMC[piece], y_BMC[piece], ctx.slope, out=g)
            mean_g_B1C[rows] += g.sum(1, keepdim=True, dtype=mean_B1C.dtype)
            slope_B1C[rows] += (x_BMC[piece] - mean_B1C[rows]).mul_(g).sum(1, keepdim=True)
        residual = before_BMC.to(ctx.residual_dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, residual, None
        mean_g_B1C /= x_BMC.shape[1]
        slope_B1C *= scale_B1C.square() / x_BMC.shape[1]
        ours = y_BMC is not None and residual is None and before_BMC.dtype == x_BMC.dtype
        dx_BMC = before_BMC if ours else torch.empty_like(x_BMC)
        for piece in _pieces(x_BMC):
            rows = piece[0]
            dx = _workspace(dx_BMC[piece], mean_B1C.dtype)
            torch.sub(before_BMC[piece], mean_g_B1C[rows], out=dx)
            dx.addcmul_(x_BMC[piece] - mean_B1C[rows], slope_B1C[rows], value=-1)
            _keep(dx.mul_(scale_B1C[rows]), dx_BMC[piece])
        return dx_BMC, residual, None


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


def _before_activation(g: Tensor, y: Tensor, slope: float, *, out: Tensor) -> None:
    """Gradient before the leaky ReLU, whose sign y still shows."""
    torch.ops.aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=out)  # noqa: FBT003 (the operator's own signature)


def _workspace(target: Tensor, kind: torch.dtype) -> Tensor:
    """Where a piece is computed: in its place, if that has the precision."""
    return target if target.dtype == kind else torch.empty_like(target, dtype=kind)


def _keep(piece: Tensor, target: Tensor) -> None:
    """Round a piece into its place, unless it is there."""
    if piece.dtype != target.dtype:
        target.copy_(piece)


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
