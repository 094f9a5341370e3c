"""Which implementation runs.

`reference` is plain PyTorch and the specification: it runs on any device, slowly. `cpu` is the
fast path on a processor. `triton` is the name of the GPU kernels, which this release lacks.
`auto` takes the fastest one that can run. The environment variable VOCO_KERNELS=reference, read
at each call, makes `auto` mean `reference`: the one switch to tell a kernel's fault from another.
"""

import os
from typing import Literal

from torch import Tensor

from vocokernels.errors import BackendUnavailableError, UnknownBackendError

Backend = Literal["reference", "cpu", "triton"]
BackendChoice = Literal["auto", "reference", "cpu", "triton"]

ENVIRONMENT_SWITCH = "VOCO_KERNELS"
_KNOWN: tuple[Backend, ...] = ("reference", "cpu", "triton")
_AVAILABLE: tuple[Backend, ...] = ("reference", "cpu")


def available_backends() -> tuple[Backend, ...]:
    """Backends that can run in this installation, the specification first."""
    return _AVAILABLE


def resolve_backend(backend: str, tensor: Tensor) -> Backend:
    """The backend that will run for this tensor.

    Args:
        backend: `auto`, or the name of one.
        tensor: An input of the operation; its device decides.

    Returns:
        The name of an available backend that takes tensors of this device.

    Raises:
        UnknownBackendError: No backend has this name (argument or VOCO_KERNELS).
        BackendUnavailableError: The backend is not in this installation, or not for this device.

    >>> import torch
    >>> resolve_backend("auto", torch.zeros(1))
    'cpu'
    """
    if backend == "auto":
        backend = os.environ.get(ENVIRONMENT_SWITCH, "") or "auto"
    if backend == "auto":
        return "cpu" if tensor.device.type == "cpu" else "reference"
    if backend not in _KNOWN:
        message = (
            f"Kernel backend {backend!r} is unknown; expected auto, {', '.join(_KNOWN)}. "
            f"{_what_is_available()}"
        )
        raise UnknownBackendError(message)
    if backend not in _AVAILABLE:
        message = f"Kernel backend {backend!r} is not in this installation. {_what_is_available()}"
        raise BackendUnavailableError(message)
    if backend == "cpu" and tensor.device.type != "cpu":
        message = (
            f"Kernel backend 'cpu' takes tensors on the cpu, got one on {tensor.device}. "
            "Use auto or reference there."
        )
        raise BackendUnavailableError(message)
    return backend


def _what_is_available() -> str:
    return f"Available here: {', '.join(_AVAILABLE)}; auto takes the fastest."
