"""Which implementation runs.

`reference` is plain PyTorch and the specification: it runs on any device, slowly. `cpu` is the
fast path on a processor. `triton` are the GPU kernels, for CUDA and ROCm; they need the package
triton. `auto` takes the fastest one that can run. The environment variable VOCO_KERNELS=reference,
read at each call, makes `auto` mean `reference`: the one switch to tell a kernel's fault from
another. TRITON_INTERPRET=1 lets the GPU kernels run on a processor, slowly, to test them; `auto`
does not choose that.

What `auto` chose is said once for each operation and choice, to the logger `vocokernels`: as
information, and as a warning where a GPU goes without its kernels.
"""

import logging
import os
from importlib import util
from typing import Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vocokernels.errors import (
    BackendUnavailableError,
    DeviceError,
    TransformError,
    UnknownBackendError,
)

Backend = Literal["reference", "cpu", "triton"]
BackendChoice = Literal["auto", "reference", "cpu", "triton"]

ENVIRONMENT_SWITCH = "VOCO_KERNELS"
_KNOWN: tuple[Backend, ...] = ("reference", "cpu", "triton")
INTERPRET_SWITCH = "TRITON_INTERPRET"
_HAS_TRITON = util.find_spec("triton") is not None

_logger = logging.getLogger("vocokernels")
_said: set[tuple[str, Backend]] = set()


def available_backends() -> tuple[Backend, ...]:
    """Backends that can run in this installation, the specification first."""
    can_run_triton = _HAS_TRITON and (torch.cuda.is_available() or is_interpreted())
    return _KNOWN if can_run_triton else ("reference", "cpu")


def is_interpreted() -> bool:
    """Whether GPU kernels are run on the processor, by TRITON_INTERPRET."""
    return os.environ.get(INTERPRET_SWITCH, "").lower() in ("1", "true", "yes", "on", "y")


def chosen_backend(
    operation: str, backend: str, *tensors: Tensor | None, unfit: Backend | None = None
) -> Backend:
    """The backend that will run an operation; says once what `auto` chose.

    Args:
        operation: Its name, for people.
        backend: `auto`, or the name of one.
        tensors: Its inputs; the first one's device decides.
        unfit: A backend that does not suit these sizes: `auto` takes reference instead of it.

    Raises:
        UnknownBackendError: No backend has this name (argument or VOCO_KERNELS).
        BackendUnavailableError: The backend is not in this installation, or not for this device.
        TransformError: An input comes from torch.func.vmap.
    """
    decisive = tensors[0]
    assert decisive is not None
    if torch.compiler.is_compiling():
        # a trace holds neither log nor vmap
        return _suited(resolve_backend(backend, decisive), backend, unfit)
    if any(tensor is not None and _is_vmapped(tensor) for tensor in tensors):
        message = (
            f"{operation} was called under torch.func.vmap, which its kernels do not take; "
            "expected plain tensors. Its first axis is the batch: call it once with all maps."
        )
        raise TransformError(message)
    chosen = _suited(resolve_backend(backend, decisive), backend, unfit)
    if backend == "auto":
        _say_once(operation, chosen, decisive.device)
    return chosen


def check_one_device(**tensors: Tensor | None) -> None:
    """Refuse tensors on different devices, which a kernel would read as memory of its own.

    Raises:
        DeviceError: One lies elsewhere than the first.
    """
    first, *others = ((name, one.device) for name, one in tensors.items() if one is not None)
    for name, device in others:
        if device != first[1]:
            message = (
                f"{name} lies on {device} and {first[0]} on {first[1]}; expected one device for "
                f"all. Move it there: {name}.to({str(first[1])!r})."
            )
            raise DeviceError(message)


def check_no_transform(
    operation: str,
    *tensors: Tensor | None,
    instead: str = "Use backend='reference', or backward() without torch.func.",
) -> None:
    """Refuse derivatives by torch.func, which torch's custom operators lack.

    A forward-mode derivative would silently be zero, a gradient an error about `setup_context`.

    Args:
        operation: Its name, for people.
        tensors: Its inputs.
        instead: What to do, for people.

    Raises:
        TransformError: An input has a tangent, as under torch.func.jvp, or wants a gradient of
            torch.func.grad.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    if any(map(has_tangent, given)):
        asked = "with a forward-mode derivative (torch.func.jvp)"
    elif any(map(_wants_functional_gradient, given)):
        asked = "under torch.func.grad"
    else:
        return
    message = (
        f"{operation} was called {asked}, which its kernels do not take; expected plain tensors. "
        f"{instead}"
    )
    raise TransformError(message)


def has_tangent(tensor: Tensor) -> bool:
    """Whether a tensor carries a forward-mode derivative; of no trace."""
    if torch.compiler.is_compiling():
        return False
    dual: forward_ad.UnpackedDualTensor = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]  # torch's own
    return dual.tangent is not None


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
        return _fastest(tensor.device)
    if backend not in _KNOWN:
        message = (
            f"Kernel backend {backend!r} is unknown; expected auto, {', '.join(_KNOWN)}. "
            f"{_what_is_available()}"
        )
        raise UnknownBackendError(message)
    if backend == "triton":
        _check_triton(tensor.device)
    if backend == "cpu" and tensor.device.type != "cpu":
        message = (
            f"Kernel backend 'cpu' takes tensors on the cpu, got one on {tensor.device}. "
            "Use auto or reference there."
        )
        raise BackendUnavailableError(message)
    return backend


def _suited(resolved: Backend, backend: str, unfit: Backend | None) -> Backend:
    return "reference" if backend == "auto" and resolved == unfit else resolved


def _say_once(operation: str, chosen: Backend, device: torch.device) -> None:
    if (operation, chosen) in _said:
        return
    _said.add((operation, chosen))
    asked = os.environ.get(ENVIRONMENT_SWITCH, "")
    if chosen == "reference" and device.type == "cuda" and not asked:
        cause = (
            "its kernels do not take these sizes"
            if _HAS_TRITON
            else "the package triton is missing. Install voco-toolkit[triton]"
        )
        _logger.warning(
            "%s runs by its plain specification on %s, which is slow: %s.", operation, device, cause
        )
        return
    reason = f"{ENVIRONMENT_SWITCH}={asked}" if asked else "auto"
    _logger.info("%s runs on backend '%s' (%s, tensors on %s)", operation, chosen, reason, device)


def _is_vmapped(tensor: Tensor) -> bool:
    """Whether torch.func.vmap hides an axis of a tensor, under other transforms or not."""
    return any(map(torch._C._functorch.is_batchedtensor, _wrappers(tensor)))


def _wants_functional_gradient(tensor: Tensor) -> bool:
    """Whether torch.func.grad, or what is built on it, asks for a tensor's gradient."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    is_tracked = torch._C._functorch.is_gradtrackingtensor
    return any(is_tracked(one) and one.requires_grad for one in _wrappers(tensor))


def _wrappers(tensor: Tensor) -> list[Tensor]:
    """What transforms of torch.func made of a plain tensor, the last one first."""
    # torch has no public way to ask
    functorch = torch._C._functorch
    found = []
    while functorch.is_functorch_wrapped_tensor(tensor):
        found.append(tensor)
        tensor = functorch.get_unwrapped(tensor)
    return found


def _fastest(device: torch.device) -> Backend:
    if device.type == "cpu":
        return "cpu"
    return "triton" if device.type == "cuda" and _HAS_TRITON else "reference"


def _check_triton(device: torch.device) -> None:
    if not _HAS_TRITON:
        message = (
            "Kernel backend 'triton' is not in this installation: the package triton is missing. "
            f"Install voco-toolkit[triton]. {_what_is_available()}"
        )
        raise BackendUnavailableError(message)
    # ROCm's devices are called cuda too
    if device.type != "cuda" and not is_interpreted():
        message = (
            f"Kernel backend 'triton' takes tensors on a GPU, got one on {device}. Use auto or "
            f"reference there; to test the kernels without a GPU, start with {INTERPRET_SWITCH}=1. "
            f"{_what_is_available()}"
        )
        raise BackendUnavailableError(message)


def _what_is_available() -> str:
    return f"Available here: {', '.join(available_backends())}; auto takes the fastest."
