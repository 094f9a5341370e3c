"""Launching the GPU kernels of shifted-window attention: sizes, memory, order.

Imports Triton, so it is itself imported when a kernel is first launched. Nothing here waits for
the device.

Shapes: B maps of T tokens, H heads of d channels, C = H * d; K classes of boxes, P positions of
the longest class.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from vocokernels.window_attention.boxes import Triple
from vocokernels.window_attention.gradients.kernel import (
    _bias_kernel,
    _key_kernel,
    _query_kernel,
    _sink_slope_kernel,
    _table_kernel,
)
from vocokernels.window_attention.kernel import INTERPRETED, _forward_kernel, _sink_kernel
from vocokernels.window_attention.plan import PairWork, Plan, RowWork, pair_work, plan, row_work
from vocokernels.window_attention.tiles import SMALL_TILE, Kernel, Tile, padded_width, tile_of

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, eq=False)
class _Problem:
    """Inputs as the kernels take them."""

    qkv: Tensor
    pad: Tensor
    """(3 * C,), type of qkv."""
    table: Tensor
    """(H, 3 * origin + 2), base 2, -inf behind its rows."""
    window: Triple
    shift: Triple
    plan: Plan
    heads: int

    @property
    def maps(self) -> int:
        return self.qkv.shape[0]

    @property
    def map_xyz(self) -> Triple:
        return _triple(self.qkv.shape[1:4])

    @property
    def tokens(self) -> int:
        return prod(self.map_xyz)

    @property
    def width(self) -> int:
        """Channels of a head."""
        return self.qkv.shape[4] // (3 * self.heads)

    @property
    def strides(self) -> tuple[int, int]:
        """What each kernel needs to find its way in the tables."""
        return self.plan.positions, self.plan.origin

    def fresh(self, *shape: int) -> Tensor:
        """Memory for sums."""
        return fresh(shape, dtype=self.table.dtype, device=self.qkv.device)

    def tile(self, kernel: Kernel) -> Tile:
        return tile_of(kernel, self.qkv.element_size(), self.width)

    def rows(self, rows: int) -> RowWork:
        return row_work(self.map_xyz, self.window, self.shift, self.qkv.device, rows=rows)

    def pairs(self, tile: Tile) -> PairWork:
        where = (self.map_xyz, self.window, self.shift, self.qkv.device)
        sizes = {"maps": self.maps, "heads": self.heads}
        return pair_work(*where, **sizes, queries=tile.queries, keys=tile.keys)

    def grid(self, work: RowWork) -> tuple[int]:
        """One program a work, map and head, in one line: other axes end at 65,535."""
        programs = len(work.works_W5) * self.maps * self.heads
        assert programs < 2**31, "programs are counted in 32 bits"
        return (programs,)

    def settings(self, tile: Tile) -> dict[str, Any]:
        """Constants of a kernel that multiplies q, k, v."""
        return {
            "SCALE": self.width**-0.5,
            "D": self.width,
            "DP": padded_width(self.width),
            "BM": tile.queries,
            "BN": tile.keys,
            "UP": INTERPRETED and self.qkv.dtype == torch.bfloat16,
            "DOUBLE": self.qkv.dtype == torch.float64,
            "PRECISION": _precision(self.qkv.dtype),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }


def fresh(shape: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory that a kernel will fill, every number of it; tests fill it with NaN first."""
    return torch.empty(tuple(shape), dtype=dtype, device=device)


def forward(
    qkv: Tensor, bias_table: Tensor, pad_qkv: Tensor | None, window: Triple, shift: Triple
) -> tuple[Tensor, Tensor]:
    """Attention (B, X, Y, Z, C), and log2 of each query's sum of weights (B, H, T)."""
    with _on_device(qkv):
        problem = _problem(qkv, bias_table, pad_qkv, window, shift)
        tile = problem.tile("forward")
        work = problem.rows(tile.queries)
        out = fresh((*qkv.shape[:4], qkv.shape[4] // 3), dtype=qkv.dtype, device=qkv.device)
        lse = problem.fresh(problem.maps, problem.heads, problem.tokens)
        _forward_kernel[problem.grid(work)](
            problem.qkv,
            problem.pad,
            problem.table,
            _sink(problem),
            work.works_W5,
            problem.plan.place_KP,
            problem.plan.code_KP,
            out,
            lse,
            problem.tokens,
            problem.heads,
            len(work.works_W5),
            *problem.strides,
            SINK=problem.plan.has_pads,
            **problem.settings(tile),
        )
    return out, lse


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
    with _on_device(qkv):
        problem = _problem(qkv, bias_table, pad_qkv, window, shift)
        grad_out = grad_out.contiguous()
        grad_qkv = fresh(qkv.shape, dtype=qkv.dtype, device=qkv.device)
        delta = problem.fresh(*lse.shape)
        # without pads there is no sink, and nobody looks at its slope
        slope = problem.fresh(*lse.shape) if problem.plan.has_pads else delta
        sink = _sink(problem)
        grad_pad = _query_gradient(problem, sink, out, lse, grad_out, delta, grad_qkv, slope)
        _key_gradient(problem, lse, grad_out, delta, grad_qkv)
        grad_table = _table_gradient(problem, sink, lse, grad_out, delta, slope)
    return (
        grad_qkv,
        grad_table.t().to(bias_table.dtype, memory_format=torch.contiguous_format),
        grad_pad.to(qkv.dtype if pad_qkv is None else pad_qkv.dtype),
    )


def _problem(
    qkv: Tensor, bias_table: Tensor, pad_qkv: Tensor | None, window: Triple, shift: Triple
) -> _Problem:
    found = plan(_triple(qkv.shape[1:4]), window, shift, qkv.device)
    heads, dtype = bias_table.shape[1], _sum_dtype(qkv.dtype)
    table = torch.full((heads, 3 * found.origin + 2), float("-inf"), dtype=dtype, device=qkv.device)
    torch.mul(bias_table.to(dtype).t(), LOG2_E, out=table[:, : 2 * found.origin + 1])
    pad = qkv.new_zeros(qkv.shape[4]) if pad_qkv is None else pad_qkv.to(qkv.dtype).contiguous()
    return _Problem(qkv.contiguous(), pad, table, window, shift, found, heads)


def _sink(problem: _Problem) -> Tensor:
    """Bias of each class's sink, (K, H, P); without pads nothing, and nobody reads it."""
    if not problem.plan.has_pads:
        return problem.table
    kinds = len(problem.plan.kinds)
    sink = problem.fresh(kinds, problem.heads, problem.plan.positions)
    blocks = -(-problem.plan.positions // SMALL_TILE.queries)
    _sink_kernel[kinds * problem.heads, blocks](
        problem.table,
        problem.plan.kinds_K4,
        problem.plan.code_KP,
        sink,
        problem.heads,
        *problem.strides,
        BM=SMALL_TILE.queries,
        BN=SMALL_TILE.keys,
        DOUBLE=problem.qkv.dtype == torch.float64,
        num_warps=SMALL_TILE.warps,
    )
    return sink


def _query_gradient(
    problem: _Problem,
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
    problem: _Problem, lse: Tensor, grad_out: Tensor, delta: Tensor, grad_qkv: Tensor
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
    problem: _Problem, sink: Tensor, lse: Tensor, grad_out: Tensor, delta: Tensor, slope: Tensor
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
    problem: _Problem,
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
    _table_kernel[(-(-rows // SMALL_TILE.keys) * problem.heads,)](
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
        BT=SMALL_TILE.keys,
        BI=SMALL_TILE.queries,
        BM=tile.queries,
        BN=tile.keys,
        SINK=problem.plan.has_pads,
        ATOMIC=atomic,
        DOUBLE=problem.qkv.dtype == torch.float64,
        num_warps=SMALL_TILE.warps,
    )


def _sink_slope(problem: _Problem, slope: Tensor) -> Tensor:
    """Gradient of each class's sink, (K, H, P)."""
    kinds = len(problem.plan.kinds)
    found = problem.fresh(kinds, problem.heads, problem.plan.positions)
    blocks = -(-problem.plan.positions // SMALL_TILE.queries)
    _sink_slope_kernel[kinds * problem.heads, blocks](
        slope.sum(0),
        problem.plan.kinds_K4,
        problem.plan.boxes_N,
        problem.plan.place_KP,
        found,
        problem.tokens,
        problem.heads,
        problem.plan.positions,
        BM=SMALL_TILE.queries,
        DOUBLE=problem.qkv.dtype == torch.float64,
        num_warps=SMALL_TILE.warps,
    )
    return found


def _sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _precision(dtype: torch.dtype) -> str:
    """float32 is multiplied as such, in tf32 only where PyTorch's own products may be."""
    matmul = torch.backends.cuda.matmul
    if dtype != torch.float32 or torch.version.hip:
        return "ieee"
    if hasattr(matmul, "fp32_precision"):
        return "tf32" if matmul.fp32_precision == "tf32" else "ieee"
    return "tf32" if matmul.allow_tf32 else "ieee"


def _on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, wherever its tensors are."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _triple(values: Sequence[int]) -> Triple:
    x, y, z = values
    return int(x), int(y), int(z)
