import pytest
import torch

from vocotrain.divergence import DivergenceGuard
from vocotrain.errors import TrainingDivergedError


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_step_and_scans(value):
    guard = DivergenceGuard()
    guard.watch(torch.tensor(1.0), scans=["a/1"], step=0)
    with pytest.raises(TrainingDivergedError, match=r"loss of step 2 is not finite.*b/1, b/2\. "):
        guard.watch(torch.tensor(value), scans=["b/1", "b/2"], step=1)


def test_a_finite_loss_passes():
    guard = DivergenceGuard()
    guard.look()
    guard.watch(torch.tensor(3.0), scans=[], step=0)
    guard.look()
