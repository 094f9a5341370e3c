"""Triton kernels of shifted-window attention, backward: q, k, v.

With weights a_ij = exp2(logit_ij - lse_i) computed again and the gradient g of `out`:

    delta_i = g_i . out_i
    slope_ij = a_ij (g_i . v_j - delta_i)            gradient of logit_ij, the sink among the keys
    dq_i = sum_j slope_ij k_j / sqrt(d)              _query_kernel: BM queries, all keys
    dk_j = sum_i slope_ij q_i / sqrt(d)              _key_kernel: BN keys, all queries
    dv_j = sum_i a_ij g_i

The gradient of the bias table, which couples all boxes, is in table/kernel.py. Shapes and
constants as in the forward kernels.
"""
# ruff: noqa: ANN001, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from vocokernels.window_attention.kernel import (
    find_work,
    load_pad,
    load_places,
    load_rows,
    tile_mask,
)


@triton.jit(do_not_specialize=["tokens", "works", "slots"])
def _query_kernel(  # noqa: PLR0915 - one pass gives q, delta and the sink
    qkv_ptr,
    pad_ptr,
    table_ptr,
    sink_ptr,
    work_ptr,
    place_ptr,
    code_ptr,
    out_ptr,
    lse_ptr,
    grad_out_ptr,
    delta_ptr,
    grad_qkv_ptr,
    slope_ptr,
    grad_pad_ptr,
    tokens,
    heads,
    works,
    positions,
    origin,
    slots,
    SCALE: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SINK: tl.constexpr,
    UP: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of q, `delta` for the kernels after it, and the sink's share of k_pad and v_pad."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    SCALE_2: tl.constexpr = SCALE * 1.4426950408889634
    one_map, head, box, kind, start, n, slot = find_work(work_ptr, heads, works)
    channels = heads * D
    qkv_ptr += (one_map * tokens + box) * (3 * channels) + head * D
    grad_qkv_ptr += (one_map * tokens + box) * (3 * channels) + head * D
    out_ptr += (one_map * tokens + box) * channels + head * D
    grad_out_ptr += (one_map * tokens + box) * channels + head * D
    lse_ptr += (one_map * heads + head) * tokens + box
    delta_ptr += (one_map * heads + head) * tokens + box
    place_ptr += kind * positions
    code_ptr += kind * positions
    table_ptr += head * (3 * origin + 2) + origin

    channel = tl.arange(0, DP)
    i = start + tl.arange(0, BM)
    mask_i = tile_mask(i < n, D, DP)
    place_i, code_i = load_places(place_ptr, code_ptr, i, i < n, 0)
    q = load_rows(qkv_ptr, place_i, 3 * channels, mask_i, DP, UP, ACC)
    grad = load_rows(grad_out_ptr, place_i, channels, mask_i, DP, UP, ACC)
    out = load_rows(out_ptr, place_i, channels, mask_i, DP, UP, ACC)
    # a masked query must weigh nothing
    lse = tl.load(lse_ptr + place_i, mask=i < n, other=float("inf"))
    delta = tl.sum(grad.to(ACC) * out.to(ACC), 1)
    tl.store(delta_ptr + place_i, delta, mask=i < n)
    grad_q = tl.zeros((BM, DP), ACC)
    if SINK:
        pad_ptr += channels + head * D
        k_pad = load_pad(pad_ptr, D, DP, UP, ACC).to(ACC)
        v_pad = load_pad(pad_ptr + channels, D, DP, UP, ACC).to(ACC)
        sink_ptr += (kind * heads + head) * positions + i
        sink = tl.load(sink_ptr, mask=i < n, other=float("-inf"))
        sink_weight = tl.exp2(tl.sum(q.to(ACC) * k_pad[None, :], 1) * SCALE_2 + sink - lse)
        sink_slope = sink_weight * (tl.sum(grad.to(ACC) * v_pad[None, :], 1) - delta)
        slope_ptr += (one_map * heads + head) * tokens + box
        tl.store(slope_ptr + place_i, sink_slope, mask=i < n)
        grad_q += sink_slope[:, None] * k_pad[None, :]
        share_ptr = grad_pad_ptr + ((one_map * slots + slot) * heads + head) * (2 * D) + channel
        is_share = (channel < D) & (slot >= 0)
        share = tl.sum(sink_slope[:, None] * q.to(ACC), 0) * SCALE
        tl.store(share_ptr, share, mask=is_share)
        tl.store(share_ptr + D, tl.sum(sink_weight[:, None] * grad.to(ACC), 0), mask=is_share)

    for first in range(0, n, BN):
        j = first + tl.arange(0, BN)
        mask_j = tile_mask(j < n, D, DP)
        place_j, code_j = load_places(place_ptr, code_ptr, j, j < n, -origin - 1)
        k = load_rows(qkv_ptr + channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
        v = load_rows(qkv_ptr + 2 * channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
        logit = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision=PRECISION) * SCALE_2
        # after the product: fetched before it, a tile of bias lives through it
        logit += tl.load(table_ptr + (code_i[:, None] - code_j[None, :]))
        weight = tl.exp2(logit - lse[:, None])
        grad_weight = tl.dot(grad, tl.trans(v), out_dtype=ACC, input_precision=PRECISION)
        slope = (weight * (grad_weight - delta[:, None])).to(k.dtype)
        grad_q = tl.dot(slope, k, grad_q, out_dtype=ACC, input_precision=PRECISION)

    target = grad_qkv_ptr + place_i[:, None] * (3 * channels) + channel[None, :]
    tl.store(target, (grad_q * SCALE).to(grad_qkv_ptr.dtype.element_ty), mask=mask_i)


@triton.jit(do_not_specialize=["tokens", "works"])
def _key_kernel(
    qkv_ptr,
    table_ptr,
    work_ptr,
    place_ptr,
    code_ptr,
    lse_ptr,
    grad_out_ptr,
    delta_ptr,
    grad_qkv_ptr,
    tokens,
    heads,
    works,
    positions,
    origin,
    SCALE: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    UP: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients of k and v. Tiles lie transposed, keys first: no product needs its left turned."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    SCALE_2: tl.constexpr = SCALE * 1.4426950408889634
    one_map, head, box, kind, start, n, _ = find_work(work_ptr, heads, works)
    channels = heads * D
    qkv_ptr += (one_map * tokens + box) * (3 * channels) + head * D
    grad_qkv_ptr += (one_map * tokens + box) * (3 * channels) + head * D
    grad_out_ptr += (one_map * tokens + box) * channels + head * D
    lse_ptr += (one_map * heads + head) * tokens + box
    delta_ptr += (one_map * heads + head) * tokens + box
    place_ptr += kind * positions
    code_ptr += kind * positions
    table_ptr += head * (3 * origin + 2) + origin

    j = start + tl.arange(0, BN)
    mask_j = tile_mask(j < n, D, DP)
    place_j, code_j = load_places(place_ptr, code_ptr, j, j < n, -origin - 1)
    k = load_rows(qkv_ptr + channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
    v = load_rows(qkv_ptr + 2 * channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
    grad_k = tl.zeros((BN, DP), ACC)
    grad_v = tl.zeros((BN, DP), ACC)
    for first in range(0, n, BM):
        i = first + tl.arange(0, BM)
        mask_i = tile_mask(i < n, D, DP)
        place_i, code_i = load_places(place_ptr, code_ptr, i, i < n, 0)
        q = load_rows(qkv_ptr, place_i, 3 * channels, mask_i, DP, UP, ACC)
        grad = load_rows(grad_out_ptr, place_i, channels, mask_i, DP, UP, ACC)
        # a masked query must weigh nothing
        lse = tl.load(lse_ptr + place_i, mask=i < n, other=float("inf"))
        delta = tl.load(delta_ptr + place_i, mask=i < n, other=0.0)
        logit = tl.dot(k, tl.trans(q), out_dtype=ACC, input_precision=PRECISION) * SCALE_2
        # after the product: fetched before it, a tile of bias lives through it
        logit += tl.load(table_ptr + (code_i[None, :] - code_j[:, None]))
        weight = tl.exp2(logit - lse[None, :])
        grad_v = tl.dot(
            weight.to(grad.dtype), grad, grad_v, out_dtype=ACC, input_precision=PRECISION
        )
        grad_weight = tl.dot(v, tl.trans(grad), out_dtype=ACC, input_precision=PRECISION)
        slope = (weight * (grad_weight - delta[None, :])).to(q.dtype)
        grad_k = tl.dot(slope, q, grad_k, out_dtype=ACC, input_precision=PRECISION)

    target = grad_qkv_ptr + place_j[:, None] * (3 * channels) + tl.arange(0, DP)[None, :]
    dtype = grad_qkv_ptr.dtype.element_ty
    tl.store(target + channels, (grad_k * SCALE).to(dtype), mask=mask_j)
    tl.store(target + 2 * channels, grad_v.to(dtype), mask=mask_j)
