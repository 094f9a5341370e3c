"""In which type the operations compute, whatever their inputs and the caller's autocast say."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Autocast off on a tensor's device; nothing where there is none, as on meta."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Type of a computation: float64 if any tensor is, else float32."""
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if is_double else torch.float32
