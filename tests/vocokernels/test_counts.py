"""Formulas against counts that walk over every token, and against torch's own counter."""

import itertools

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.vocokernels.monai_window import monai_mask
from vocokernels.window_attention.boxes import effective_window
from vocokernels.window_attention.counts import (
    box_pairs,
    half_work,
    padded_tokens,
    window_pairs,
)

MAPS = [
    ((5, 7, 4), (3, 3, 3), (1, 1, 1)),
    ((5, 7, 4), (3, 3, 3), (0, 0, 0)),
    ((6, 6, 6), (3, 2, 3), (1, 1, 0)),
    ((2, 5, 9), (4, 4, 4), (2, 2, 2)),
    ((2, 2, 2), (4, 4, 4), (0, 0, 0)),
]


def walked(map_xyz, window, shift):
    """Rolled padded tokens one by one: which pairs may see each other, and who asks."""
    used, moved = effective_window(map_xyz, window, shift)
    whole = [-(-m // w) * w for m, w in zip(map_xyz, used, strict=True)]
    homes: dict[tuple, list[bool]] = {}
    for place in itertools.product(*map(range, whole)):
        rolled = [(p - s) % n for p, s, n in zip(place, moved, whole, strict=True)]
        window_of = tuple(r // w for r, w in zip(rolled, used, strict=True))
        # tokens that the roll carried to the far end are of another region
        region = tuple(p < s for p, s in zip(place, moved, strict=True))
        is_real = all(p < m for p, m in zip(place, map_xyz, strict=True))
        homes.setdefault((window_of, region), []).append(is_real)
    return [(sum(home), len(home) - sum(home)) for home in homes.values()]


@pytest.mark.parametrize(("map_xyz", "window", "shift"), MAPS)
def test_box_pairs_are_those_of_tokens_that_see_each_other(map_xyz, window, shift):
    pairs = sum(real * (real + (pads > 0)) for real, pads in walked(map_xyz, window, shift))
    assert box_pairs(map_xyz, window, shift) == pairs


@pytest.mark.parametrize(("map_xyz", "window"), [sizes[:2] for sizes in MAPS])
def test_padded_tokens_and_window_pairs_are_those_of_whole_windows(map_xyz, window):
    homes = walked(map_xyz, window, (0, 0, 0))
    assert padded_tokens(map_xyz, window) == sum(sum(home) for home in homes)
    assert window_pairs(map_xyz, window) == sum(sum(home) ** 2 for home in homes)


@pytest.mark.parametrize(("map_xyz", "window", "shift"), MAPS)
def test_operations_are_those_that_torch_counts_in_monais_block(map_xyz, window, shift):
    block = SwinTransformerBlock(8, 2, window, shift, qkv_bias=False)
    block.norm1, mask = nn.Identity(), monai_mask(map_xyz, window, shift)
    x = torch.randn(3, *map_xyz, 8, requires_grad=True)
    sizes = {
        "maps": 3,
        "tokens": padded_tokens(map_xyz, window),
        "pairs": window_pairs(map_xyz, window),
        "channels": 8,
        "heads": 2,
        "number_bytes": 4,
    }
    with FlopCounterMode(display=False) as forward:
        out = block.forward_part1(x, mask)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert forward.get_total_flops() == half_work(**sizes, is_backward=False).flop
    # MONAI keeps its scores, so it does not compute them again: 2 of the 10 a pair and channel
    again = 2 * 3 * sizes["pairs"] * 8
    assert backward.get_total_flops() == half_work(**sizes, is_backward=True).flop - again


def test_two_blocks_are_the_sum_of_each():
    one = half_work(
        maps=2, tokens=27, pairs=27**2, channels=6, heads=3, number_bytes=2, is_backward=False
    )
    both = one + one
    assert (both.flop, both.moved_bytes, both.pairs) == (
        2 * one.flop,
        2 * one.moved_bytes,
        2 * one.pairs,
    )
    assert both.attention_bytes == 2 * one.attention_bytes
    assert one.pairs == 2 * 3 * 27**2
