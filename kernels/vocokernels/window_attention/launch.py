"""Launching the GPU kernels of shifted-window attention: sizes, memory, the forward pass.

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

from vocokernels.launching import check_grid
from vocokernels.window_attention.boxes import Triple, as_triple
from vocokernels.window_attention.kernel import INTERPRETED, _forward_kernel, _sink_kernel
from vocokernels.window_attention.plan import PairWork, Plan, RowWork, pair_work, plan, row_work
from vocokernels.window_attention.tiles import SMALL_TILE, Kernel, Tile, padded_width, tile_of

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, eq=False)
class Problem:
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
        """Batch."""
        return self.qkv.shape[0]

    @property
    def map_xyz(self) -> Triple:
        """Tokens along each axis."""
        return as_triple(self.qkv.shape[1:4])

    @property
    def tokens(self) -> int:
        """Of one map."""
        return prod(self.map_xyz)

    @property
    def width(self) -> int:
        """Channels of a head."""
        return self.qkv.shape[4] // (3 * self.heads)

    @property
    def strides(self) -> tuple[int, int]:
        """What each kernel needs to find its way in the tables."""
        return self.plan.positions, self.plan.origin

    def fresh(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory for a result: sums, unless a type is given."""
        return fresh(shape, dtype=dtype or self.table.dtype, device=self.qkv.device)

    @property
    def small_tile(self) -> Tile:
        """Of kernels without products."""
        return SMALL_TILE

    def tile(self, kernel: Kernel) -> Tile:
        """How a kernel is launched."""
        return tile_of(kernel, self.qkv.element_size(), self.width)

    def rows(self, rows: int) -> RowWork:
        """Tiles of so many rows."""
        return row_work(self.map_xyz, self.window, self.shift, self.qkv.device, rows=rows)

    def pairs(self, tile: Tile) -> PairWork:
        """Tiles of pairs."""
        where = (self.map_xyz, self.window, self.shift, self.qkv.device)
        sizes = {"maps": self.maps, "heads": self.heads}
        return pair_work(*where, **sizes, queries=tile.queries, keys=tile.keys)

    def grid(self, work: RowWork) -> tuple[int]:
        """One program a work, map and head, in one line: other axes end at 65,535."""
        grid = (len(work.works_W5) * self.maps * self.heads,)
        check_grid("window_attention", grid)
        return grid

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
    with on_device(qkv):
        problem = problem_of(qkv, bias_table, pad_qkv, window, shift)
        tile = problem.tile("forward")
        work = problem.rows(tile.queries)
        out = problem.fresh(*qkv.shape[:4], qkv.shape[4] // 3, dtype=qkv.dtype)
        lse = problem.fresh(problem.maps, problem.heads, problem.tokens)
        _forward_kernel[problem.grid(work)](
            problem.qkv,
            problem.pad,
            problem.table,
            sink_of(problem),
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


def problem_of(
    qkv: Tensor, bias_table: Tensor, pad_qkv: Tensor | None, window: Triple, shift: Triple
) -> Problem:
    """Inputs made contiguous, the table prepared, the plan looked up."""
    found = plan(as_triple(qkv.shape[1:4]), window, shift, qkv.device)
    heads, dtype = bias_table.shape[1], _sum_dtype(qkv.dtype)
    table = torch.full((heads, 3 * found.origin + 2), float("-inf"), dtype=dtype, device=qkv.device)
    torch.mul(bias_table.to(dtype).t(), LOG2_E, out=table[:, : 2 * found.origin + 1])
    pad = qkv.new_zeros(qkv.shape[4]) if pad_qkv is None else pad_qkv.to(qkv.dtype).contiguous()
    return Problem(qkv.contiguous(), pad, table, window, shift, found, heads)


def sink_of(problem: Problem) -> Tensor:
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


def on_device(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, wherever its tensors are."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
