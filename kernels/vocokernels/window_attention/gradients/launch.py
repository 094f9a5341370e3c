"""Launching the kernels of the gradients of shifted-window attention, in order.

Imports Triton, so it is itself imported when a kernel is first launched.
"""

import torch
from torch import Tensor

from vocokernels.window_attention.boxes import Triple
from vocokernels.window_attention.gradients.kernel import _key_kernel, _query_kernel
from vocokernels.window_attention.gradients.table.kernel import (
    _bias_kernel,
    _sink_slope_kernel,
    _table_kernel,
)
from vocokernels.window_attention.launch import Problem, on_device, problem_of, sink_of
from vocokernels.window_attention.plan import PairWork
from vocokernels.window_attention.tiles import Tile


def backward(
    grad_out: Tensor,
    qkv: Tensor,
    bias_table: Tensor,
    pad_qkv: Tensor | None,
    out: Tensor,
    lse: Tensor,
    window: Triple,
    shift: Triple,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of qkv, the table and the pads, each in the type of what it belongs to.

    The table's is added up in a fixed order where torch.use_deterministic_algorithms asks for it,
    else by atomics.
    """
    with on_device(qkv):
        problem = problem_of(qkv, bias_table, pad_qkv, window, shift)
        grad_out = grad_out.contiguous()
        grad_qkv = problem.fresh(*qkv.shape, dtype=qkv.dtype)
        delta = problem.fresh(*lse.shape)
        # without pads there is no sink, and nobody looks at its slope
        slope = problem.fresh(*lse.shape) if problem.plan.has_pads else delta
        sink = sink_of(problem)
        grad_pad = _query_gradient(problem, sink, out, lse, grad_out, delta, grad_qkv, slope)
        _key_gradient(problem, lse, grad_out, delta, grad_qkv)
        grad_table = _table_gradient(problem, sink, lse, grad_out, delta, slope)
    return (
        grad_qkv,
        # contiguous, which `to` is not unless it converts
        grad_table.t().to(bias_table.dtype).contiguous(),
        grad_pad.to(qkv.dtype if pad_qkv is None else pad_qkv.dtype),
    )


def _query_gradient(
    problem: Problem,
    sink: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    delta: Tensor,
    grad_qkv: Tensor,
    slope: Tensor,
) -> Tensor:
    """Fill `delta`, `slope` and q's part of `grad_qkv`; the gradient of the pads, (3 * C,)."""
    tile = problem.tile("query")
    work = problem.rows(tile.queries)
    shares = problem.fresh(problem.maps, work.slots, problem.heads, 2, problem.width)
    _query_kernel[problem.grid(work)](
        problem.qkv,
        problem.pad,
        problem.table,
        sink,
        work.works_W5,
        problem.plan.place_KP,
        problem.plan.code_KP,
        out,
        lse,
        grad_out,
        delta,
        grad_qkv,
        slope,
        shares,
        problem.tokens,
        problem.heads,
        len(work.works_W5),
        *problem.strides,
        work.slots,
        SINK=problem.plan.has_pads,
        **problem.settings(tile),
    )
    k_and_v = shares.sum((0, 1)).transpose(0, 1).flatten()
    return torch.cat([k_and_v.new_zeros(problem.heads * problem.width), k_and_v])


def _key_gradient(
    problem: Problem, lse: Tensor, grad_out: Tensor, delta: Tensor, grad_qkv: Tensor
) -> None:
    """Fill the parts of k and v of `grad_qkv`."""
    tile = problem.tile("key")
    work = problem.rows(tile.keys)
    _key_kernel[problem.grid(work)](
        problem.qkv,
        problem.table,
        work.works_W5,
        problem.plan.place_KP,
        problem.plan.code_KP,
        lse,
        grad_out,
        delta,
        grad_qkv,
        problem.tokens,
        problem.heads,
        len(work.works_W5),
        *problem.strides,
        **problem.settings(tile),
    )


def _table_gradient(
    problem: Problem, sink: Tensor, lse: Tensor, grad_out: Tensor, delta: Tensor, slope: Tensor
) -> Tensor:
    """Gradient of the table, (H, 2 * origin + 1)."""
    tile = problem.tile("bias")
    work = problem.pairs(tile)
    programs = len(work.works_W5) * problem.heads
    atomic = not torch.are_deterministic_algorithms_enabled()
    grad_table = problem.fresh(problem.heads, 2 * problem.plan.origin + 1)
    sums = grad_table.zero_() if atomic else problem.fresh(programs, tile.queries, tile.keys)
    _bias_kernel[(programs,)](
        problem.qkv,
        problem.table,
        work.works_W5,
        problem.plan.kinds_K4,
        problem.plan.boxes_N,
        problem.plan.place_KP,
        problem.plan.code_KP,
        lse,
        grad_out,
        delta,
        sums,
        problem.tokens,
        problem.heads,
        *problem.strides,
        ATOMIC=atomic,
        **problem.settings(tile),
    )
    if problem.plan.has_pads or not atomic:
        _add_to_table(problem, work, tile, sink, slope, sums, grad_table, atomic=atomic)
    return grad_table


def _add_to_table(
    problem: Problem,
    work: PairWork,
    tile: Tile,
    sink: Tensor,
    slope: Tensor,
    sums: Tensor,
    grad_table: Tensor,
    *,
    atomic: bool,
) -> None:
    """Add to the table what pads contribute and, unless `atomic`, the stored tiles."""
    rows = 2 * problem.plan.origin + 1
    _table_kernel[(-(-rows // problem.small_tile.keys) * problem.heads,)](
        sums,
        sink,
        _sink_slope(problem, slope) if problem.plan.has_pads else sink,
        problem.table,
        problem.plan.kinds_K4,
        work.shares_K3,
        problem.plan.code_KP,
        problem.plan.inverse_KO,
        grad_table,
        problem.heads,
        len(problem.plan.kinds),
        *problem.strides,
        BT=problem.small_tile.keys,
        BI=problem.small_tile.queries,
        BM=tile.queries,
        BN=tile.keys,
        SINK=problem.plan.has_pads,
        ATOMIC=atomic,
        DOUBLE=problem.qkv.dtype == torch.float64,
        num_warps=problem.small_tile.warps,
    )


def _sink_slope(problem: Problem, slope: Tensor) -> Tensor:
    """Gradient of each class's sink, (K, H, P)."""
    kinds = len(problem.plan.kinds)
    found = problem.fresh(kinds, problem.heads, problem.plan.positions)
    blocks = -(-problem.plan.positions // problem.small_tile.queries)
    _sink_slope_kernel[kinds * problem.heads, blocks](
        slope.sum(0),
        problem.plan.kinds_K4,
        problem.plan.boxes_N,
        problem.plan.place_KP,
        found,
        problem.tokens,
        problem.heads,
        problem.plan.positions,
        BM=problem.small_tile.queries,
        DOUBLE=problem.qkv.dtype == torch.float64,
        num_warps=problem.small_tile.warps,
    )
    return found
