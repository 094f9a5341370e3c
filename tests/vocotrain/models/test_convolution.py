"""The three ways to convolve against torch's convolution, in values and gradients."""

import pytest
import torch
from torch.nn import functional

from vocotrain.models.convolution import convolve, convolve_backward

# maps and channels in and out: few channels, few voxels, neither, few of both
SHAPES = [
    ((2, 5, 4, 6), 1, 8),
    ((2, 9, 4, 6), 4, 8),
    ((2, 2, 2, 2), 6, 16),
    ((1, 1, 3, 1), 16, 16),
    ((2, 5, 4, 6), 6, 8),
    ((1, 2, 2, 2), 2, 16),
]


def case(shape, channels_in, channels_out, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, channels_in, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels_out, channels_in, 3, 3, 3, generator=generator).double()
    return x.to(dtype), weight.to(dtype)


def by_torch(x, weight):
    y = functional.conv3d(x.permute(0, 4, 1, 2, 3), weight, padding=1)
    return y.permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_torchs(shape):
    x, weight = case(*shape)
    y = convolve(x, weight)
    assert y.is_contiguous()
    torch.testing.assert_close(y, by_torch(x, weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("of_input", [True, False])
def test_gradients_are_torchs_and_an_input_that_needs_none_gets_none(shape, of_input):
    x, weight = (tensor.requires_grad_() for tensor in case(*shape))
    expected = by_torch(x, weight)
    grad = torch.randn(expected.shape, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, [x, weight], grad)
    with torch.no_grad():
        of_x, of_weight = convolve_backward(grad, x, weight, of_input=of_input)
    torch.testing.assert_close(of_weight, wanted[1], rtol=0, atol=1e-11)
    if of_input:
        torch.testing.assert_close(of_x, wanted[0], rtol=0, atol=1e-12)
        assert of_x.is_contiguous()
    else:
        assert of_x.numel() == 0


def test_few_channels_in_many_slabs_by_two_threads_are_the_same():
    torch.set_num_threads(2)
    x, weight = case((2, 12, 40, 40), 1, 48)
    torch.testing.assert_close(convolve(x, weight), by_torch(x, weight), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_bfloat16_goes_in_and_comes_out(shape):
    x, weight = case(*shape, dtype=torch.bfloat16)
    y = convolve(x, weight)
    exact = by_torch(x.double(), weight.double())
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).norm() < 2**-8 * exact.norm()


def test_the_gradient_of_a_map_two_voxels_wide_holds_nothing_that_nobody_wrote():
    x, grad = torch.randn(10, 2, 2, 4, 48), torch.randn(10, 2, 2, 4, 48)
    weight = torch.randn(48, 48, 3, 3, 3)
    _, wanted = convolve_backward(grad, x, weight, of_input=True)
    half = (tensor.bfloat16() for tensor in (grad, x, weight))
    halves = tuple(half)
    for _ in range(4):
        # memory that is given out next holds NaN
        sizes = [2**k for k in range(8, 18)] * 2 + [3 * 2**k for k in range(8, 16)]
        del [torch.full((size,), float("nan"), dtype=torch.bfloat16) for size in sizes][:]
        _, found = convolve_backward(*halves, of_input=True)
        torch.testing.assert_close(found.float(), wanted, rtol=0.1, atol=0.5)
