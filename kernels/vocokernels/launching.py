"""Starting a GPU kernel."""

from typing import Any

import torch
from torch import Tensor

# what a launch may say besides a kernel's own constants
_OPTIONS = ("num_warps", "num_stages")


def launch(
    kernel: Any,  # noqa: ANN401 - kernels have no type
    grid: tuple[int, ...],
    tensor: Tensor,
    *arguments: object,
    **constants: object,
) -> None:
    """Start a kernel where its first tensor lies, with those constants that it knows.

    Triton itself starts kernels on the current device, whatever device the tensors are on.
    """
    known = {*kernel.arg_names, *_OPTIONS}
    chosen = {name: value for name, value in constants.items() if name in known}
    if not tensor.is_cuda:
        kernel[grid](tensor, *arguments, **chosen)
        return
    with torch.cuda.device(tensor.device):
        kernel[grid](tensor, *arguments, **chosen)
