"""Shifted-window attention on a processor: boxes, in chunks that stay in the cache.

No padding, no roll, no mask, no copy of the scores in memory. Each class of boxes (see boxes.py)
is gathered once, chunks of boxes pass through scores, softmax and product while in the cache,
and the backward pass computes the weights again. The pads of a box are one more key, the sink:

    logit of the sink of query i = q_i . k_pad / sqrt(d) + log sum_p exp T[i - p],   value v_pad

Half precision is read and written as such and computed in float32.

Shapes: B maps, X Y Z tokens, C channels; N boxes of a class, H heads, n tokens and m keys of a
box, d channels of a head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vocokernels.window_attention.boxes import BoxClass, Triple, box_classes

# scores held at once, in numbers: they and the weights should stay in the second-level cache
CHUNK_SCORES = 2**18


def window_attention_cpu(
    qkv: Tensor,
    bias_table: Tensor,
    *,
    heads: int,
    window: Triple,
    shift: Triple,
    pad_qkv: Tensor | None = None,
) -> Tensor:
    """Attention in shifted windows; arguments as for `vocokernels.window_attention`."""
    out: Tensor = _forward_op(qkv, bias_table, pad_qkv, heads, window, shift)
    return out


@dataclass(frozen=True, eq=False)
class _Boxes:
    """One class of boxes, gathered."""

    kind: BoxClass
    q: Tensor
    """(N, H, n, d), scaled by 1 / sqrt(d)."""
    k: Tensor
    """(N, H, m, d)."""
    v: Tensor
    bias: Tensor
    """(H, n, m)."""

    def chunks(self) -> Iterator[slice]:
        """Boxes to take at once."""
        step = max(1, CHUNK_SCORES // self.bias.numel())
        for start in range(0, self.q.shape[0], step):
            yield slice(start, start + step)

    def weights(self, chunk: slice) -> Tensor:
        """Attention weights of some boxes, (N, H, n, m)."""
        logits = torch.matmul(self.q[chunk], self.k[chunk].transpose(-1, -2))
        logits += self.bias
        return torch.softmax(logits, dim=-1)


@torch.library.custom_op("vocokernels::window_attention_cpu", mutates_args=(), device_types="cpu")
def _forward_op(
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    heads: int,
    window: Sequence[int],
    shift: Sequence[int],
) -> Tensor:
    out = qkv.new_empty(*qkv.shape[:4], qkv.shape[4] // 3)
    # autocast would turn the float32 products below into half precision ones
    with torch.autocast("cpu", enabled=False):
        for boxes in _gather_all(qkv, bias_table, pad_qkv, heads, window, shift):
            result = torch.empty_like(boxes.q)
            for chunk in boxes.chunks():
                result[chunk] = boxes.weights(chunk) @ boxes.v[chunk]
            _slab(out, boxes.kind, 1, heads)[0].copy_(_as_slab(result, boxes.kind))
    return out


@torch.library.custom_op(
    "vocokernels::window_attention_cpu_backward", mutates_args=(), device_types="cpu"
)
def _backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    heads: int,
    window: Sequence[int],
    shift: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    compute = _compute_dtype(qkv)
    grad_table = bias_table.new_zeros(bias_table.shape, dtype=compute)
    grad_pad = qkv.new_zeros(3, heads, qkv.shape[4] // 3 // heads, dtype=compute)
    with torch.autocast("cpu", enabled=False):
        for boxes in _gather_all(qkv, bias_table, pad_qkv, heads, window, shift):
            grad_out_NHnd = _boxes(grad_out, boxes.kind, 1, heads)[0]
            grads, grad_bias = _box_gradients(boxes, grad_out_NHnd, grad_pad)
            slab = _slab(grad_qkv, boxes.kind, 3, heads)
            for target, source in zip(slab, grads, strict=True):
                target.copy_(_as_slab(source, boxes.kind))
            _add_table_gradient(grad_table, grad_bias, bias_table, boxes.kind)
    return (
        grad_qkv,
        grad_table.to(bias_table.dtype),
        grad_pad.flatten().to(qkv.dtype if pad_qkv is None else pad_qkv.dtype),
    )


def _box_gradients(
    boxes: _Boxes, grad_out_NHnd: Tensor, grad_pad: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Gradients of q, k, v of the real tokens and of the bias; adds to the pad's."""
    n, scale = boxes.kind.tokens, boxes.q.shape[-1] ** -0.5
    grad_q = torch.empty_like(boxes.q)
    grad_k, grad_v = torch.empty_like(grad_q), torch.empty_like(grad_q)
    grad_bias = torch.zeros_like(boxes.bias)
    for chunk in boxes.chunks():
        weights, grad = boxes.weights(chunk), grad_out_NHnd[chunk]
        all_v = weights.transpose(-1, -2) @ grad
        grad_weights = grad @ boxes.v[chunk].transpose(-1, -2)
        grad_logits = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_bias += grad_logits.sum(0)
        all_k = grad_logits.transpose(-1, -2) @ boxes.q[chunk]
        torch.mul(grad_logits @ boxes.k[chunk], scale, out=grad_q[chunk])
        grad_k[chunk], grad_v[chunk] = all_k[:, :, :n], all_v[:, :, :n]
        if all_k.shape[2] > n:
            grad_pad[1] += all_k[:, :, n].sum(0)
            grad_pad[2] += all_v[:, :, n].sum(0)
    return (grad_q, grad_k, grad_v), grad_bias


def _gather_all(
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    heads: int,
    window: Sequence[int],
    shift: Sequence[int],
) -> Iterator[_Boxes]:
    """The boxes of a batch of maps, one class after the other."""
    compute = _compute_dtype(qkv)
    table_HT = bias_table.to(compute).t().contiguous()
    pad = qkv.new_zeros(qkv.shape[4]) if pad_qkv is None else pad_qkv.to(qkv.dtype)
    _, pad_k, pad_v = pad.to(compute).view(3, heads, -1).unbind(0)
    for kind in box_classes(_triple(qkv.shape[1:4]), _triple(window), _triple(shift)):
        q, k, v = _boxes(qkv, kind, 3, heads)
        bias = _bias_of(table_HT, kind.table_rows())
        if kind.code_p.numel():
            sink = _bias_of(table_HT, kind.pad_table_rows()).logsumexp(-1, keepdim=True)
            bias = torch.cat([bias, sink], -1)
            k = torch.cat([k, pad_k[:, None].expand(k.shape[0], -1, -1, -1)], 2)
            v = torch.cat([v, pad_v[:, None].expand(v.shape[0], -1, -1, -1)], 2)
        yield _Boxes(kind, q * q.shape[-1] ** -0.5, k, v, bias)


def _add_table_gradient(
    grad_table: Tensor, grad_bias_Hnm: Tensor, bias_table: Tensor, kind: BoxClass
) -> None:
    n = kind.tokens
    real = grad_bias_Hnm[:, :, :n].permute(1, 2, 0).flatten(0, 1)
    grad_table.index_add_(0, kind.table_rows().flatten(), real)
    if kind.code_p.numel():
        logits = _bias_of(bias_table.to(grad_table.dtype).t(), kind.pad_table_rows())
        pads = (torch.softmax(logits, -1) * grad_bias_Hnm[:, :, n:]).permute(1, 2, 0).flatten(0, 1)
        grad_table.index_add_(0, kind.pad_table_rows().flatten(), pads)


def _bias_of(table_HT: Tensor, rows: Tensor) -> Tensor:
    """Entries of the table for pairs of tokens, (H, n, m)."""
    return table_HT.index_select(1, rows.flatten()).view(-1, *rows.shape)


def _boxes(map_BXYZC: Tensor, kind: BoxClass, parts: int, heads: int) -> Tensor:
    """Copy a class of boxes out of a map, (parts, N, H, n, d), in the type of the computation."""
    slab = _slab(map_BXYZC, kind, parts, heads).to(_compute_dtype(map_BXYZC))
    return slab.reshape(parts, -1, heads, kind.tokens, slab.shape[-1])


def _slab(map_BXYZC: Tensor, kind: BoxClass, parts: int, heads: int) -> Tensor:
    """View of a class of boxes in a map, (parts, B, counts, H, reals, d)."""
    view = torch.unflatten(map_BXYZC, 4, (parts, heads, -1))
    for axis in (2, 1, 0):
        start, count, real = kind.start[axis], kind.count[axis], kind.real[axis]
        view = view.narrow(axis + 1, start, count * real)
        view = torch.unflatten(view, axis + 1, (count, real))
    return view.permute(7, 0, 1, 3, 5, 8, 2, 4, 6, 9)


def _as_slab(boxes_NHnd: Tensor, kind: BoxClass) -> Tensor:
    _, heads, _, width = boxes_NHnd.shape
    return boxes_NHnd.view(-1, *kind.count, heads, *kind.real, width)


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _triple(values: Sequence[int]) -> Triple:
    x, y, z = values
    return int(x), int(y), int(z)


@_forward_op.register_fake
def _(
    qkv: Tensor,
    bias_table: Tensor,  # noqa: ARG001 - the operator's signature
    pad_qkv: Tensor | None,  # noqa: ARG001 - the operator's signature
    heads: int,  # noqa: ARG001 - the operator's signature
    window: Sequence[int],  # noqa: ARG001 - the operator's signature
    shift: Sequence[int],  # noqa: ARG001 - the operator's signature
) -> Tensor:
    return qkv.new_empty(*qkv.shape[:4], qkv.shape[4] // 3)


@_backward_op.register_fake
def _(
    grad_out: Tensor,  # noqa: ARG001 - the operator's signature
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    heads: int,  # noqa: ARG001 - the operator's signature
    window: Sequence[int],  # noqa: ARG001 - the operator's signature
    shift: Sequence[int],  # noqa: ARG001 - the operator's signature
) -> tuple[Tensor, Tensor, Tensor]:
    pad_dtype = qkv.dtype if pad_qkv is None else pad_qkv.dtype
    return (
        torch.empty_like(qkv, memory_format=torch.contiguous_format),
        torch.empty_like(bias_table, memory_format=torch.contiguous_format),
        qkv.new_empty(qkv.shape[4], dtype=pad_dtype),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001 - torch's protocol
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's protocol
    # once only: checkpointing lets go of a saved tensor when it is read
    saved = ctx.saved_tensors
    grad_qkv, grad_table, grad_pad = _backward_op(grad_out, *saved, *ctx.settings)
    return grad_qkv, grad_table, None if saved[2] is None else grad_pad, None, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
