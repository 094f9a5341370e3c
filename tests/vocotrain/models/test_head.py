"""The projection head."""

import pytest
import torch

from vocotrain.errors import InputShapeError
from vocotrain.models.head import ProjectionHead


def test_hidden_values_have_mean_zero_and_variance_one_over_the_batch_even_in_evaluation():
    head = ProjectionHead(6, hidden=8, out=4).double().eval()
    seen = []
    head.layers[1].register_forward_hook(lambda *args: seen.append(args[2].clone()))
    assert head(torch.randn(50, 6, dtype=torch.float64) * 9 + 3).shape == (50, 4)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(8).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        seen[0].var(0, correction=0), torch.ones(8).double(), rtol=1e-4, atol=0
    )


def test_only_the_linear_layers_have_tensors():
    assert list(ProjectionHead(6, hidden=8, out=4).state_dict()) == [
        f"layers.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")
    ]


@pytest.mark.parametrize("shape", [(1, 6), (6,), (0, 6)])
def test_one_crop_alone_is_refused(shape):
    with pytest.raises(InputShapeError, match="of at least two crops"):
        ProjectionHead(6)(torch.zeros(shape))
