"""Shifted-window attention on a GPU as operators of PyTorch.

The forward operator also gives the logarithm of each query's sum of weights: with it the backward
pass computes the weights again, and qkv, `out` and it are all that is kept. The launches are
imported with the first call, so that this file needs no Triton.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vocokernels.window_attention.boxes import Triple, as_triple


def window_attention_triton(
    qkv: Tensor,
    bias_table: Tensor,
    *,
    window: Triple,
    shift: Triple,
    pad_qkv: Tensor | None = None,
) -> Tensor:
    """Arguments as for `vocokernels.window_attention`; the table tells the heads.

    Tensors lie on a GPU, or anywhere under Triton's interpreter.
    """
    out: Tensor = _forward_op(qkv, bias_table, pad_qkv, window, shift)[0]
    return out


@torch.library.custom_op("vocokernels::window_attention_triton", mutates_args=())
def _forward_op(
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
) -> tuple[Tensor, Tensor]:
    from vocokernels.window_attention.launch import forward

    return forward(qkv, bias_table, pad_qkv, as_triple(window), as_triple(shift))


@torch.library.custom_op("vocokernels::window_attention_triton_backward", mutates_args=())
def _backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window: Sequence[int],
    shift: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    from vocokernels.window_attention.gradients.launch import backward

    saved = (qkv, bias_table, pad_qkv, out, lse)
    return backward(grad_out, *saved, as_triple(window), as_triple(shift))


@_forward_op.register_fake
def _(
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,  # noqa: ARG001 - the operator's signature
    window: Sequence[int],  # noqa: ARG001 - the operator's signature
    shift: Sequence[int],  # noqa: ARG001 - the operator's signature
) -> tuple[Tensor, Tensor]:
    maps, x, y, z, channels = qkv.shape
    sums = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    lse = qkv.new_empty((maps, bias_table.shape[1], x * y * z), dtype=sums)
    return qkv.new_empty(maps, x, y, z, channels // 3), lse


@_backward_op.register_fake
def _(
    grad_out: Tensor,  # noqa: ARG001 - the operator's signature
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    out: Tensor,  # noqa: ARG001 - the operator's signature
    lse: Tensor,  # noqa: ARG001 - the operator's signature
    window: Sequence[int],  # noqa: ARG001 - the operator's signature
    shift: Sequence[int],  # noqa: ARG001 - the operator's signature
) -> tuple[Tensor, Tensor, Tensor]:
    pad_dtype = qkv.dtype if pad_qkv is None else pad_qkv.dtype
    return (
        torch.empty_like(qkv, memory_format=torch.contiguous_format),
        torch.empty_like(bias_table, memory_format=torch.contiguous_format),
        qkv.new_empty(qkv.shape[4], dtype=pad_dtype),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:  # noqa: ANN401 - torch's protocol
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.settings = inputs[3:]
    # the sums have no gradient of their own: none is to be filled with zeros
    ctx.set_materialize_grads(False)


def _backward(
    ctx: Any,  # noqa: ANN401 - torch's protocol
    grad_out: Tensor | None,
    _: Tensor | None,
) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        return None, None, None, None, None
    # once only: checkpointing lets go of a saved tensor when it is read
    saved = ctx.saved_tensors
    grad_qkv, grad_table, grad_pad = _backward_op(grad_out, *saved, *ctx.settings)
    return grad_qkv, grad_table, None if saved[2] is None else grad_pad, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
