"""The losses of VoCo on a GPU: two kernels forward, two backward, for all three terms.

With c the cosines and s = relu(c) of `reference.py`, volume b and its partner p = b + 1 (mod B),
there are four tables of cosines a volume:

    0  intra        x_student[b]  with bases_teacher[b]        its labels are given
    1  inter        x_student[b]  with bases_student[p]        its labels are the next table
    2  labels       x_teacher[b]  with bases_teacher[p]
    3  regulariser  bases_student[b]  with themselves          mean of s^2 over pairs j < k

First kernel: a program a tile of a table, once along the channels. Second: a program a volume,
the sums of the formula over its tables. Backward: a program a tile of a gradient, with G = dL/dc
worked out from the tables on the way:

    dx_n = (sum_k G_nk b_k / |b_k|  -  (sum_k G_nk c_nk) x_n / |x_n|) / |x_n|

for the crops (intra and inter), and likewise for the bases (regulariser, and inter of the volume
*before*). Each number is written by one program: no atomics, always the same sums.

    saved for it    cosine (B, 3N + K, K)    norm (B, N + 2K)    count (B, 4)

All is float32 inside (float64 if an embedding is). Crops and bases may be any number.
"""
# ruff: noqa: ANN001, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from vocokernels.crop_similarity.kernel import add_pull, cosine_tile, store_gradient


@triton.jit(do_not_specialize=["B", "N", "K"])
def _cosines_kernel(
    x_student_ptr,
    x_teacher_ptr,
    base_student_ptr,
    base_teacher_ptr,
    cosine_ptr,
    norm_ptr,
    B,
    N,
    K,
    D,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    volume = tl.program_id(0).to(tl.int64)
    table = tl.program_id(1)
    row_ptr, base_ptr, base_volume, rows = x_student_ptr, base_teacher_ptr, volume, N
    if table == 1:
        base_ptr, base_volume = base_student_ptr, (volume + 1) % B
    if table == 2:
        row_ptr, base_volume = x_teacher_ptr, (volume + 1) % B
    if table == 3:
        row_ptr, base_ptr, rows = base_student_ptr, base_student_ptr, K
    across = tl.cdiv(K, BLOCK)
    first_row, first_base = tl.program_id(2) // across * BLOCK, tl.program_id(2) % across * BLOCK
    n, k = first_row + tl.arange(0, BLOCK), first_base + tl.arange(0, BLOCK)
    cosine, row_norm, base_norm = cosine_tile(
        row_ptr, volume, rows, base_ptr, base_volume, K, D, n, k, FLOOR, BLOCK, BLOCK_D, ACC
    )
    inside = (n < rows)[:, None] & (k < K)[None, :]
    place = (volume * (3 * N + K) + table * N + n)[:, None] * K + k[None, :]
    tl.store(cosine_ptr + place, cosine, mask=inside)
    # lengths: of student crops, of student bases, of teacher bases
    of_rows = (n < rows) & (first_base == 0)
    of_bases = (k < K) & (first_row == 0) & (table == 0)
    norm_ptr += volume * (N + 2 * K)
    tl.store(norm_ptr + tl.where(table == 3, N, 0) + n, row_norm, mask=of_rows & (table % 3 == 0))
    tl.store(norm_ptr + N + K + k, base_norm, mask=of_bases)


@triton.jit
def _rectified(cosine, CLAMPED: tl.constexpr):
    """Similarity; comparisons instead of a maximum, which would hide NaN."""
    similarity = tl.where(cosine <= 0.0, 0.0, cosine)
    if CLAMPED:
        similarity = tl.where(similarity > 1.0, 1.0, similarity)
    return similarity


@triton.jit
def _passes(cosine, CLAMPED: tl.constexpr):
    """Where the gradient passes `_rectified`."""
    return (cosine > 0.0) & (cosine <= 1.0) if CLAMPED else cosine > 0.0


@triton.jit
def _position_loss(
    label_ptr,
    cosine_ptr,
    cells,
    CLAMPED: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
    LABEL_IS_COSINE: tl.constexpr,
):
    """Loss over one table, the sum of its labels, and how many are 0."""
    positive = tl.zeros((BLOCK,), ACC)
    negative = tl.zeros((BLOCK,), ACC)
    labels = tl.zeros((BLOCK,), ACC)
    absents = tl.zeros((BLOCK,), ACC)
    for start in range(0, cells, BLOCK):
        cell = start + tl.arange(0, BLOCK)
        inside = cell < cells
        label = tl.load(label_ptr + cell, mask=inside, other=0.0).to(ACC)
        if LABEL_IS_COSINE:
            label = _rectified(label, CLAMPED)
        similarity = _rectified(tl.load(cosine_ptr + cell, mask=inside, other=0.0), CLAMPED)
        absent = inside & (label == 0.0)
        agreement = label * tl.log(1.0 - tl.abs(label - similarity) + EPSILON)
        positive += tl.where(inside, agreement, 0.0)
        negative += tl.where(absent, tl.log(1.0 - similarity + EPSILON), 0.0)
        labels += label
        absents += absent.to(ACC)
    label_sum, absent_count = tl.sum(labels, 0), tl.sum(absents, 0)
    loss = -tl.sum(positive, 0) / (label_sum + EPSILON)
    return loss - tl.sum(negative, 0) / (absent_count + EPSILON), label_sum, absent_count


@triton.jit(do_not_specialize=["B", "N", "K"])
def _terms_kernel(
    label_ptr,
    cosine_ptr,
    term_ptr,
    count_ptr,
    B,
    N,
    K,
    HAS_INTER: tl.constexpr,
    CLAMPED: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK_CELLS: tl.constexpr,
    ACC: tl.constexpr,
):
    volume = tl.program_id(0).to(tl.int64)
    cells = N * K
    cosine_ptr += volume * (3 * N + K) * K
    loss, labels, absents = _position_loss(
        label_ptr + volume * cells,
        cosine_ptr,
        cells,
        CLAMPED,
        EPSILON,
        BLOCK_CELLS,
        ACC,
        LABEL_IS_COSINE=False,
    )
    tl.store(term_ptr + volume, loss)
    tl.store(count_ptr + 4 * volume, labels)
    tl.store(count_ptr + 4 * volume + 1, absents)
    inter_ptr, target_ptr = cosine_ptr + cells, cosine_ptr + 2 * cells
    loss, labels, absents = _position_loss(
        target_ptr, inter_ptr, cells, CLAMPED, EPSILON, BLOCK_CELLS, ACC, LABEL_IS_COSINE=True
    )
    tl.store(term_ptr + B + volume, loss if HAS_INTER else tl.zeros_like(loss))
    tl.store(count_ptr + 4 * volume + 2, labels)
    tl.store(count_ptr + 4 * volume + 3, absents)
    squares = tl.zeros((BLOCK_CELLS,), ACC)
    for start in range(0, K * K, BLOCK_CELLS):
        cell = start + tl.arange(0, BLOCK_CELLS)
        is_pair = (cell // K < cell % K) & (cell < K * K)
        cosine = tl.load(cosine_ptr + 3 * cells + cell, mask=is_pair, other=0.0)
        similarity = _rectified(cosine, CLAMPED)
        squares += similarity * similarity
    pairs = tl.maximum(1, K * (K - 1) // 2)
    tl.store(term_ptr + 2 * B + volume, tl.sum(squares, 0) / pairs)


@triton.jit
def _position_slope(label, cosine, count_ptr, inside, CLAMPED: tl.constexpr, EPSILON: tl.constexpr):
    """Derivative of `_position_loss` by the cosines of a tile."""
    similarity = _rectified(cosine, CLAMPED)
    # the sign of label - similarity, 0 where they are equal
    towards = (label > similarity).to(label.dtype) - (label < similarity).to(label.dtype)
    agreement = label * towards / (1.0 - tl.abs(label - similarity) + EPSILON)
    absence = tl.where(label == 0.0, 1.0 / (1.0 - similarity + EPSILON), 0.0)
    slope = absence / (tl.load(count_ptr + 1) + EPSILON)
    slope -= agreement / (tl.load(count_ptr) + EPSILON)
    return tl.where(inside & _passes(cosine, CLAMPED), slope, 0.0)


@triton.jit
def _inter_slope(
    cosine_ptr,
    count_ptr,
    grad_ptr,
    volume,
    table,
    inside,
    B,
    N,
    K,
    CLAMPED: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """dL/dc of the inter term of a volume, and c."""
    cosine_ptr += (volume * (3 * N + K) + N) * K
    target = _rectified(tl.load(cosine_ptr + N * K + table, mask=inside, other=0.0), CLAMPED)
    cosine = tl.load(cosine_ptr + table, mask=inside, other=0.0)
    count_ptr += 4 * volume + 2
    slope = _position_slope(target, cosine, count_ptr, inside, CLAMPED, EPSILON)
    return slope * tl.load(grad_ptr + B + volume), cosine


@triton.jit(do_not_specialize=["B", "N", "K"])
def _crops_bwd_kernel(
    grad_ptr,
    x_student_ptr,
    base_student_ptr,
    base_teacher_ptr,
    label_ptr,
    cosine_ptr,
    norm_ptr,
    count_ptr,
    x_grad_ptr,
    B,
    N,
    K,
    D,
    HAS_INTER: tl.constexpr,
    CLAMPED: tl.constexpr,
    EPSILON: tl.constexpr,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    """Intra and inter."""
    volume = tl.program_id(0).to(tl.int64)
    partner = (volume + 1) % B
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    norms = N + 2 * K
    towards = tl.zeros((BLOCK, BLOCK_D), ACC)
    along = tl.zeros((BLOCK,), ACC)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = (n < N)[:, None] & (k < K)[None, :]
        table = n[:, None] * K + k[None, :]
        label = tl.load(label_ptr + volume * N * K + table, mask=inside, other=0.0).to(ACC)
        here_ptr = cosine_ptr + volume * (3 * N + K) * K
        cosine = tl.load(here_ptr + table, mask=inside, other=0.0)
        slope = _position_slope(label, cosine, count_ptr + 4 * volume, inside, CLAMPED, EPSILON)
        slope *= tl.load(grad_ptr + volume)
        along += tl.sum(slope * cosine, 1)
        teacher_ptr = norm_ptr + volume * norms + N + K
        towards = add_pull(towards, slope, base_teacher_ptr, teacher_ptr, volume, K, D, k, d, ACC)
        if HAS_INTER:
            slope, cosine = _inter_slope(
                cosine_ptr, count_ptr, grad_ptr, volume, table, inside, B, N, K, CLAMPED, EPSILON
            )
            along += tl.sum(slope * cosine, 1)
            next_ptr = norm_ptr + partner * norms + N
            towards = add_pull(towards, slope, base_student_ptr, next_ptr, partner, K, D, k, d, ACC)
    own_ptr = norm_ptr + volume * norms
    store_gradient(
        x_grad_ptr, x_student_ptr, own_ptr, towards, along, volume, N, D, n, d, FLOOR, ACC
    )


@triton.jit(do_not_specialize=["B", "N", "K"])
def _bases_bwd_kernel(
    grad_ptr,
    x_student_ptr,
    base_student_ptr,
    cosine_ptr,
    norm_ptr,
    count_ptr,
    base_grad_ptr,
    B,
    N,
    K,
    D,
    HAS_INTER: tl.constexpr,
    CLAMPED: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    EPSILON: tl.constexpr,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    """Regulariser, and inter of the volume before."""
    volume = tl.program_id(0).to(tl.int64)
    before = (volume + B - 1) % B
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    norms = N + 2 * K
    own_ptr = norm_ptr + volume * norms + N
    towards = tl.zeros((BLOCK, BLOCK_D), ACC)
    along = tl.zeros((BLOCK,), ACC)
    # a pair counts once, and pulls its first, or both
    weight = tl.load(grad_ptr + 2 * B + volume) * 2.0 / tl.maximum(1, K * (K - 1) // 2)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        is_pair = (j[:, None] != k[None, :]) if SYMMETRIC else (j[:, None] < k[None, :])
        inside = is_pair & (j < K)[:, None] & (k < K)[None, :]
        place = (volume * (3 * N + K) + 3 * N + j)[:, None] * K + k[None, :]
        cosine = tl.load(cosine_ptr + place, mask=inside, other=0.0)
        slope = weight * _rectified(cosine, CLAMPED)
        slope = tl.where(inside & _passes(cosine, CLAMPED), slope, 0.0)
        along += tl.sum(slope * cosine, 1)
        towards = add_pull(towards, slope, base_student_ptr, own_ptr, volume, K, D, k, d, ACC)
    if HAS_INTER:
        for start in range(0, N, BLOCK):
            n = start + tl.arange(0, BLOCK)
            inside = (j < K)[:, None] & (n < N)[None, :]
            table = n[None, :] * K + j[:, None]
            slope, cosine = _inter_slope(
                cosine_ptr, count_ptr, grad_ptr, before, table, inside, B, N, K, CLAMPED, EPSILON
            )
            along += tl.sum(slope * cosine, 1)
            crop_ptr = norm_ptr + before * norms
            towards = add_pull(towards, slope, x_student_ptr, crop_ptr, before, N, D, n, d, ACC)
    store_gradient(
        base_grad_ptr, base_student_ptr, own_ptr, towards, along, volume, K, D, j, d, FLOOR, ACC
    )
