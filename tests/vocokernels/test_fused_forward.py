"""The two ways of a processor's forward pass, and what may not change between them."""

from importlib import import_module

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vocokernels import window_attention
from vocokernels.window_attention.boxes import table_length

cpu = import_module("vocokernels.window_attention.cpu")
pytestmark = pytest.mark.skipif(not cpu.HAS_FUSED, reason="this torch has no such operator")

WINDOW = (4, 4, 4)


def inputs(map_xyz, heads=2, width=16, maps=1):
    torch.manual_seed(0)
    qkv = torch.randn(maps, *map_xyz, 3 * heads * width)
    return qkv, torch.randn(table_length(WINDOW), heads), torch.randn(3 * heads * width)


def attend(qkv, table, pad=None, shift=(2, 2, 2), backend="cpu"):
    return window_attention(
        qkv, table, heads=2, window=WINDOW, shift=shift, pad_qkv=pad, backend=backend
    )


@pytest.fixture
def count_fused(monkeypatch):
    """How often the fused way was gone."""
    calls = []
    fused = cpu._fused
    monkeypatch.setattr(cpu, "_fused", lambda *args: calls.append(1) or fused(*args))
    return calls


@pytest.mark.parametrize("boxes", [1, 5])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("width", [8, 16, 24, 64])
@pytest.mark.parametrize(("tokens", "sink"), [(32, 0), (63, 1), (64, 0), (147, 1), (343, 0)])
def test_both_ways_agree(boxes, heads, width, tokens, sink):
    torch.manual_seed(tokens)
    rows = torch.randn(boxes, tokens + sink, 3 * heads * width)
    bias = torch.randn(heads, tokens, tokens + sink)
    expected = cpu._in_steps(rows.double(), bias.double())
    torch.testing.assert_close(cpu._fused(rows, bias).double(), expected, rtol=1e-5, atol=1e-5)


def test_each_way_is_gone_where_it_is_fast(count_fused):
    attend(*inputs((8, 8, 8)))
    assert count_fused
    count_fused.clear()
    attend(*inputs((8, 8, 8), width=4))
    attend(*(part.double() for part in inputs((8, 8, 8))))
    qkv, table, pad = inputs((3, 3, 3))
    attend(qkv, table, pad)
    assert not count_fused


@pytest.mark.parametrize("map_xyz", [(4, 4, 4), (9, 8, 7)])
def test_without_the_operator_all_goes_in_steps(map_xyz, monkeypatch):
    args = inputs(map_xyz)
    fused = attend(*args)
    monkeypatch.setattr(cpu, "HAS_FUSED", False)
    torch.testing.assert_close(attend(*args), fused, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spoil", ["q", "bias"])
def test_a_query_without_a_finite_logit_is_nan_as_in_the_reference(spoil, count_fused):
    """Else a loss may look sound where half precision has overflown."""
    qkv, table, _ = inputs((4, 4, 4))
    if spoil == "q":
        # times a negative key this is -inf, and each key is made negative
        qkv[0, 1, 2, 3, :16] = float("inf")
        qkv[..., 32:64] = -qkv[..., 32:64].abs()
    else:
        table[:, 0] = float("-inf")
    found, expected = attend(qkv, table), attend(qkv, table, backend="reference")
    assert count_fused
    assert expected.isnan().any()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("way", [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION])
def test_settings_of_torchs_attention_do_not_concern_ours(way):
    args = inputs((8, 4, 8))
    expected = attend(*args)
    with sdpa_kernel(way):
        assert torch.equal(attend(*args), expected)


@pytest.mark.parametrize("map_xyz", [(4, 4, 4), (8, 4, 4)])
def test_channels_that_do_not_lie_side_by_side(map_xyz):
    qkv, table, pad = inputs(map_xyz, maps=2)
    strided = qkv.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    assert strided.stride(-1) != 1
    assert torch.equal(attend(strided, table, pad), attend(qkv, table, pad))


def test_the_input_is_not_written_where_it_is_read_in_place():
    qkv, table, _ = inputs((4, 4, 4))
    before = qkv.clone()
    out = attend(qkv, table)
    assert torch.equal(qkv, before)
    assert out.untyped_storage().data_ptr() != qkv.untyped_storage().data_ptr()
