"""Attention in shifted windows of a 3-D map, from q, k, v to the weighted values."""

from collections.abc import Sized

import torch
from torch import Tensor

from vocokernels.backends import (
    Backend,
    check_no_transform,
    check_one_device,
    chosen_backend,
)
from vocokernels.errors import BackendUnavailableError, DtypeError, ShapeError
from vocokernels.window_attention.boxes import Triple, as_triple, table_length
from vocokernels.window_attention.cpu import window_attention_cpu
from vocokernels.window_attention.gpu import window_attention_triton
from vocokernels.window_attention.reference import window_attention_reference
from vocokernels.window_attention.small import is_small
from vocokernels.window_attention.tiles import WIDEST_HEAD

_RUN = {
    "reference": window_attention_reference,
    "cpu": window_attention_cpu,
    "triton": window_attention_triton,
}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def window_attention(
    qkv: Tensor,
    bias_table: Tensor,
    *,
    heads: int,
    window: Triple,
    shift: Triple,
    pad_qkv: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention in shifted windows, without the two linear layers around it.

    Equals what MONAI's Swin block does between them (pad, roll, cut into windows, attention with
    relative position bias and region mask, and all the way back) in values and gradients. The
    map comes unpadded.

    Args:
        qkv: (B, X, Y, Z, 3 * C) as the linear layer gives it: q, k, v, each C = heads * d;
            q unscaled. float16, bfloat16, float32 or float64; half types are computed in float32.
        bias_table: ((2x - 1) * (2y - 1) * (2z - 1), heads) of a window (x, y, z).
        heads: Attention heads.
        window: Window, tokens. An axis of the map no longer than it becomes one unshifted window.
        shift: Shift of the windows, tokens, each less than the window.
        pad_qkv: (3 * C,), what a pad token's q, k, v are: the bias of the linear layer, or None
            if it has none.
        backend: `auto`, `reference`, `cpu` or `triton`; see `vocokernels.backends`. auto takes
            reference for heads too wide for a GPU's kernels, and where few and small windows
            of a processor make it the faster one.

    Returns:
        (B, X, Y, Z, C), heads side by side, in the type of `qkv`.

    Raises:
        ShapeError: Sizes that do not belong together, or an empty map.
        DtypeError: A type that is not a float.
        DeviceError: Tensors on different devices.
        UnknownBackendError: No backend has this name.
        BackendUnavailableError: The backend cannot run here.
        TransformError: An input comes from torch.func.vmap; but for reference, from jvp or grad.

    Source: Liu et al., arXiv:2103.14030; Hatamizadeh et al., arXiv:2201.01266. The boxes are ours:
    docs/kernels.md.
    """
    _check(qkv, bias_table, pad_qkv, heads)
    _check_window(bias_table, heads, window, shift)
    check_one_device(qkv=qkv, bias_table=bias_table, pad_qkv=pad_qkv)
    width = qkv.shape[4] // (3 * heads)
    inputs = (qkv, bias_table, pad_qkv)
    unfit = _unfit(qkv, heads, window, shift)
    chosen = chosen_backend("window_attention", backend, *inputs, unfit=unfit)
    if chosen == "triton" and width > WIDEST_HEAD:
        message = (
            f"Heads have {width} channels; backend 'triton' takes up to {WIDEST_HEAD}. Use "
            "reference or auto."
        )
        raise BackendUnavailableError(message)
    if chosen != "reference":
        check_no_transform("window_attention", *inputs)
    run = _RUN[chosen]
    return run(qkv, bias_table, window=window, shift=shift, pad_qkv=pad_qkv)


def _unfit(qkv: Tensor, heads: int, window: Triple, shift: Triple) -> Backend | None:
    """What `auto` should not take, however fast it is else."""
    if qkv.shape[4] // (3 * heads) > WIDEST_HEAD and qkv.device.type != "cpu":
        return "triton"
    if qkv.device.type != "cpu":
        return None
    maps, *sides = qkv.shape[:4]
    found = is_small(as_triple(sides), as_triple(window), as_triple(shift), heads=maps * heads)
    return "cpu" if found else None


def _check(qkv: Tensor, bias_table: Tensor, pad_qkv: Tensor | None, heads: int) -> None:
    if qkv.dim() != 5 or qkv.numel() == 0:
        message = f"qkv has shape {tuple(qkv.shape)}; expected (B, X, Y, Z, 3 * C), none of them 0."
        raise ShapeError(message)
    if heads < 1 or qkv.shape[4] % (3 * heads):
        message = (
            f"qkv has {qkv.shape[4]} channels; expected 3 * heads * d, a multiple of {3 * heads} "
            f"for {heads} heads."
        )
        raise ShapeError(message)
    if pad_qkv is not None and pad_qkv.shape != qkv.shape[4:]:
        message = (
            f"pad_qkv has shape {tuple(pad_qkv.shape)}; expected ({qkv.shape[4]},), the bias of "
            "the linear layer that made qkv."
        )
        raise ShapeError(message)
    for name, tensor in (("qkv", qkv), ("bias_table", bias_table), ("pad_qkv", pad_qkv)):
        if tensor is not None and tensor.dtype not in _DTYPES:
            message = f"{name} is {tensor.dtype}; expected float16, bfloat16, float32 or float64."
            raise DtypeError(message)


def _check_window(bias_table: Tensor, heads: int, window: Triple, shift: Triple) -> None:
    if _count(window) != 3 or min(window) < 1:
        message = f"window is {window}; expected three numbers of tokens, each 1 or more."
        raise ShapeError(message)
    if _count(shift) != 3 or not all(0 <= s < w for s, w in zip(shift, window, strict=True)):
        message = (
            f"shift is {shift}; expected three numbers of tokens, each at least 0 and less than "
            f"the window {window}."
        )
        raise ShapeError(message)
    expected = (table_length(window), heads)
    if tuple(bias_table.shape) != expected:
        message = (
            f"bias_table has shape {tuple(bias_table.shape)}; a window of {tuple(window)} with "
            f"{heads} heads needs {expected}: one row for each offset of two tokens."
        )
        raise ShapeError(message)


def _count(values: object) -> int:
    """How many numbers were given; of one alone, 1."""
    return len(values) if isinstance(values, Sized) else 1
