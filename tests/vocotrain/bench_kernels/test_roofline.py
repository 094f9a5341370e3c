"""Bytes and bounds that the documentation's table is made of."""

import pytest
import torch

from vocotrain.bench_kernels.attention import StageBlocks, own_attention
from vocotrain.bench_kernels.cases import AttentionCase, attention_cases
from vocotrain.bench_kernels.roofline import COUNTED, H100, counted_bytes, stage_bound
from vocotrain.bench_kernels.traffic import Traffic
from vocotrain.bench_kernels.work import box_work, window_work
from vocotrain.ops import window_attention

TOY = AttentionCase("toy", 1, 10, 2, 5, 8, 2, (3, 3, 3))


def our_traffic(case, monkeypatch):
    """Bytes of our own halves as torch sees them: two linear layers and one opaque operation."""
    monkeypatch.setenv("VOCO_KERNELS", "cpu")
    blocks = StageBlocks(case, torch.device("cpu"))
    x = torch.randn(case.maps, *case.map_xyz, case.channels, requires_grad=True)
    attention = blocks.blocks[0].attn
    with Traffic() as forward:
        qkv = torch.nn.functional.linear(x, attention.qkv.weight)
        out = window_attention(
            qkv,
            attention.relative_position_bias_table,
            heads=case.heads,
            window=case.window,
            shift=(0, 0, 0),
        )
        y = torch.nn.functional.linear(out, attention.proj.weight)
    grad = torch.ones_like(y)
    with Traffic() as backward:
        torch.autograd.grad(y, [x, attention.qkv.weight, attention.proj.weight], grad)
    return forward, backward


def test_the_formula_is_what_torch_counts_of_our_linear_layers_and_attention(monkeypatch):
    # large enough for weights and tables to be small beside the map
    case = AttentionCase("toy", 1, 24, 2, 12, 8, 2, (3, 3, 3))
    forward, backward = our_traffic(case, monkeypatch)
    lse_bytes = 4 * case.maps * case.side**3 * case.heads
    one = {mode: box_work(case, mode, 4).moved_bytes / 2 for mode in ("forward", "backward")}
    assert forward.moved_bytes == pytest.approx(one["forward"] - lse_bytes, rel=0.02)
    # the path of a processor keeps no output and no sum: out is not read by its way back
    out_bytes = 4 * case.maps * case.side**3 * case.channels
    assert backward.moved_bytes == pytest.approx(one["backward"] - lse_bytes - out_bytes, rel=0.02)


def test_counting_fake_tensors_is_counting_real_ones():
    blocks = StageBlocks(TOY, torch.device("cpu"))
    x = torch.randn(TOY.maps, *TOY.map_xyz, TOY.channels, requires_grad=True)
    run = blocks.with_attention(own_attention)
    with Traffic() as forward:
        out = run(x)
    grad = torch.ones_like(out)
    with Traffic() as backward:
        torch.autograd.grad(out, [x, *blocks.wanted()], grad)
    counted = counted_bytes(TOY, own_attention, torch.float32)
    assert counted == {"forward": forward.moved_bytes, "backward": backward.moved_bytes}


def test_monai_moves_at_least_its_scores_several_times():
    counted = counted_bytes(TOY, own_attention, torch.bfloat16)
    scores = window_work(TOY, "forward", 2).pairs
    assert counted["forward"] > 10 * scores
    assert counted["backward"] > counted["forward"]


def test_the_fused_attention_of_torch_moves_less_than_monai():
    (case,) = attention_cases(["B"], [64], [2], maps=2)
    monai, sdpa = (counted_bytes(case, make, torch.bfloat16) for make in COUNTED.values())
    scores_bytes = 2 * window_work(case, "forward", 2).pairs
    # the shifted block's mask, written over all windows and read, and little else of that size
    assert scores_bytes < sdpa["forward"] < 0.5 * monai["forward"]
    assert sdpa["backward"] < 0.5 * monai["backward"]


@pytest.mark.parametrize("mode", ["forward", "backward"])
def test_a_bound_is_made_of_its_parts(mode):
    (case,) = attention_cases(["B"], [64], [1], maps=1)
    bound = stage_bound(case, mode)
    work = box_work(case, mode, 2)
    assert bound.ours == work
    assert bound.attention_us["bytes"] == pytest.approx(
        1e6 * work.attention_bytes / H100.bytes_per_s
    )
    assert bound.ours_us > max(bound.attention_us.values())
    assert bound.ratio == pytest.approx(bound.monai_us / bound.ours_us)
    assert bound.ratio > 5
