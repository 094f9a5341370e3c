"""Starting a GPU kernel."""

from typing import Any

import torch
from torch import Tensor

from vocokernels.errors import ShapeError

# what a launch may say besides a kernel's own constants
_OPTIONS = ("num_warps", "num_stages")
# of CUDA, and no more than ROCm's
MOST_PROGRAMS = (2**31 - 1, 65_535, 65_535)


def launch(
    kernel: Any,  # noqa: ANN401 - kernels have no type
    grid: tuple[int, ...],
    tensor: Tensor,
    *arguments: object,
    **constants: object,
) -> None:
    """Start a kernel where its first tensor lies, with those constants that it knows.

    Triton itself starts kernels on the current device, whatever device the tensors are on.

    Raises:
        ShapeError: More programs along an axis than a GPU starts.
    """
    check_grid(kernel.__name__, grid)
    known = {*kernel.arg_names, *_OPTIONS}
    chosen = {name: value for name, value in constants.items() if name in known}
    if not tensor.is_cuda:
        kernel[grid](tensor, *arguments, **chosen)
        return
    with torch.cuda.device(tensor.device):
        kernel[grid](tensor, *arguments, **chosen)


def check_grid(kernel: str, grid: tuple[int, ...]) -> None:
    """Refuse more programs than a GPU starts; its own words would name neither number.

    Raises:
        ShapeError: As said.
    """
    if all(asked <= most for asked, most in zip(grid, MOST_PROGRAMS, strict=False)):
        return
    message = (
        f"{kernel.strip('_')} was to start {' x '.join(map(str, grid))} programs; a GPU starts at "
        f"most {' x '.join(map(str, MOST_PROGRAMS[: len(grid)]))}. Give it fewer maps, crops or "
        "bases at once, or take backend='reference'."
    )
    raise ShapeError(message)
