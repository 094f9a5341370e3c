"""Triton kernels of shifted-window attention, forward: one box and head at a time.

Per box (see boxes.py) and head, with query i, keys j of the box, pad tokens p and bias table T:

    logit_ij = q_i . k_j / sqrt(d) + T[code_i - code_j + origin]
    sink_i   = q_i . k_pad / sqrt(d) + log sum_p exp T[code_i - code_p + origin]
    out_i    = (sum_j exp(logit_ij) v_j + exp(sink_i) v_pad) / (sum_j exp(logit_ij) + exp(sink_i))

A program holds BM queries and walks over the box's keys in steps of BN, carrying the maximum, the
sum and the weighted values of what it has seen. The sink is where it starts. Logits are in base 2,
so that a weight costs one exp2. No scores, mask or dense bias reach the memory: `out` and `lse`,
the logarithm of each query's sum, are all that is written.

              keys 0 ..    BN ..     2 BN ..  n
    BM     sink [  tile  ][  tile  ][ tile |...]   masked beyond n
    queries     maximum, sum, values ------------> out, lse

Shapes: B maps of T tokens, H heads of d channels, C = H * d. In the kernels D is d and DP the next
power of two, whose other channels are masked. A work is one tile of rows of one box; programs are
ordered map, work, head, so that those running at one time read the same tokens. Sums are float32,
float64 for float64 inputs.

The table is (H, 3 * origin + 2): its 2 * origin + 1 rows in base 2, transposed, and -inf behind
them. A key beyond the box has the code -origin - 1, which leads there, so that its logit is -inf
of itself: a mask of the whole tile would cost a fourth of the registers.

The odd choice: UP turns operands into the type of the sums before each product. Triton's
interpreter silently multiplies bfloat16 as integers, and there alone UP is set for it.
"""
# ruff: noqa: ANN001, ANN201, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl


@triton.jit
def find_work(work_ptr, heads, works):
    """Map and head of this program; place, class, first row, rows and slot of its work."""
    pid = tl.program_id(0)
    work = pid // heads % works
    work_ptr += work * 5
    return (
        (pid // heads // works).to(tl.int64),
        pid % heads,
        tl.load(work_ptr).to(tl.int64),
        tl.load(work_ptr + 1),
        tl.load(work_ptr + 2),
        tl.load(work_ptr + 3),
        tl.load(work_ptr + 4),
    )


@triton.jit
def load_places(place_ptr, code_ptr, row, valid, beyond):
    """Where rows of a box lie behind its first token, and their codes; `beyond` where not valid."""
    place = tl.load(place_ptr + row, mask=valid, other=0).to(tl.int64)
    return place, tl.load(code_ptr + row, mask=valid, other=beyond)


@triton.jit
def tile_mask(valid, D: tl.constexpr, DP: tl.constexpr):
    """Which numbers of a tile of rows exist."""
    mask = valid[:, None]
    if D != DP:
        mask = mask & (tl.arange(0, DP) < D)[None, :]
    return mask


@triton.jit
def load_rows(ptr, place, stride, mask, DP: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr):
    """Rows of one head, zeros where the mask is."""
    tile = tl.load(ptr + place[:, None] * stride + tl.arange(0, DP)[None, :], mask=mask, other=0.0)
    if UP:
        tile = tile.to(ACC)
    return tile


@triton.jit
def load_pad(ptr, D: tl.constexpr, DP: tl.constexpr, UP: tl.constexpr, ACC: tl.constexpr):
    """Key or value of the pads of one head."""
    channel = tl.arange(0, DP)
    pad = tl.load(ptr + channel, mask=channel < D, other=0.0)
    if UP:
        pad = pad.to(ACC)
    return pad


@triton.jit
def _sink_kernel(
    table_ptr,
    kinds_ptr,
    code_ptr,
    sink_ptr,
    heads,
    positions,
    origin,
    BM: tl.constexpr,
    BN: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """Share of the bias in each class's sink: log2 of the sum over its pads; -inf without pads."""
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    kind, head, row = tl.program_id(0) // heads, tl.program_id(0) % heads, tl.program_id(1) * BM
    n, total = tl.load(kinds_ptr + 4 * kind), tl.load(kinds_ptr + 4 * kind + 1)
    code_ptr += kind * positions
    table_ptr += head * (3 * origin + 2) + origin
    i = row + tl.arange(0, BM)
    code_i = tl.load(code_ptr + i, mask=i < n, other=0)
    high = tl.full((BM,), float("-inf"), ACC)
    mass = tl.zeros((BM,), ACC)
    for start in range(n, total, BN):
        p = start + tl.arange(0, BN)
        code_p = tl.load(code_ptr + p, mask=p < total, other=0)
        bias = tl.load(table_ptr + (code_i[:, None] - code_p[None, :]))
        bias = tl.where((p < total)[None, :], bias, float("-inf"))
        higher = tl.maximum(high, tl.max(bias, 1))
        # all of a row may be -inf, and -inf less itself is no number
        level = tl.where(higher == float("-inf"), 0.0, higher)
        mass = mass * tl.exp2(high - level) + tl.sum(tl.exp2(bias - level[:, None]), 1)
        high = higher
    sink = high + tl.log2(tl.where(high == float("-inf"), 1.0, mass))
    tl.store(sink_ptr + (kind * heads + head) * positions + i, sink, mask=i < n)


# numbers that vary from map to map: a kernel for each that is 1 or a multiple of 16 gains nothing
@triton.jit(do_not_specialize=["tokens", "works"])
def _forward_kernel(
    qkv_ptr,
    pad_ptr,
    table_ptr,
    sink_ptr,
    work_ptr,
    place_ptr,
    code_ptr,
    out_ptr,
    lse_ptr,
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
    SINK: tl.constexpr,
    UP: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ACC: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    SCALE_2: tl.constexpr = SCALE * 1.4426950408889634
    one_map, head, box, kind, start, n, _ = find_work(work_ptr, heads, works)
    channels = heads * D
    qkv_ptr += (one_map * tokens + box) * (3 * channels) + head * D
    out_ptr += (one_map * tokens + box) * channels + head * D
    lse_ptr += (one_map * heads + head) * tokens + box
    place_ptr += kind * positions
    code_ptr += kind * positions
    table_ptr += head * (3 * origin + 2) + origin

    i = start + tl.arange(0, BM)
    mask_i = tile_mask(i < n, D, DP)
    place_i, code_i = load_places(place_ptr, code_ptr, i, i < n, 0)
    q = load_rows(qkv_ptr, place_i, 3 * channels, mask_i, DP, UP, ACC)
    if SINK:
        pad_ptr += channels + head * D
        k_pad = load_pad(pad_ptr, D, DP, UP, ACC).to(ACC)
        v_pad = load_pad(pad_ptr + channels, D, DP, UP, ACC).to(ACC)
        sink = tl.load(sink_ptr + (kind * heads + head) * positions + i, mask=i < n, other=0.0)
        high = tl.sum(q.to(ACC) * k_pad[None, :], 1) * SCALE_2 + sink
        mass = tl.full((BM,), 1.0, ACC)
        values = tl.zeros((BM, DP), ACC) + v_pad[None, :]
    else:
        high = tl.full((BM,), float("-inf"), ACC)
        mass = tl.zeros((BM,), ACC)
        values = tl.zeros((BM, DP), ACC)

    for first in range(0, n, BN):
        j = first + tl.arange(0, BN)
        mask_j = tile_mask(j < n, D, DP)
        place_j, code_j = load_places(place_ptr, code_ptr, j, j < n, -origin - 1)
        k = load_rows(qkv_ptr + channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
        v = load_rows(qkv_ptr + 2 * channels, place_j, 3 * channels, mask_j, DP, UP, ACC)
        logit = tl.dot(q, tl.trans(k), out_dtype=ACC, input_precision=PRECISION) * SCALE_2
        # after the product: fetched before it, a tile of bias lives through it
        logit += tl.load(table_ptr + (code_i[:, None] - code_j[None, :]))
        higher = tl.maximum(high, tl.max(logit, 1))
        # a table may hold -inf: a row of nothing else must stay a number until a key comes
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(logit - level[:, None])
        fade = tl.exp2(high - level)
        mass = mass * fade + tl.sum(weight, 1)
        values = tl.dot(
            weight.to(v.dtype), v, values * fade[:, None], out_dtype=ACC, input_precision=PRECISION
        )
        high = higher

    out = (values / mass[:, None]).to(out_ptr.dtype.element_ty)
    channel = tl.arange(0, DP)
    tl.store(out_ptr + place_i[:, None] * channels + channel[None, :], out, mask=mask_i)
    tl.store(lse_ptr + place_i, high + tl.log2(mass), mask=i < n)


# True where TRITON_INTERPRET was 1 when this file was imported
INTERPRETED = not isinstance(_forward_kernel, triton.JITFunction)
