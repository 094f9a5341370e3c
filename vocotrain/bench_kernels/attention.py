"""Who computes window attention: MONAI in several ways, torch's fused attentions, and ours.

All take the same map and share the weights of the same two MONAI blocks, so outputs and gradients
must be equal. `sdpa` and `flex` sit inside MONAI's block in place of its attention and keep its
padding, rolling and cutting. MONAI's region mask is made beforehand, where its own layers make it
anew at each forward pass: the comparison favours it by that much.

Shapes: B maps, X Y Z tokens, C channels; M windows of all maps, n tokens of a window, H heads.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vocotrain.bench_kernels.jobs import Job, Peer, Work, fixed_weights
from vocotrain.bench_kernels.work import box_work
from vocotrain.ops import resolve_backend, window_attention

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocotrain.bench_kernels.cases import AttentionCase
    from vocotrain.bench_kernels.settings import BenchSettings

    Attention = Callable[[Any], nn.Module]
    """From MONAI's attention, one that shares its weights."""

FLASH_FLAG = "use_flash_attention"


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
        if device.type != "cpu":
            # fake tensors, which are of the processor, cannot be moved
            self.to(device)

    def wanted(self) -> list[nn.Parameter]:
        """Parameters that get a gradient."""
        return [parameter for block in self.blocks for parameter in block.attn.parameters()]

    def with_attention(self, make: Attention) -> Callable[[Tensor], Tensor]:
        """Both blocks with another attention inside, as a function of the map."""
        plain, shifted = (_twin(block, make) for block in self.blocks)
        return partial(_both, plain, shifted, self.mask if any(self.moved) else None)


def _twin(block: Any, make: Attention) -> Any:  # noqa: ANN401 - MONAI is untyped
    """A block with the same parameters, of whose modules one is exchanged."""
    twin = copy.copy(block)
    twin._modules = {**block._modules, "attn": make(block.attn)}
    return twin


def _both(plain: Any, shifted: Any, mask: Tensor | None, x_BXYZC: Tensor) -> Tensor:  # noqa: ANN401 - MONAI is untyped
    out: Tensor = plain.forward_part1(x_BXYZC, None) + shifted.forward_part1(x_BXYZC, mask)
    return out


class SdpaAttention(nn.Module):
    """Torch's scaled_dot_product_attention with bias and mask as one tensor."""

    def __init__(self, attention: Any, *, is_bias_frozen: bool = False) -> None:  # noqa: ANN401 - MONAI is untyped
        """Share the weights; without a gradient of the bias, processors have a fused path, too."""
        super().__init__()
        self.attention = attention
        self.is_bias_frozen = is_bias_frozen

    def forward(self, x_MnC: Tensor, mask: Tensor | None) -> Tensor:
        """As MONAI's attention is called."""
        q, k, v = _heads_first(self.attention, x_MnC)
        bias = _bias(self.attention, x_MnC.shape[1])[None]
        bias = bias.detach() if self.is_bias_frozen else bias
        if mask is None:
            bias = bias.to(q.dtype)
        else:
            of_a_map = (bias + mask[:, None]).to(q.dtype)
            bias = of_a_map.repeat(x_MnC.shape[0] // mask.shape[0], 1, 1, 1)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return _project(self.attention, out)


class FlexAttention(nn.Module):
    """Torch's flex_attention: the bias is looked up and the region compared score by score."""

    def __init__(self, attention: Any, *, is_compiled: bool = True) -> None:  # noqa: ANN401 - MONAI is untyped
        """Share the weights; eager code of flex_attention is for tests alone."""
        super().__init__()
        flex: Any = import_module("torch.nn.attention.flex_attention").flex_attention
        self.attention = attention
        self.run = torch.compile(flex, dynamic=False) if is_compiled else flex
        self.score_mod: Callable[..., Tensor] | None = None

    def forward(self, x_MnC: Tensor, mask: Tensor | None) -> Tensor:
        """As MONAI's attention is called."""
        q, k, v = _heads_first(self.attention, x_MnC)
        if self.score_mod is None:
            # masks do not change, and a new function at each call would be compiled anew
            self.score_mod = _score_mod(self.attention, mask)
        out: Tensor = self.run(q, k, v, score_mod=self.score_mod)
        return _project(self.attention, out)


def _score_mod(attention: Any, mask: Tensor | None) -> Callable[..., Tensor]:  # noqa: ANN401 - MONAI is untyped
    """What happens to the score of query i and key j of window m and head h."""
    table, index = attention.relative_position_bias_table, attention.relative_position_index

    def biased(score: Tensor, _m: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        moved: Tensor = score + table[index[i, j], h]
        return moved

    if mask is None:
        return biased
    # a region's number: its first token
    regions = (mask == 0).int().argmax(-1).int()

    def masked(score: Tensor, m: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        window = m % regions.shape[0]
        is_seen = regions[window, i] == regions[window, j]
        return torch.where(is_seen, biased(score, m, h, i, j), float("-inf"))

    return masked


class FlashFlagAttention(nn.Module):
    """MONAI's own attention with its flag for a fused path set, which takes effect in inference."""

    def __init__(self, attention: Any) -> None:  # noqa: ANN401 - MONAI is untyped
        """Share the weights."""
        super().__init__()
        self.attention = copy.copy(attention)
        self.attention.use_flash_attention = True

    def forward(self, x_MnC: Tensor, mask: Tensor | None) -> Tensor:
        """As MONAI's attention is called."""
        out: Tensor = self.attention(x_MnC, mask)
        return out


def own_attention(attention: Any) -> Any:  # noqa: ANN401 - MONAI is untyped
    """MONAI's attention as it is."""
    return attention


def attention_job(case: AttentionCase, settings: BenchSettings) -> Job:
    """All implementations of a case, MONAI first."""
    # compiled code of earlier cases would count towards the most that torch keeps of one function
    torch.compiler.reset()
    torch.manual_seed(0)
    blocks = StageBlocks(case, settings.device)
    shape = (case.maps, *case.map_xyz, case.channels)
    x = torch.randn(shape, device=settings.device, requires_grad=True)
    number_bytes = settings.dtype.itemsize
    forward, backward = (box_work(case, mode, number_bytes) for mode in ("forward", "backward"))
    work = {"forward": forward, "backward": backward, "full": forward + backward}
    return Job(
        kernel="window_attention",
        name=case.name,
        peers=attention_peers(blocks, x, settings),
        wanted=[x, *blocks.wanted()],
        truth=partial(truth_map_by_map, blocks, x),
        dtype=settings.dtype,
        notes=asdict(case),
        work=lambda mode: Work(work[mode].moved_bytes, work[mode].flop),
    )


def truth_map_by_map(blocks: StageBlocks, x_BXYZC: Tensor) -> list[Tensor]:
    """MONAI's output and gradients; all maps at once may need more memory than a GPU has."""
    run = blocks.with_attention(own_attention)
    outs, grads_x = [], []
    sums = [torch.zeros_like(parameter) for parameter in blocks.wanted()]
    # an output is of the map's own shape
    weights_BXYZC = fixed_weights(x_BXYZC)
    for one in range(len(x_BXYZC)):
        x = x_BXYZC[one : one + 1].detach().requires_grad_()
        out = run(x)
        wanted = [x, *blocks.wanted()]
        grad_x, *grads = torch.autograd.grad(out, wanted, weights_BXYZC[one : one + 1])
        outs.append(out.detach())
        grads_x.append(grad_x)
        sums = [total + grad for total, grad in zip(sums, grads, strict=True)]
    return [torch.cat(outs), torch.cat(grads_x), *sums]


def attention_peers(blocks: StageBlocks, x: Tensor, settings: BenchSettings) -> list[Peer]:
    """MONAI, which the others are held against, in three ways; torch's two; ours."""

    def peer(
        name: str, make: Attention, *, has_backward: bool = True, may_fail: bool = True
    ) -> Peer:
        run = blocks.with_attention(make)
        return Peer(name, lambda: run(x), has_backward=has_backward, may_fail=may_fail)

    def absent(name: str, reason: str) -> Peer:
        return Peer(name, None, reason)

    has_flag = hasattr(blocks.blocks[0].attn, FLASH_FLAG)
    plain = blocks.with_attention(own_attention)
    return [
        peer("monai", own_attention, may_fail=False),
        peer("monai-flash", FlashFlagAttention, has_backward=False)
        if has_flag
        else absent("monai-flash", f"this MONAI has no {FLASH_FLAG}"),
        _compiled(plain, x)
        if settings.is_compiled
        else absent("monai-compile", "not asked for (--compile): compiling takes minutes"),
        peer("sdpa", SdpaAttention),
        peer("flex", FlexAttention)
        if settings.device.type == "cuda"
        else absent("flex", "FlexAttention has no backward pass on a processor"),
        Peer(f"voco-{resolve_backend('auto', x)}", lambda: _ours(blocks, x)),
    ]


def _compiled(run: Callable[[Tensor], Tensor], x: Tensor) -> Peer:
    compiled = torch.compile(run, dynamic=False)
    return Peer("monai-compile", lambda: compiled(x), may_fail=True)


def _ours(blocks: StageBlocks, x_BXYZC: Tensor) -> Tensor:
    plain, shifted = (_our_half(block, x_BXYZC) for block in blocks.blocks)
    return plain + shifted


def _our_half(block: Any, x_BXYZC: Tensor) -> Tensor:  # noqa: ANN401 - MONAI is untyped
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


def _heads_first(attention: Any, x_MnC: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401 - as above
    """Queries, keys and values, (M, H, n, d) each."""
    split = attention.qkv(x_MnC).unflatten(-1, (3, attention.num_heads, -1))
    q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def _bias(attention: Any, tokens: int) -> Tensor:  # noqa: ANN401 - as above
    """The bias table spread over all pairs of a window, (H, n, n)."""
    index = attention.relative_position_index[:tokens, :tokens]
    bias: Tensor = attention.relative_position_bias_table[index].permute(2, 0, 1)
    return bias


def _project(attention: Any, out_MHnd: Tensor) -> Tensor:  # noqa: ANN401 - as above
    projected: Tensor = attention.proj(out_MHnd.transpose(1, 2).flatten(2))
    return projected
