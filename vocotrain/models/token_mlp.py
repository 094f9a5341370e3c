"""The second half of a Swin block as one operation: y = x + linear2(gelu(linear1(norm(x)))).

The values inside are four times as many as the tokens' and would be kept twice, before and after
the GELU. Here they exist for some tokens at a time, in the cache, and the backward pass computes
them again: x is all that is kept.

Shape letters: R tokens (rows), C channels, H hidden channels.
"""

# no `from __future__ import annotations`: torch reads the annotations of an operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vocotrain.models.pieces import PIECE_VALUES, computing_type, for_each, wide
from vocotrain.ops import check_no_transform

EPSILON = 1e-5
"""Of the layer norm, torch's and MONAI's."""


def token_mlp(
    x: Tensor,
    norm: tuple[Tensor, Tensor],
    linear1: tuple[Tensor, Tensor],
    linear2: tuple[Tensor, Tensor],
) -> Tensor:
    """Tokens to tokens, under autocast in its type.

    Args:
        x: Tokens, channels last, any number of axes before.
        norm: Weight and bias (C) of the layer norm.
        linear1: Weight (H, C) and bias (H).
        linear2: Weight (C, H) and bias (C).

    Raises:
        TransformError: A derivative by torch.func.jvp or torch.func.grad is asked for.
    """
    check_no_transform("token_mlp", x, *norm, *linear1, *linear2)
    kind = computing_type(x)
    linears = (parameter.to(kind) for parameter in (*linear1, *linear2))
    y_RC: Tensor = _forward_op(x.to(kind).reshape(-1, x.shape[-1]), *norm, *linears)
    return y_RC.view(x.shape)


@torch.library.custom_op("vocotrain::token_mlp", mutates_args=())
def _forward_op(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
) -> Tensor:
    y_RC = torch.empty_like(x)

    def one(rows: slice) -> None:
        n = _normalised(x[rows], norm_weight, norm_bias)[0]
        hidden = functional.gelu(functional.linear(n, weight1, bias1))
        torch.add(x[rows], functional.linear(hidden, weight2, bias2), out=y_RC[rows])

    with torch.autocast(x.device.type, enabled=False):
        for_each(one, _rows(x, weight1))
    return y_RC


@torch.library.custom_op("vocotrain::token_mlp_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
) -> list[Tensor]:
    """Gradients of the arguments of the forward operation, in order."""
    grad_x = torch.empty_like(x)

    def one(rows: slice) -> list[Tensor]:
        n, mean, scale = _normalised(x[rows], norm_weight, norm_bias)
        g, before = grad[rows], functional.linear(n, weight1, bias1)
        of_weight2 = g.T @ functional.gelu(before)
        of_hidden = torch.ops.aten.gelu_backward(g @ weight2, before)
        of_x, *of_norm = torch.ops.aten.native_layer_norm_backward(
            wide(of_hidden @ weight1), wide(x[rows]), [x.shape[1]], mean, scale,
            wide(norm_weight), wide(norm_bias), [True, True, True],
        )  # fmt: skip
        torch.add(of_x, g, out=grad_x[rows])
        found = [*of_norm, of_hidden.T @ n, of_hidden.sum(0), of_weight2, g.sum(0)]
        return [wide(tensor) for tensor in found]

    with torch.autocast(x.device.type, enabled=False):
        found = _added(for_each(one, _rows(x, weight1)))
    kinds = [tensor.dtype for tensor in (norm_weight, norm_bias, weight1, bias1, weight2, weight2)]
    return [grad_x, *(tensor.to(kind) for tensor, kind in zip(found, kinds, strict=True))]


def _normalised(x_RC: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm in float32 at least, rounded to x's type, and its mean and scale."""
    n, mean, scale = torch.native_layer_norm(
        wide(x_RC), [x_RC.shape[1]], wide(weight), wide(bias), EPSILON
    )
    return n.to(x_RC.dtype), mean, scale


def _rows(x_RC: Tensor, weight1: Tensor) -> list[slice]:
    """Tokens to take at once: hidden values that stay in the cache, but more than the weights."""
    count = len(x_RC)
    if x_RC.device.type != "cpu":
        return [slice(None)]
    step = max(PIECE_VALUES // len(weight1), len(weight1))
    return [slice(start, start + step) for start in range(0, count, step)]


def _added(found: Sequence[list[Tensor]]) -> list[Tensor]:
    """Sums over pieces, in their order."""
    return [torch.stack(column).sum(0) for column in zip(*found, strict=True)]


@_forward_op.register_fake
def _(x: Tensor, *_: Tensor) -> Tensor:
    return torch.empty_like(x)


@_backward_op.register_fake
def _(grad: Tensor, x: Tensor, *parameters: Tensor) -> list[Tensor]:  # noqa: ARG001 - the operator's signature
    norm_weight, norm_bias, weight1, bias1, weight2 = map(torch.empty_like, parameters)
    return [
        torch.empty_like(x),
        norm_weight,
        norm_bias,
        weight1,
        bias1,
        weight2,
        x.new_empty(x.shape[1]),
    ]


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 - torch's protocol
    ctx.save_for_backward(*inputs[:-1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401 - torch's protocol
    # once only: checkpointing lets go of a saved tensor when it is read
    saved = ctx.saved_tensors
    return tuple(_backward_op(grad.contiguous(), *saved))


_forward_op.register_autograd(_backward, setup_context=_save)
