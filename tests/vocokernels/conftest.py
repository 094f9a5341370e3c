"""Kernel tests: one seed, one thread, and memory that nobody wrote is NaN."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _poisoned_and_seeded():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # also fills torch.empty and its kin with NaN
    torch.use_deterministic_algorithms(mode=True)
    yield
    torch.use_deterministic_algorithms(mode=False)
    torch.set_num_threads(threads)
