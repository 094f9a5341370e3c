"""Statistics by pieces, and leaky ReLUs undone."""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from vocotrain.models.norm import before_activation, gradient_before_activation, statistics
from vocotrain.models.pieces import Piece, pieces


def test_statistics_of_uneven_pieces_are_those_of_the_whole_even_far_from_zero():
    x = torch.randn(3, 50, 4, dtype=torch.float64) * torch.arange(1, 5) + 1e4
    some = [
        Piece(slice(b, b + 1), rows)
        for b in range(3)
        for rows in (slice(0, 7), slice(7, 40), slice(40, 99))
    ]
    found = statistics(lambda at: x[at], some, maps=3, rows=50)
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    torch.testing.assert_close(found.mean, mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(found.scale, (variance + 1e-5).rsqrt(), rtol=1e-10, atol=0)


def test_a_map_of_one_value_becomes_zeros():
    x = torch.full((1, 216, 2), 1234.5)
    some = [Piece(slice(None), slice(0, 108)), Piece(slice(None), slice(108, 216))]
    found = statistics(lambda at: x[at], some, maps=1, rows=216)
    assert found.normalise_(x, Piece(slice(None), slice(None))).abs().max() == 0


def test_an_activation_is_undone_and_so_is_its_gradient():
    n = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    y = functional.leaky_relu(n, 0.01)
    torch.testing.assert_close(before_activation(y.detach()), n.detach(), rtol=1e-15, atol=0)
    grad = torch.randn_like(n)
    (expected,) = torch.autograd.grad(y, n, grad)
    assert torch.equal(gradient_before_activation(grad, y.detach()), expected)


class _Calls(TorchFunctionMode):
    """Notes which functions of torch are called."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


def test_statistics_on_an_accelerator_send_it_nothing_that_it_would_wait_for():
    x = torch.empty(2, 50, 4, device="meta")
    with _Calls() as calls:
        found = statistics(lambda at: x[at], pieces(x, channels=4), maps=2, rows=50)
    assert found.mean.shape == found.scale.shape == (2, 1, 4)
    assert torch.Tensor.mean in calls.seen
    assert not calls.seen & {torch.tensor, torch.Tensor.new_tensor, torch.Tensor.to}
