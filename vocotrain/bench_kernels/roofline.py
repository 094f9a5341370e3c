"""What a datasheet allows, against what each implementation moves: derived, not measured.

For one stage (two blocks, the second shifted), forward and backward, in a half type. MONAI and
torch's attention are counted operation by operation (traffic.py), ours by formula. The time of
MONAI and SDPA is their bytes over the memory's speed, which is the least they need; launches and
everything else come on top. Ours takes at least the bytes of the linear layers, and for the
attention whichever is largest of bytes, products, exponentials and plain arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vocotrain.bench_kernels.attention import SdpaAttention, StageBlocks, own_attention
from vocotrain.bench_kernels.traffic import Traffic
from vocotrain.bench_kernels.work import box_work, window_work

if TYPE_CHECKING:
    from vocotrain.bench_kernels.attention import Attention
    from vocotrain.bench_kernels.cases import AttentionCase
    from vocotrain.ops import HalfWork

COUNTED: dict[str, Attention] = {
    "monai": own_attention,
    "sdpa": partial(SdpaAttention, is_bias_frozen=True),
}
"""SDPA's is the fused path's traffic, without the gradient of the bias: that would be written once
a window and head more, and added up."""
HALF_BYTES = 2
ARITHMETIC_A_SCORE = {"forward": 8, "backward": 16}
"""Float32 instructions a score beside products and the exponential: scale, bias and its address,
maximum, subtraction, sum, conversion; on the way back also the product with the gradient."""


@dataclass(frozen=True)
class Datasheet:
    """A GPU as its maker describes it."""

    name: str
    bytes_per_s: float
    product_flop_per_s: float
    """Half types, dense, on the matrix units."""
    exponentials_per_s: float
    float32_per_s: float
    """Instructions, not operations: a fused multiply-add is one."""


def _hopper(processors: int, clock_hz: float) -> tuple[float, float]:
    """Exponentials and float32 instructions: 16 and 128 a clock and multiprocessor (CUDA guide)."""
    return 16 * processors * clock_hz, 128 * processors * clock_hz


# NVIDIA H100 datasheet, SXM: 3.35 TB/s, 989 TFLOP/s dense, 132 multiprocessors, 1.755 GHz boost
H100 = Datasheet("H100 SXM", 3.35e12, 989e12, *_hopper(132, 1.755e9))


@dataclass(frozen=True)
class Bound:
    """One direction of one stage."""

    case: AttentionCase
    mode: str
    bytes_of: dict[str, int]
    """By implementation."""
    ours: HalfWork
    padded: HalfWork
    """With padded windows."""
    attention_us: dict[str, float]
    """Least time of our attention alone, by what limits it."""
    monai_us: float
    ours_us: float

    @property
    def ratio(self) -> float:
        """Least time of MONAI over ours."""
        return self.monai_us / self.ours_us


def stage_bound(case: AttentionCase, mode: str, sheet: Datasheet = H100) -> Bound:
    """Bytes, operations and least times of a case; `mode` is forward or backward."""
    ours, padded = box_work(case, mode, HALF_BYTES), window_work(case, mode, HALF_BYTES)
    bytes_of = {
        name: counted_bytes(case, make, torch.bfloat16)[mode] for name, make in COUNTED.items()
    } | {"voco": ours.moved_bytes}
    attention = {
        "bytes": ours.attention_bytes / sheet.bytes_per_s,
        "products": ours.attention_flop / sheet.product_flop_per_s,
        "exponentials": ours.pairs / sheet.exponentials_per_s,
        "arithmetic": ours.pairs * ARITHMETIC_A_SCORE[mode] / sheet.float32_per_s,
    }
    linear_s = max(
        (ours.moved_bytes - ours.attention_bytes) / sheet.bytes_per_s,
        ours.linear_flop / sheet.product_flop_per_s,
    )
    monai_s = max(
        bytes_of["monai"] / sheet.bytes_per_s, padded.linear_flop / sheet.product_flop_per_s
    )
    return Bound(
        case=case,
        mode=mode,
        bytes_of=bytes_of,
        ours=ours,
        padded=padded,
        attention_us={limit: 1e6 * seconds for limit, seconds in attention.items()},
        monai_us=1e6 * monai_s,
        ours_us=1e6 * (linear_s + max(attention.values())),
    )


def counted_bytes(case: AttentionCase, make: Attention, dtype: torch.dtype) -> dict[str, int]:
    """Bytes that an implementation moves, forward and backward; nothing is computed.

    Args:
        case: The stage.
        make: The attention inside MONAI's blocks.
        dtype: Autocast's type; float32 for none.
    """
    with FakeTensorMode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        blocks = StageBlocks(case, torch.device("cpu"))
        x = torch.empty(case.maps, *case.map_xyz, case.channels, requires_grad=True)
        if dtype != torch.float32:
            x = x.detach().to(dtype).requires_grad_()
        run = blocks.with_attention(make)
        with Traffic() as forward:
            out = run(x)
        with Traffic() as backward:
            torch.autograd.grad(
                out, [x, *blocks.wanted()], torch.empty_like(out), allow_unused=True
            )
    return {"forward": forward.moved_bytes, "backward": backward.moved_bytes}
