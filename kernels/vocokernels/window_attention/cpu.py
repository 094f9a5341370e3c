"""Shifted-window attention on a processor: boxes, in chunks that stay in the cache.

No padding, no roll, no mask, no scores in memory. Boxes (see boxes.py) are gathered part by part
and go through torch's fused attention, the bias as its mask. Where that is slow, and backward, for
which it has no gradient of a mask, chunks of a part pass through scores, softmax and product one
head at a time; the backward pass computes the weights again. The pads of a box are one more key,
the sink:

    logit of the sink of query i = q_i . k_pad / sqrt(d) + log sum_p exp T[i - p],   value v_pad

Half precision is read and written as such and computed in float32.

Shapes: B maps, X Y Z tokens, C channels; H heads, N boxes of a part, n tokens of a box and m keys
(n, or n + 1 with a sink), d channels of a head, T rows of the table, p pads of a box.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from vocokernels.precision import compute_dtype
from vocokernels.window_attention.boxes import BoxClass, Triple, as_triple, box_classes
from vocokernels.window_attention.slabs import Part, gather, parts, rows_of, scatter
from vocokernels.workers import run_shares, share_out, worker_count

# scores held at once, in numbers: with the weights, they should stay in a thread's cache
CHUNK_SCORES = 2**18

# torch.softmax leaves rows shorter than a vector register to scalar code, five times slower
SHORT_ROW = 16

# torch's fused attention is slower than products and a softmax for fewer tokens of a box, narrower
# heads, and in float64
FUSED_TOKENS, FUSED_WIDTH = 32, 8
HAS_FUSED = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")

# scores of all boxes and one head: less is done before another thread has woken
WORTH_SHARING = 2**15

Chunk = tuple[slice, slice]
Share = list[tuple[BoxClass, list[Part]]]


def window_attention_cpu(
    qkv: Tensor,
    bias_table: Tensor,
    *,
    window: Triple,
    shift: Triple,
    pad_qkv: Tensor | None = None,
) -> Tensor:
    """Arguments as for `vocokernels.window_attention`; the table tells the heads."""
    out: Tensor = _forward_op(qkv, bias_table, pad_qkv, window, shift)
    return out


@torch.library.custom_op("vocokernels::window_attention_cpu", mutates_args=(), device_types="cpu")
def _forward_op(
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
) -> Tensor:
    out = qkv.new_empty(*qkv.shape[:4], qkv.shape[4] // 3)
    dtype = compute_dtype(qkv)
    table_HT = bias_table.to(dtype).t().contiguous()

    def compute(share: Share) -> None:
        for kind, some in share:
            bias_Hnm = _bias(table_HT, kind)
            sink = _sink(qkv, pad_qkv) if kind.code_p.numel() else None
            for part in some:
                rows = rows_of(qkv, kind, part, dtype=dtype, sink_W=sink)
                scatter(out, kind, part, _part_out(rows, bias_Hnm))

    # autocast would turn the float32 products into half precision ones
    with torch.autocast("cpu", enabled=False):
        run_shares(compute, _shares(qkv, window, shift))
    return out


@torch.library.custom_op(
    "vocokernels::window_attention_cpu_backward", mutates_args=(), device_types="cpu"
)
def _backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    window: Sequence[int],
    shift: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    dtype = compute_dtype(qkv)
    table_HT = bias_table.to(dtype).t().contiguous()

    def compute(share: Share) -> tuple[Tensor, Tensor]:
        grad_table_HT = torch.zeros_like(table_HT)
        grad_pad = qkv.new_zeros(qkv.shape[4], dtype=dtype)
        for kind, some in share:
            bias_Hnm = _bias(table_HT, kind)
            grad_bias_Hnm = torch.zeros_like(bias_Hnm)
            sink = _sink(qkv, pad_qkv) if kind.code_p.numel() else None
            for part in some:
                rows = gather(qkv, kind, part, dtype=dtype, sink_W=sink)
                grad_rows = gather(grad_out, kind, part, dtype=dtype)
                _part_gradients(rows, grad_rows, bias_Hnm, grad_bias_Hnm)
                scatter(grad_qkv, kind, part, rows)
                if sink is not None:
                    grad_pad += rows[:, -1].sum(0)
            _add_table_gradient(grad_table_HT, grad_bias_Hnm, table_HT, kind)
        return grad_table_HT, grad_pad

    with torch.autocast("cpu", enabled=False):
        tables, pads = zip(*run_shares(compute, _shares(qkv, window, shift)), strict=True)
    return (
        grad_qkv,
        # contiguous, which `to` is not unless it converts
        sum(tables[1:], tables[0]).t().to(bias_table.dtype).contiguous(),
        sum(pads[1:], pads[0]).to(qkv.dtype if pad_qkv is None else pad_qkv.dtype),
    )


def _shares(qkv: Tensor, window: Sequence[int], shift: Sequence[int]) -> list[Share]:
    """The parts of all boxes, split among the workers."""
    kinds = box_classes(as_triple(qkv.shape[1:4]), as_triple(window), as_triple(shift))
    scores = sum(kind.tokens**2 * kind.boxes for kind in kinds) * qkv.shape[0]
    workers = worker_count() if scores > WORTH_SHARING else 1
    found = [
        (kind, part)
        for kind in kinds
        for part in parts(kind, qkv.shape[0], qkv.shape[4] // 3, at_least=-(-workers // len(kinds)))
    ]
    costs = [kind.tokens**2 * part.boxes for kind, part in found]
    return [
        [(kind, [part for _, part in same]) for kind, same in groupby(some, key=itemgetter(0))]
        for some in share_out(found, costs, shares=workers)
    ]


def _part_out(rows_NmW: Tensor, bias_Hnm: Tensor) -> Tensor:
    """Attention of a part, (N, n, C)."""
    heads, n, _ = bias_Hnm.shape
    width = rows_NmW.shape[2] // (3 * heads)
    is_worth_it = n >= FUSED_TOKENS and width >= FUSED_WIDTH and rows_NmW.dtype == torch.float32
    return (_fused if is_worth_it and HAS_FUSED else _in_steps)(rows_NmW, bias_Hnm)


def _fused(rows_NmW: Tensor, bias_Hnm: Tensor) -> Tensor:
    """By torch's operator for processors.

    Not by `scaled_dot_product_attention` itself: which operator that takes is a setting of the
    process, and some choices have none for a processor.
    """
    heads, n, _ = bias_Hnm.shape
    q, k, v = torch.unflatten(rows_NmW, 2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    out_NHnd, lse_NHn = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q[:, :, :n], k, v, attn_mask=bias_Hnm[None]
    )
    # Where all logits of a query are -inf, the operator says 0 for it and for its log-sum-exp. A
    # softmax says NaN, and half precision that has overflown must be seen.
    if not (lse_NHn.sum().isfinite() and lse_NHn.all()):
        return _in_steps(rows_NmW, bias_Hnm)
    out: Tensor = out_NHnd.transpose(1, 2).flatten(2)
    return out


def _in_steps(rows_NmW: Tensor, bias_Hnm: Tensor) -> Tensor:
    """By products and a softmax, in chunks."""
    q, k, v = _by_head(rows_NmW, 3, bias_Hnm)
    out_HNdn = torch.empty_like(q)
    for here in _chunks(q, bias_Hnm):
        weights = _weights(_take(q, here), _take(k, here), bias_Hnm[here[0]])
        # products that end in d columns crawl where d is small; transposed they do not
        torch.bmm(_take(v, here), weights.mT, out=_take(out_HNdn, here))
    return out_HNdn.permute(1, 3, 0, 2).flatten(2)


def _part_gradients(
    rows_NmW: Tensor, grad_NnC: Tensor, bias_Hnm: Tensor, grad_bias_Hnm: Tensor
) -> None:
    """Put the gradients of q, k, v in their place; add to that of the bias."""
    q, k, v = _by_head(rows_NmW, 3, bias_Hnm)
    (grad,) = _by_head(grad_NnC, 1, bias_Hnm)
    scale = q.shape[2] ** -0.5
    grad_q, grad_k, grad_v = (torch.empty_like(tensor) for tensor in (q, k, v))
    for here in _chunks(q, bias_Hnm):
        some_q, some_k, some_grad = _take(q, here), _take(k, here), _take(grad, here)
        weights = _weights(some_q, some_k, bias_Hnm[here[0]])
        torch.bmm(some_grad, weights, out=_take(grad_v, here))
        grad_weights = torch.bmm(some_grad.mT, _take(v, here))
        grad_logits = _logit_gradients(grad_weights, weights)
        some_bias = grad_bias_Hnm[here[0]]
        some_bias += grad_logits.view(some_bias.shape[0], -1, *some_bias.shape[1:]).sum(1)
        # beta=0: what lies there is not read, only the product is scaled
        _take(grad_q, here).baddbmm_(some_k, grad_logits.mT, beta=0, alpha=scale)
        _take(grad_k, here).baddbmm_(some_q, grad_logits, beta=0, alpha=scale)
    n = bias_Hnm.shape[1]
    for piece, found in enumerate((grad_q, grad_k, grad_v)):
        target = torch.unflatten(rows_NmW, 2, (3, found.shape[0], -1))[:, :, piece]
        target[:, : found.shape[3]] = found.permute(1, 3, 0, 2)
    rows_NmW[:, n:, : rows_NmW.shape[2] // 3] = 0


def _by_head(rows_NmW: Tensor, pieces: int, bias_Hnm: Tensor) -> tuple[Tensor, ...]:
    """Copies of q, k, v (or of one) by head, (H, N, d, m) each; the sink asks nothing: q has n."""
    heads, n, _ = bias_Hnm.shape
    views = torch.unflatten(rows_NmW, 2, (pieces, heads, -1)).permute(2, 3, 0, 4, 1).unbind(0)
    return (views[0][..., :n].contiguous(), *(view.contiguous() for view in views[1:]))


def _chunks(q_HNdn: Tensor, bias_Hnm: Tensor) -> Iterator[Chunk]:
    """Heads and boxes to take at once: several heads with all boxes, or boxes of one head."""
    heads, boxes = q_HNdn.shape[:2]
    room = max(1, CHUNK_SCORES // bias_Hnm[0].numel())
    step = max(1, room // boxes)
    for head in range(0, heads, step):
        for start in range(0, boxes, room):
            yield slice(head, head + step), slice(start, start + room)


def _take(some_HN: Tensor, here: Chunk) -> Tensor:
    """A chunk, heads and boxes as one axis; a view, so that it can be written."""
    part = some_HN[here]
    return part.view(-1, *part.shape[2:])


def _weights(q_Ndn: Tensor, k_Ndm: Tensor, bias_hnm: Tensor) -> Tensor:
    """Attention weights of some boxes and heads, (h * N, n, m)."""
    heads, n, m = bias_hnm.shape
    logits_hNnm = bias_hnm.new_empty(heads, q_Ndn.shape[0] // heads, n, m)
    logits_hNnm[:] = bias_hnm[:, None]
    logits = logits_hNnm.view(-1, n, m)
    logits.baddbmm_(q_Ndn.mT, k_Ndm, alpha=q_Ndn.shape[1] ** -0.5)
    if m >= SHORT_ROW:
        return torch.softmax(logits, dim=-1)
    logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(-1, keepdim=True))


def _logit_gradients(grad_weights: Tensor, weights: Tensor) -> Tensor:
    """Undo the softmax."""
    if weights.shape[-1] >= SHORT_ROW:
        return torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    grad_weights.mul_(weights)
    return grad_weights.addcmul_(weights, grad_weights.sum(-1, keepdim=True), value=-1)


def _bias(table_HT: Tensor, kind: BoxClass) -> Tensor:
    """Bias of each query and key of a box, with the sink's as the last, (H, n, m)."""
    bias = _table_at(table_HT, kind.table_rows())
    if not kind.code_p.numel():
        return bias
    pads_Hnp = _table_at(table_HT, kind.pad_table_rows())
    return torch.cat([bias, pads_Hnp.logsumexp(-1, keepdim=True)], dim=-1)


def _add_table_gradient(
    grad_table_HT: Tensor, grad_bias_Hnm: Tensor, table_HT: Tensor, kind: BoxClass
) -> None:
    """Undo `_bias`."""
    n = kind.tokens
    rows = kind.table_rows().flatten()
    grad_table_HT.index_add_(1, rows, grad_bias_Hnm[:, :, :n].flatten(1))
    if kind.code_p.numel():
        share_Hnp = torch.softmax(_table_at(table_HT, kind.pad_table_rows()), dim=-1)
        pads = share_Hnp.mul_(grad_bias_Hnm[:, :, n:]).flatten(1)
        grad_table_HT.index_add_(1, kind.pad_table_rows().flatten(), pads)


def _table_at(table_HT: Tensor, rows: Tensor) -> Tensor:
    return table_HT.index_select(1, rows.flatten()).view(-1, *rows.shape)


def _sink(qkv: Tensor, pad_qkv: Tensor | None) -> Tensor:
    """What a pad token holds, rounded as the tokens are; it is key and value and asks nothing."""
    pad = qkv.new_zeros(qkv.shape[4]) if pad_qkv is None else pad_qkv.to(qkv.dtype)
    return pad.to(compute_dtype(qkv))


@_forward_op.register_fake
def _(
    qkv: Tensor,
    bias_table: Tensor,  # noqa: ARG001 - the operator's signature
    pad_qkv: Tensor | None,  # noqa: ARG001 - the operator's signature
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
    return grad_qkv, grad_table, None if saved[2] is None else grad_pad, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
