"""Parts of the Swin transformer."""

import itertools

import pytest
import torch
from torch import nn

from vocodata.geometry import Size
from vocokernels.errors import TransformError
from vocotrain.models.swin import NEIGHBOURS, PatchEmbedding, PatchMerging, relative_positions


def test_the_patch_embedding_is_a_strided_convolution():
    module = PatchEmbedding(3, 5, patch=2).double()
    x = torch.randn(2, 3, 8, 6, 4, dtype=torch.float64)
    expected = module.proj(x)
    tokens = module(x.permute(0, 2, 3, 4, 1).contiguous())
    torch.testing.assert_close(tokens.permute(0, 4, 1, 2, 3), expected, rtol=0, atol=1e-13)


def test_a_merging_joins_all_eight_neighbours_and_the_old_one_six():
    everyone = set(itertools.product((0, 1), repeat=3))
    assert set(NEIGHBOURS["octants"]) == everyone
    assert len(NEIGHBOURS["octants"]) == 8
    assert everyone - set(NEIGHBOURS["doubled"]) == {(1, 1, 0), (0, 1, 1)}


@pytest.mark.parametrize("merging", ["octants", "doubled"])
def test_a_merging_puts_the_neighbours_in_its_order(merging):
    module = PatchMerging(1, merging=merging)
    module.norm, module.reduction = nn.Identity(), nn.Identity()
    x = torch.arange(8.0).view(1, 2, 2, 2, 1)
    expected = [4 * i + 2 * j + k for i, j, k in NEIGHBOURS[merging]]
    assert module(x).flatten().tolist() == expected


def test_a_position_index_is_the_row_of_the_offset():
    window = Size(2, 3, 4)
    index = relative_positions(window)
    places = list(itertools.product(*map(range, window)))
    for (q, a), (k, b) in itertools.product(enumerate(places), repeat=2):
        x, y, z = (i - j + side - 1 for i, j, side in zip(a, b, window, strict=True))
        assert index[q, k] == (x * 5 + y) * 7 + z


@pytest.mark.parametrize("merging", ["octants", "doubled"])
def test_the_gradient_of_a_merging_is_that_of_slices_joined(merging):
    module = PatchMerging(3, merging=merging).double()
    x = torch.randn(2, 4, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    y = module(x)
    slices = torch.cat([x[:, i::2, j::2, k::2] for i, j, k in NEIGHBOURS[merging]], dim=-1)
    expected = module.reduction(module.norm(slices))
    assert torch.equal(y, expected)
    (grad,), (wanted,) = (torch.autograd.grad(out.sin().sum(), x) for out in (y, expected))
    torch.testing.assert_close(grad, wanted, rtol=0, atol=1e-14)


def test_a_gradient_by_torch_func_is_refused_in_our_words():
    module = PatchMerging(3, merging="octants")
    with pytest.raises(TransformError, match=r"Patch merging was called under torch.func.grad"):
        torch.func.grad(lambda x: module(x).sum())(torch.randn(1, 2, 2, 2, 3))
