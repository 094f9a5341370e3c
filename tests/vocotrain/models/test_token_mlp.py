"""The MLP half of a block against its operations one by one."""

import pytest
import torch
from torch.nn import functional

from vocokernels.errors import TransformError
from vocotrain.models import token_mlp as module
from vocotrain.models.token_mlp import token_mlp


def inputs(*shape, hidden=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    c = shape[-1]
    sizes = [shape, (c,), (c,), (hidden, c), (hidden,), (c, hidden), (c,)]
    return [
        torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
        for size in sizes
    ]


def one(x, *parameters):
    return token_mlp(x, parameters[:2], parameters[2:4], parameters[4:])


def one_by_one(x, norm_weight, norm_bias, weight1, bias1, weight2, bias2):
    n = functional.layer_norm(x, x.shape[-1:], norm_weight, norm_bias)
    hidden = functional.gelu(functional.linear(n, weight1, bias1))
    return x + functional.linear(hidden, weight2, bias2)


@pytest.mark.parametrize("values", [1, 200, 10**6])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 6), (19, 3)])
def test_values_and_gradients_are_those_of_the_single_operations(monkeypatch, shape, values):
    monkeypatch.setattr(module, "PIECE_VALUES", values)
    tensors = inputs(*shape)
    y, expected = one(*tensors), one_by_one(*tensors)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(y, tensors, grad),
        torch.autograd.grad(expected, tensors, grad),
        rtol=0,
        atol=1e-11,
    )


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        tensors = inputs(5000, 6, hidden=24, dtype=torch.float32)
        y = one(*tensors)
        found.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    torch.set_num_threads(2)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nothing_is_kept_but_the_tokens():
    tensors = inputs(100, 6, hidden=24)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        one(*tensors)
    assert sum(kept) == sum(tensor.numel() for tensor in tensors[:-1])


def test_under_autocast_it_is_half_precision_and_as_exact_as_the_single_operations():
    tensors = inputs(3000, 16, hidden=64, dtype=torch.float32)
    exact = one_by_one(*(tensor.double() for tensor in tensors))
    grad = torch.randn_like(exact)
    wanted = [exact, *torch.autograd.grad(exact, tensors, grad)]

    def errors(function):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = function(*tensors)
        found = [y, *torch.autograd.grad(y, tensors, grad.to(y.dtype))]
        assert [tensor.dtype for tensor in found[1:]] == [torch.float32] * len(tensors)
        return [(a - b).norm() / b.norm() for a, b in zip(found, wanted, strict=True)]

    for ours, theirs in zip(errors(one), errors(one_by_one), strict=True):
        assert ours < 2 * theirs
        assert theirs < 0.02


def test_it_is_a_well_behaved_operator():
    torch.library.opcheck(torch.ops.vocotrain.token_mlp.default, tuple(inputs(7, 4)))


# torch's own rules of forward derivatives are still scripts
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("place", range(7))
def test_derivatives_by_torch_func_are_refused_in_our_words(place):
    tensors = [tensor.detach() for tensor in inputs(5, 6)]

    def call(tensor):
        return one(*tensors[:place], tensor, *tensors[place + 1 :])

    with pytest.raises(TransformError, match=r"token_mlp was called with a forward-mode.*backward"):
        torch.func.jvp(call, (tensors[place],), (tensors[place],))
    with pytest.raises(TransformError, match=r"token_mlp was called under torch.func.grad"):
        torch.func.grad(lambda tensor: call(tensor).sum())(tensors[place])
