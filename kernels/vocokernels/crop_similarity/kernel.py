"""The cosine of embeddings on a GPU, forward and backward, in one pass each.

    c_nk = x_n . b_k / (|x_n| |b_k|)      with |.| at least 1e-8
    dx_n = (sum_k g_nk b_k / |b_k|  -  (sum_k g_nk c_nk) x_n / |x_n|) / |x_n|

and the same for bases with rows and columns of g and c exchanged: one kernel serves both. A row
shorter than 1e-8 is divided by that constant, so the second part falls away.

    forward: a program a tile of c             backward: a program a tile of dx
                bases                                      channels
            +---+---+---+                              +---+---+---+
      crops |   |   |   |  over all channels     crops |   |   |   |  over all bases
            +---+---+---+                              +---+---+---+

All sums are in float32 (float64 if an embedding is) and their order is fixed.
"""
# ruff: noqa: ANN001, ANN201, ANN202 - the compiler gives a kernel's arguments their types
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vocokernels.crop_similarity.reference import NORM_FLOOR
from vocokernels.launching import launch
from vocokernels.precision import compute_dtype

# crops and bases are few; 16 is the least that a product takes
BLOCK_ROWS = 16
# channels of a step forward and of a program backward, and steps whose loads are under way:
# no spill, and the most warps a multiprocessor, by benchmarks/static_gpu.py
BLOCK_CHANNELS = 32
NUM_STAGES = 3
NUM_WARPS = 4


@triton.jit
def load_rows(ptr, volume, rows, channels, row, channel, ACC: tl.constexpr):
    """A tile of a contiguous (volume, row, channel) array, 0 outside of it."""
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    place = (volume * rows + row)[:, None] * channels + channel[None, :]
    return tl.load(ptr + place, mask=inside, other=0.0).to(ACC)


@triton.jit
def cosine_tile(
    row_ptr,
    row_volume,
    rows,
    other_ptr,
    other_volume,
    others,
    D,
    n,
    k,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    """Cosines of rows n and others k, and their lengths, at least FLOOR."""
    product = tl.zeros((BLOCK, BLOCK), ACC)
    row_square = tl.zeros((BLOCK,), ACC)
    other_square = tl.zeros((BLOCK,), ACC)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        row = load_rows(row_ptr, row_volume, rows, D, n, d, ACC)
        other = load_rows(other_ptr, other_volume, others, D, k, d, ACC)
        product = tl.dot(row, tl.trans(other), product, input_precision="ieee", out_dtype=ACC)
        row_square += tl.sum(row * row, 1)
        other_square += tl.sum(other * other, 1)
    row_norm = _floored_root(row_square, FLOOR)
    other_norm = _floored_root(other_square, FLOOR)
    # one division after the other: the product of two small lengths could vanish
    return product / row_norm[:, None] / other_norm[None, :], row_norm, other_norm


@triton.jit
def _floored_root(square, FLOOR: tl.constexpr):
    """A comparison instead of a maximum, which would hide NaN."""
    root = tl.sqrt(square)
    return tl.where(root < FLOOR, tl.full(root.shape, FLOOR, root.dtype), root)


@triton.jit
def add_pull(towards, slope, ptr, norm_ptr, volume, rows, D, row, d, ACC: tl.constexpr):
    """Add what rows of length 1 give to a gradient; `norm_ptr` is where their volume's begin."""
    norm = tl.load(norm_ptr + row, mask=row < rows, other=1.0)
    unit = load_rows(ptr, volume, rows, D, row, d, ACC) / norm[:, None]
    return tl.dot(slope, unit, towards, input_precision="ieee", out_dtype=ACC)


@triton.jit
def store_gradient(
    grad_ptr,
    ptr,
    norm_ptr,
    towards,
    along,
    volume,
    rows,
    D,
    row,
    d,
    FLOOR: tl.constexpr,
    ACC: tl.constexpr,
):
    """Store the gradient of rows: the pull of the others, less its part along the row itself."""
    norm = tl.load(norm_ptr + row, mask=row < rows, other=1.0)
    unit = load_rows(ptr, volume, rows, D, row, d, ACC) / norm[:, None]
    # a row shorter than the floor was divided by a constant
    along = tl.where(norm == tl.full(norm.shape, FLOOR, ACC), 0.0, along)
    grad = (towards - along[:, None] * unit) / norm[:, None]
    inside = (row < rows)[:, None] & (d < D)[None, :]
    place = (volume * rows + row)[:, None] * D + d[None, :]
    tl.store(grad_ptr + place, grad.to(grad_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["N", "K"])
def _similarity_fwd_kernel(
    x_ptr,
    base_ptr,
    cosine_ptr,
    x_norm_ptr,
    base_norm_ptr,
    N,
    K,
    D,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    volume = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    k = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    cosine, x_norm, base_norm = cosine_tile(
        x_ptr, volume, N, base_ptr, volume, K, D, n, k, FLOOR, BLOCK, BLOCK_D, ACC
    )
    inside = (n < N)[:, None] & (k < K)[None, :]
    tl.store(cosine_ptr + (volume * N + n)[:, None] * K + k[None, :], cosine, mask=inside)
    tl.store(x_norm_ptr + volume * N + n, x_norm, mask=(n < N) & (tl.program_id(2) == 0))
    tl.store(base_norm_ptr + volume * K + k, base_norm, mask=(k < K) & (tl.program_id(1) == 0))


@triton.jit(do_not_specialize=["N", "K", "stride_n", "stride_k"])
def _similarity_bwd_kernel(
    grad_ptr,
    cosine_ptr,
    row_ptr,
    other_ptr,
    row_norm_ptr,
    other_norm_ptr,
    row_grad_ptr,
    N,
    K,
    D,
    stride_n,
    stride_k,
    FLOOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ACC: tl.constexpr,
):
    """Gradient of N rows that were compared with K others."""
    volume = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    towards = tl.zeros((BLOCK, BLOCK_D), ACC)
    along = tl.zeros((BLOCK,), ACC)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = (n < N)[:, None] & (k < K)[None, :]
        place = volume * N * K + n[:, None] * stride_n + k[None, :] * stride_k
        grad = tl.load(grad_ptr + place, mask=inside, other=0.0)
        along += tl.sum(grad * tl.load(cosine_ptr + place, mask=inside, other=0.0), 1)
        norm_ptr = other_norm_ptr + volume * K
        towards = add_pull(towards, grad, other_ptr, norm_ptr, volume, K, D, k, d, ACC)
    norm_ptr = row_norm_ptr + volume * N
    store_gradient(row_grad_ptr, row_ptr, norm_ptr, towards, along, volume, N, D, n, d, FLOOR, ACC)


def crop_similarity_triton(x_BND: Tensor, bases_BKD: Tensor) -> Tensor:
    """Arguments as for `vocokernels.crop_similarity`, checked; embeddings on a GPU."""
    cosine_BNK: Tensor = _forward_op(x_BND, bases_BKD)[0]
    return cosine_BNK


def tile(dtype: torch.dtype) -> dict[str, Any]:
    """How a kernel is launched for a type of computation."""
    return {
        "FLOOR": NORM_FLOOR,
        "BLOCK": BLOCK_ROWS,
        "BLOCK_D": BLOCK_CHANNELS,
        "ACC": compute_type(dtype),
        "num_warps": NUM_WARPS,
        "num_stages": NUM_STAGES,
    }


def compute_type(dtype: torch.dtype) -> object:
    """The same type in Triton's words."""
    return tl.float64 if dtype == torch.float64 else tl.float32


@torch.library.custom_op("vocokernels::crop_similarity_triton", mutates_args=())
def _forward_op(x_BND: Tensor, bases_BKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines, and the lengths of crops and bases for the backward pass."""
    x_BND, bases_BKD = x_BND.contiguous(), bases_BKD.contiguous()
    (volumes, crops, channels), bases = x_BND.shape, bases_BKD.shape[1]
    cosine_BNK, x_norm_BN, base_norm_BK = _like_forward(x_BND, bases_BKD)
    grid = (volumes, triton.cdiv(crops, BLOCK_ROWS), triton.cdiv(bases, BLOCK_ROWS))
    launch(
        _similarity_fwd_kernel,
        grid,
        x_BND,
        bases_BKD,
        cosine_BNK,
        x_norm_BN,
        base_norm_BK,
        crops,
        bases,
        channels,
        **tile(cosine_BNK.dtype),
    )
    return cosine_BNK, x_norm_BN, base_norm_BK


@torch.library.custom_op("vocokernels::crop_similarity_triton_backward", mutates_args=())
def _backward_op(
    grad_BNK: Tensor,
    cosine_BNK: Tensor,
    x_BND: Tensor,
    bases_BKD: Tensor,
    x_norm_BN: Tensor,
    base_norm_BK: Tensor,
) -> tuple[Tensor, Tensor]:
    x_BND, bases_BKD, grad_BNK = x_BND.contiguous(), bases_BKD.contiguous(), grad_BNK.contiguous()
    x_grad_BND, base_grad_BKD = _like_backward(x_BND, bases_BKD)
    (volumes, crops, channels), bases = x_BND.shape, bases_BKD.shape[1]
    x_side = (x_BND, bases_BKD, x_norm_BN, base_norm_BK, x_grad_BND, crops, bases)
    base_side = (bases_BKD, x_BND, base_norm_BK, x_norm_BN, base_grad_BKD, bases, crops)
    settings = tile(cosine_BNK.dtype)
    stretches = triton.cdiv(channels, BLOCK_CHANNELS)
    for side, strides in ((x_side, (bases, 1)), (base_side, (1, bases))):
        grid = (volumes, triton.cdiv(side[-2], BLOCK_ROWS), stretches)
        shared = (grad_BNK, cosine_BNK)
        launch(_similarity_bwd_kernel, grid, *shared, *side, channels, *strides, **settings)
    return x_grad_BND, base_grad_BKD


@_forward_op.register_fake
def _like_forward(x_BND: Tensor, bases_BKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x_BND, bases_BKD)
    shapes = ((*x_BND.shape[:2], bases_BKD.shape[1]), x_BND.shape[:2], bases_BKD.shape[:2])
    cosine_BNK, x_norm_BN, base_norm_BK = (x_BND.new_empty(s, dtype=dtype) for s in shapes)
    return cosine_BNK, x_norm_BN, base_norm_BK


@_backward_op.register_fake
def _(
    grad_BNK: Tensor,  # noqa: ARG001 - the operator's signature
    cosine_BNK: Tensor,  # noqa: ARG001 - the operator's signature
    x_BND: Tensor,
    bases_BKD: Tensor,
    x_norm_BN: Tensor,  # noqa: ARG001 - the operator's signature
    base_norm_BK: Tensor,  # noqa: ARG001 - the operator's signature
) -> tuple[Tensor, Tensor]:
    return _like_backward(x_BND, bases_BKD)


def _like_backward(x_BND: Tensor, bases_BKD: Tensor) -> tuple[Tensor, Tensor]:
    return x_BND.new_empty(x_BND.shape), bases_BKD.new_empty(bases_BKD.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:  # noqa: ANN401 - autograd's context has no public type
    cosine_BNK, x_norm_BN, base_norm_BK = output
    ctx.save_for_backward(cosine_BNK, *inputs, x_norm_BN, base_norm_BK)
    ctx.mark_non_differentiable(x_norm_BN, base_norm_BK)


def _backward(ctx: Any, grad_BNK: Tensor, *_of_norms: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - autograd's context has no public type
    x_grad_BND, base_grad_BKD = _backward_op(grad_BNK, *ctx.saved_tensors)
    return x_grad_BND, base_grad_BKD


_forward_op.register_autograd(_backward, setup_context=_save)
