"""Triton kernels of shifted-window attention, backward: the bias table T.

    dT[t] = sum of slope_ij over all boxes and pairs with code_i - code_j + origin = t

with the slopes of ../kernel.py. Boxes of one class have the same pairs, so a program of
_bias_kernel keeps one tile of pairs in registers and adds up a share of the class's boxes and maps:

    class   box 0   box 1   ...          tile of pairs (BM queries, BN keys)
            [tile] + [tile] + ...   ->   one sum a program

The sums of all programs meet in the table in one of two ways. Deterministic: they are stored, and
_table_kernel adds for each row of the table those that belong to it, in a fixed order, finding key
j of query i by its code. Fast: each program adds its tile to the table by atomics. The pads share
the slope of their sink as their softmax has it; that needs no pass over the boxes.

Shapes and constants as in the forward kernels.
"""
# ruff: noqa: ANN001, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from vocokernels.window_attention.kernel import load_places, load_rows, tile_mask


@triton.jit(do_not_specialize=["tokens"])
def _bias_kernel(
    qkv_ptr,
    table_ptr,
    work_ptr,
    kinds_ptr,
    boxes_ptr,
    place_ptr,
    code_ptr,
    lse_ptr,
    grad_out_ptr,
    delta_ptr,
    sum_ptr,
    tokens,
    heads,
    positions,
    origin,
    SCALE: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    ATOMIC: tl.constexpr,
    UP: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Slopes of one tile of pairs, added up over a share of a class's boxes and maps.

    `sum` is the gradient of the table, (H, 2 * origin + 1), if ATOMIC, else a tile a program.
    What a tile holds beyond the box is not read.
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    SCALE_2: tl.constexpr = SCALE * 1.4426950408889634
    pid = tl.program_id(0)
    head = pid % heads
    work_ptr += pid // heads * 5
    kind, row, column = tl.load(work_ptr), tl.load(work_ptr + 1), tl.load(work_ptr + 2)
    unit, last_unit = tl.load(work_ptr + 3), tl.load(work_ptr + 4)
    kinds_ptr += 4 * kind
    n, count, first_box = tl.load(kinds_ptr), tl.load(kinds_ptr + 2), tl.load(kinds_ptr + 3)
    channels = heads * D
    qkv_ptr += head * D
    grad_out_ptr += head * D
    place_ptr += kind * positions
    code_ptr += kind * positions

    i = row + tl.arange(0, BM)
    j = column + tl.arange(0, BN)
    mask_i, mask_j = tile_mask(i < n, D, DP), tile_mask(j < n, D, DP)
    place_i, code_i = load_places(place_ptr, code_ptr, i, i < n, 0)
    place_j, code_j = load_places(place_ptr, code_ptr, j, j < n, -origin - 1)
    offset = code_i[:, None] - code_j[None, :]
    bias = tl.load(table_ptr + head * (3 * origin + 2) + origin + offset)
    total = tl.zeros((BM, BN), ACC)
    for step in range(unit, last_unit):
        one_map = (step // count).to(tl.int64)
        box = tl.load(boxes_ptr + first_box + step % count)
        # together, not as an offset for all: the compiler would keep tiles of 64-bit places
        at_i = one_map * tokens + box + place_i
        at_j = one_map * tokens + box + place_j
        q = load_rows(qkv_ptr, at_i, 3 * channels, mask_i, DP, UP, ACC)
        k = load_rows(qkv_ptr + channels, at_j, 3 * channels, mask_j, DP, UP, ACC)
        grad = load_rows(grad_out_ptr, at_i, channels, mask_i, DP, UP, ACC)
        v = load_rows(qkv_ptr + 2 * channels, at_j, 3 * channels, mask_j, DP, UP, ACC)
        statistic = (one_map * heads + head) * tokens + box + place_i
        lse = tl.load(lse_ptr + statistic, mask=i < n, other=float("inf"))
        delta = tl.load(delta_ptr + statistic, mask=i < n, other=0.0)
        logit = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision=PRECISION) * SCALE_2 + bias
        weight = tl.exp2(logit - lse[:, None])
        grad_weight = tl.dot(grad, tl.trans(v), out_dtype=ACC, input_precision=PRECISION)
        total += weight * (grad_weight - delta[:, None])

    if ATOMIC:
        pairs = (i < n)[:, None] & (j < n)[None, :]
        target = sum_ptr + head * (2 * origin + 1) + origin + offset
        tl.atomic_add(target, total, mask=pairs, sem="relaxed")
    else:
        cell = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
        tl.store(sum_ptr + pid.to(tl.int64) * (BM * BN) + cell, total)


@triton.jit(do_not_specialize=["tokens"])
def _sink_slope_kernel(
    slope_ptr,
    kinds_ptr,
    boxes_ptr,
    place_ptr,
    sink_slope_ptr,
    tokens,
    heads,
    positions,
    BM: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """Gradient of each class's sink: slopes (H, T), maps added already, added over its boxes."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    kind, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    kinds_ptr += 4 * kind
    n, count, first_box = tl.load(kinds_ptr), tl.load(kinds_ptr + 2), tl.load(kinds_ptr + 3)
    i = tl.program_id(1) * BM + tl.arange(0, BM)
    place_i = tl.load(place_ptr + kind * positions + i, mask=i < n, other=0).to(tl.int64)
    slope_ptr += head.to(tl.int64) * tokens
    total = tl.zeros((BM,), ACC)
    for step in range(count):
        box = tl.load(boxes_ptr + first_box + step)
        total += tl.load(slope_ptr + box + place_i, mask=i < n, other=0.0)
    tl.store(sink_slope_ptr + (kind * heads + head) * positions + i, total, mask=i < n)


@triton.jit(do_not_specialize=["kinds"])
def _table_kernel(
    sum_ptr,
    sink_ptr,
    sink_slope_ptr,
    table_ptr,
    kinds_ptr,
    shares_ptr,
    code_ptr,
    inverse_ptr,
    grad_table_ptr,
    heads,
    kinds,
    positions,
    origin,
    BT: tl.constexpr,
    BI: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SINK: tl.constexpr,
    ATOMIC: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """Gradient of BT rows of the table for one head: stored tiles, and the pads of each sink.

    At most one key of a query has a given offset: the one with code_j = code_i + origin - t. If
    it is a pad, its share of the sink is exp2(table_t - sink_i). If ATOMIC, the tiles are in the
    table already.
    """
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    head = tl.program_id(0) % heads
    t = tl.program_id(0) // heads * BT + tl.arange(0, BT)
    table_rows = 2 * origin + 1
    target_ptr = grad_table_ptr + head * table_rows + t
    bias = tl.load(table_ptr + head * (3 * origin + 2) + t, mask=t < table_rows, other=0.0)
    # a pad of bias -inf weighs nothing, in a sink that may be -inf itself
    counts = bias > float("-inf")
    bias = tl.where(counts, bias, 0.0)
    found = tl.zeros((BI, BT), ACC)
    for kind in range(kinds):
        n = tl.load(kinds_ptr + 4 * kind)
        first_work, key_tiles = tl.load(shares_ptr + 3 * kind), tl.load(shares_ptr + 3 * kind + 1)
        shares = tl.load(shares_ptr + 3 * kind + 2)
        row_ptr = (kind * heads + head) * positions
        for start in range(0, n, BI):
            i = start + tl.arange(0, BI)
            code_i = tl.load(code_ptr + kind * positions + i, mask=i < n, other=0)
            code_j = code_i[:, None] + origin - t[None, :]
            exists = (i < n)[:, None] & (t < table_rows)[None, :]
            exists = exists & (code_j >= 0) & (code_j <= origin)
            j = tl.load(inverse_ptr + kind * (origin + 1) + code_j, mask=exists, other=-1)
            if SINK:
                sink = tl.load(sink_ptr + row_ptr + i, mask=i < n, other=0.0)
                slope = tl.load(sink_slope_ptr + row_ptr + i, mask=i < n, other=0.0)
                is_pad = (j >= n) & counts[None, :]
                share = tl.exp2(tl.where(is_pad, bias[None, :] - sink[:, None], float("-inf")))
                found += share * slope[:, None]
            if not ATOMIC:
                is_stored = (j >= 0) & (j < n)
                work = first_work + ((i // BM)[:, None] * key_tiles + j // BN) * shares
                cell = (i % BM)[:, None] * BN + j % BN
                for step in range(shares):
                    at = ((work + step).to(tl.int64) * heads + head) * (BM * BN) + cell
                    found += tl.load(sum_ptr + at, mask=is_stored, other=0.0)
    total = tl.sum(found, 0)
    if ATOMIC:
        total += tl.load(target_ptr, mask=t < table_rows, other=0.0)
    tl.store(target_ptr, total, mask=t < table_rows)
