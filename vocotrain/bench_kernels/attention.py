"""Who computes window attention: MONAI in several ways, torch's fused attentions, and ours.

All take the same map and share the weights of the same two MONAI blocks, so outputs and gradients
must be equal. MONAI's region mask is made beforehand, where its own layers make it anew at each
forward pass: the comparison favours it by that much.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vocotrain.bench_kernels.jobs import Job, Peer
from vocotrain.ops import resolve_backend, window_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocotrain.bench_kernels.cases import AttentionCase
    from vocotrain.bench_kernels.settings import BenchSettings

    Half = Callable[[Any, Tensor, Tensor | None], Tensor]


class StageBlocks(nn.Module):
    """The two MONAI blocks of a case without their normalisation, and the mask of the second."""

    blocks: Any
    mask: Tensor

    def __init__(self, case: AttentionCase, device: torch.device) -> None:
        """Fresh weights; biases are large enough to matter."""
        # not at the top: it takes seconds
        swin: Any = import_module("monai.networks.nets.swin_unetr")

        super().__init__()
        self.blocks = nn.ModuleList(
            swin.SwinTransformerBlock(case.channels, case.heads, case.window, shift)
            for shift in case.shifts
        )
        for block in self.blocks:
            block.norm1 = nn.Identity()
            nn.init.normal_(block.attn.relative_position_bias_table)
            nn.init.normal_(block.attn.qkv.bias)
        used, self.moved = swin.get_window_size(case.map_xyz, case.window, case.shifts[1])
        whole = [-(-case.side // extent) * extent for extent in used]
        mask = swin.compute_mask(whole, used, self.moved, "cpu")
        self.register_buffer("mask", mask)
        self.to(device)

    def wanted(self) -> list[nn.Parameter]:
        """Parameters that get a gradient."""
        return [parameter for block in self.blocks for parameter in block.attn.parameters()]

    def both(self, half: Half, x_BXYZC: Tensor) -> Tensor:
        """Sum of what one implementation makes of the two blocks."""
        plain, shifted = self.blocks
        mask = self.mask if any(self.moved) else None
        return half(plain, x_BXYZC, None) + half(shifted, x_BXYZC, mask)


def attention_job(case: AttentionCase, settings: BenchSettings) -> Job:
    """All implementations of a case, MONAI first."""
    torch.manual_seed(0)
    blocks = StageBlocks(case, settings.device)
    shape = (case.maps, *case.map_xyz, case.channels)
    x = torch.randn(shape, device=settings.device, requires_grad=True)
    return Job(
        kernel="window_attention",
        name=case.name,
        peers=_peers(blocks, x),
        wanted=[x, *blocks.wanted()],
        notes=asdict(case),
    )


def _peers(blocks: StageBlocks, x: Tensor) -> list[Peer]:
    def peer(name: str, half: Half) -> Peer:
        return Peer(name, lambda: blocks.both(half, x))

    return [
        peer("monai", _monai),
        peer(f"voco-{resolve_backend('auto', x)}", _ours),
    ]


def _monai(block: Any, x_BXYZC: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ANN401 - MONAI is untyped
    out: Tensor = block.forward_part1(x_BXYZC, mask)
    return out


def _ours(block: Any, x_BXYZC: Tensor, _mask: Tensor | None) -> Tensor:  # noqa: ANN401 - MONAI is untyped
    attention = block.attn
    out = window_attention(
        attention.qkv(x_BXYZC),
        attention.relative_position_bias_table,
        heads=attention.num_heads,
        window=block.window_size,
        shift=block.shift_size,
        pad_qkv=attention.qkv.bias,
    )
    projected: Tensor = attention.proj(out)
    return projected
