"""Where a run computes, and in what arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vocotrain.errors import DeviceUnavailableError


@dataclass(frozen=True)
class Precision:
    """Arithmetic of the forward pass; weights, optimiser and losses are float32 always.

    Attributes:
        name: `fp32`, `bf16` or `fp16`.
        dtype: What autocast computes in.
        is_autocast: Whether autocast is on at all.
        is_scaled: Whether the loss is scaled, which fp16's small range needs.
    """

    name: str
    dtype: torch.dtype
    is_autocast: bool
    is_scaled: bool


PRECISIONS = {
    "fp32": Precision("fp32", torch.float32, is_autocast=False, is_scaled=False),
    "bf16": Precision("bf16", torch.bfloat16, is_autocast=True, is_scaled=False),
    "fp16": Precision("fp16", torch.float16, is_autocast=True, is_scaled=True),
}


def device_kind(choice: str) -> str:
    """`cuda` or `cpu`, as chosen or as there is.

    Args:
        choice: `auto`, `cpu` or `cuda`.

    Raises:
        DeviceUnavailableError: CUDA is asked for and not there.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        msg = (
            f"device is 'cuda', but torch {torch.__version__} sees no GPU here; expected one. "
            "Set device=cpu, or install a CUDA build of torch and check the driver."
        )
        raise DeviceUnavailableError(msg)
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return choice


def chosen_precision(choice: str, kind: str) -> Precision:
    """The arithmetic chosen, or the best one for the device.

    Args:
        choice: `auto`, `fp32`, `bf16` or `fp16`.
        kind: `cuda` or `cpu`.

    Raises:
        DeviceUnavailableError: fp16 on the CPU, whose gradients need the GPU's loss scaling.
    """
    if choice == "auto":
        if kind == "cpu":
            return PRECISIONS["fp32"]
        # older GPUs only imitate bf16
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return PRECISIONS["bf16" if has_bf16 else "fp16"]
    if choice == "fp16" and kind == "cpu":
        msg = "precision is 'fp16', but the device is the CPU; expected fp32 or bf16 there."
        raise DeviceUnavailableError(msg)
    return PRECISIONS[choice]
