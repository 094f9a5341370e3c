"""Pieces of maps."""

import pytest
import torch

from vocotrain.models import pieces as module
from vocotrain.models.pieces import for_each, pieces


@pytest.mark.parametrize("values", [1, 12, 50, 10**6])
@pytest.mark.parametrize("shape", [(3, 7, 4), (5, 1, 4), (1, 20, 4)])
def test_pieces_cover_each_row_of_each_map_once_in_order(monkeypatch, shape, values):
    monkeypatch.setattr(module, "PIECE_VALUES", values)
    x = torch.arange(shape[0] * shape[1] * shape[2]).view(shape)
    found = [x[at] for at in pieces(x, channels=4)]
    assert torch.equal(torch.cat([piece.flatten() for piece in found]), x.flatten())
    assert max(piece.numel() for piece in found) <= max(values, 4)


def test_results_come_in_the_order_of_the_items_whatever_the_number_of_threads():
    torch.set_num_threads(2)
    assert for_each(lambda item: item * item, list(range(7))) == [i * i for i in range(7)]
    assert for_each(lambda item: item * item, [3]) == [9]


def test_nothing_is_recorded_for_gradients():
    x = torch.ones(2, requires_grad=True)
    assert not for_each(lambda _: x * 2, [0])[0].requires_grad
