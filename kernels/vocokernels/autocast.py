"""Arithmetic that keeps its own type whatever the caller's autocast says."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Autocast off on a tensor's device; nothing where there is none, as on meta."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
