"""How far an interpreted or compiled kernel may be from the specification in float64."""

import torch

from tests.vocokernels.on_a_gpu import FLOAT32

# relative, of the norm of all numbers; what 20 shapes show at most, times four or more
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: FLOAT32,
    torch.float16: 2e-3,
    torch.bfloat16: 1.5e-2,
}


def assert_near(name, found, exact, dtype):
    """Every number is written, and all together are near enough."""
    assert found.shape == exact.shape, name
    assert torch.isfinite(found).all(), f"{name} has numbers that nobody wrote"
    found, exact = found.detach().double(), exact.detach().double()
    error = ((found - exact).norm() / exact.norm().clamp_min(1e-6)).item()
    assert error <= TOLERANCE[dtype], f"{name}: relative error {error:.1e} in {dtype}"
