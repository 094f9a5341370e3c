"""The residual unit against convolution, instance norm, addition and leaky ReLU one by one."""

import pytest
import torch
from torch.nn import functional

from vocokernels.errors import TransformError
from vocotrain.models import pieces
from vocotrain.models.residual import residual_unit

SHAPES = [(3, 2, 1, 1), (2, 5, 3, 7), (5, 4, 4, 4)]


def inputs(shape, channels_in, channels_out, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*size):
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)

    found = [
        draw(*shape, channels_in),
        draw(channels_out, channels_in, 3, 3, 3) / 5,
        draw(channels_out, channels_out, 3, 3, 3) / 5,
    ]
    if channels_in != channels_out:
        found.append(draw(channels_out, channels_in, 1, 1, 1))
    return [tensor.requires_grad_() for tensor in found]


def one_by_one(x_BXYZC, weight1, weight2, weight3=None):
    x = x_BXYZC.permute(0, 4, 1, 2, 3)
    norm = functional.instance_norm
    around = x if weight3 is None else norm(functional.conv3d(x, weight3))
    u = functional.leaky_relu(norm(functional.conv3d(x, weight1, padding=1)), 0.01)
    y = functional.leaky_relu(norm(functional.conv3d(u, weight2, padding=1)) + around, 0.01)
    return y.permute(0, 2, 3, 4, 1)


def unit(x, weight1, weight2, weight3=None):
    return residual_unit(x, weight1, weight2, weight3)


@pytest.mark.parametrize("channels", [(6, 6), (1, 6), (12, 6)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [40, 10**6])
def test_values_and_gradients_are_those_of_the_single_operations(
    monkeypatch, shape, channels, values
):
    monkeypatch.setattr(pieces, "PIECE_VALUES", values)
    tensors = inputs(shape, *channels)
    y, expected = unit(*tensors), one_by_one(*tensors)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(y, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        rtol=1e-9,
        atol=1e-10,
    )


@pytest.mark.parametrize("channels", [(6, 6), (1, 6), (12, 6)])
def test_the_number_of_threads_changes_no_bit(monkeypatch, channels):
    monkeypatch.setattr(pieces, "PIECE_VALUES", 100)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tensors = inputs((2, 3, 3, 2), *channels)
        y = unit(*tensors)
        found.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    torch.set_num_threads(2)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_gradient_that_is_one_number_a_channel_is_taken_as_a_view():
    tensors = inputs((2, 4, 4, 4), 6, 6)
    grad = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64)
    whole = torch.autograd.grad(unit(*tensors), tensors, grad.expand(2, 4, 4, 4, 6).clone())
    view = torch.autograd.grad(unit(*tensors), tensors, grad.expand(2, 4, 4, 4, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole, view, strict=True))


def test_a_map_in_another_order_of_memory_gives_the_same():
    x, *weights = inputs((2, 4, 5, 6), 3, 3)
    strided = x.detach().permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1)
    assert not strided.is_contiguous()
    assert torch.equal(unit(strided, *weights), unit(x, *weights))


def test_only_what_needs_a_gradient_gets_one():
    x, *weights = inputs((1, 3, 3, 3), 2, 4)
    unit(x.detach(), *weights).sum().backward()
    assert x.grad is None
    assert all(weight.grad is not None for weight in weights)
    assert not unit(x.detach(), *(weight.detach() for weight in weights)).requires_grad


@pytest.mark.parametrize("channels", [(8, 8), (1, 8)])
def test_under_autocast_it_is_half_precision_and_as_exact_as_the_single_operations(channels):
    tensors = inputs((2, 9, 9, 9), *channels, dtype=torch.float32)
    exact = one_by_one(*(tensor.double() for tensor in tensors))
    grad = torch.randn_like(exact)
    wanted = [exact, *torch.autograd.grad(exact, tensors, grad)]

    def errors(function):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(*tensors)
        found = [y, *torch.autograd.grad(y, tensors, grad.to(y.dtype))]
        assert [tensor.dtype for tensor in found[1:]] == [torch.float32] * len(tensors)
        # the last weight of one channel only scales what is normalised: its gradient is no number
        return [(a - b).norm() / b.norm() for a, b in zip(found[:4], wanted[:4], strict=True)]

    assert unit(*tensors).dtype == torch.float32
    for ours, theirs in zip(errors(unit), errors(one_by_one), strict=True):
        assert ours < 1.5 * theirs
        assert theirs < 0.15


@pytest.mark.parametrize("channels", [(4, 4), (1, 4)])
def test_it_is_a_well_behaved_operator(channels):
    tensors = inputs((2, 3, 2, 3), *channels)
    around = tensors[3] if len(tensors) == 4 else None
    torch.library.opcheck(torch.ops.vocotrain.residual_unit.default, (*tensors[:3], around))


def test_it_compiles_in_one_graph():
    tensors = inputs((1, 3, 3, 3), 4, 4)
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*tensors), unit(*tensors)
    assert torch.equal(y, expected)
    compiled_grads = torch.autograd.grad(y.sin().sum(), tensors)
    grads = torch.autograd.grad(expected.sin().sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(compiled_grads, grads, strict=True))


# torch's own rules of forward derivatives are still scripts
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("place", range(4))
def test_derivatives_by_torch_func_are_refused_in_our_words(place):
    tensors = [tensor.detach() for tensor in inputs((1, 3, 4, 2), 2, 3)]

    def call(tensor):
        return unit(*tensors[:place], tensor, *tensors[place + 1 :])

    with pytest.raises(TransformError, match=r"residual_unit was called with a forward-mode"):
        torch.func.jvp(call, (tensors[place],), (tensors[place],))
    with pytest.raises(TransformError, match=r"residual_unit was called under torch.func.grad"):
        torch.func.grad(lambda tensor: call(tensor).sum())(tensors[place])
