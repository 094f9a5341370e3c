"""Instance norm, residual and leaky ReLU in one, against torch's three."""

import pytest
import torch
from torch.nn import functional

from vocotrain.models import norm
from vocotrain.models.norm import instance_norm


def maps(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def by_torch(x, residual, slope):
    y = functional.instance_norm(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    y = y if residual is None else y + residual
    return y if slope == 1 else functional.leaky_relu(y, slope)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("shape", [(3, 2, 1, 1, 4), (2, 5, 3, 7, 6), (5, 8, 8, 8, 3)])
def test_values_and_gradients_are_torchs(monkeypatch, shape, slope, with_residual):
    monkeypatch.setattr(norm, "PIECE_VALUES", 100)
    x, residual, g = maps(*shape), maps(*shape, seed=1), maps(*shape, seed=2)
    inputs = [x.requires_grad_(), *([residual.requires_grad_()] if with_residual else [])]
    y = instance_norm(x, residual if with_residual else None, negative_slope=slope)
    expected = by_torch(x, residual if with_residual else None, slope)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(y, inputs, g),
        torch.autograd.grad(expected, inputs, g),
        rtol=0,
        atol=1e-11,
    )


@pytest.mark.parametrize("piece_values", [7, 64, 10**6])
def test_the_pieces_change_nothing(monkeypatch, piece_values):
    x = maps(4, 6, 5, 3, 4).requires_grad_()
    whole = instance_norm(x, negative_slope=0.01)
    monkeypatch.setattr(norm, "PIECE_VALUES", piece_values)
    pieces = instance_norm(x, negative_slope=0.01)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        torch.autograd.grad(pieces.sin().sum(), x),
        torch.autograd.grad(whole.sin().sum(), x),
        rtol=0,
        atol=1e-12,
    )


def test_a_map_of_one_value_becomes_zeros_whatever_the_value():
    x = torch.full((1, 6, 6, 6, 2), 1234.5)
    assert instance_norm(x).abs().max() == 0


def test_a_map_in_another_order_of_memory_gives_the_same():
    x = maps(2, 4, 5, 6, 3)
    strided = x.permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    assert not strided.is_contiguous()
    torch.testing.assert_close(instance_norm(strided), instance_norm(x), rtol=0, atol=0)


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, residual = maps(2, 9, 9, 9, 8, dtype=torch.bfloat16), maps(2, 9, 9, 9, 8)
    y = instance_norm(x, residual.float(), negative_slope=0.01)
    expected = by_torch(x.double(), residual, 0.01)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, rtol=2**-8, atol=1e-6)


def test_a_bfloat16_map_and_a_float32_residual_get_gradients_of_their_own_types():
    x = maps(1, 4, 4, 4, 8, dtype=torch.bfloat16).requires_grad_()
    residual = maps(1, 4, 4, 4, 8, dtype=torch.float32).requires_grad_()
    instance_norm(x, residual, negative_slope=0.01).sum().backward()
    assert (x.grad.dtype, residual.grad.dtype) == (torch.bfloat16, torch.float32)


def test_only_what_needs_a_gradient_gets_one():
    x, residual = maps(1, 3, 3, 3, 2), maps(1, 3, 3, 3, 2, seed=1).requires_grad_()
    instance_norm(x, residual, negative_slope=0.01).sum().backward()
    assert x.grad is None
    assert residual.grad is not None
