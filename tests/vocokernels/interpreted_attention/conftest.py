"""The same claims hold on a GPU: VOCO_CHECK_DEVICE=cuda runs them there, compiled."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def _on_the_device():
    with torch.device(os.environ.get("VOCO_CHECK_DEVICE", "cpu")):
        yield
