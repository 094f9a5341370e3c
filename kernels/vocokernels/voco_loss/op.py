"""The GPU kernels of the losses as operations of torch: launched, registered, differentiable.

Letters as in `reference.py`, and R = 3N + K rows of cosines, L = N + 2K lengths of embeddings.
"""

from typing import Any

import torch
from torch import Tensor

from vocokernels.crop_similarity.kernel import (
    BLOCK_CHANNELS,
    BLOCK_ROWS,
    tile,
)
from vocokernels.launching import launch
from vocokernels.precision import compute_dtype
from vocokernels.voco_loss.kernel import (
    _bases_bwd_kernel,
    _cosines_kernel,
    _crops_bwd_kernel,
    _terms_kernel,
)
from vocokernels.voco_loss.reference import EPSILON, Repairs

# cells of a table that the sums take at a time
BLOCK_CELLS = 256


def voco_loss_triton(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
    repairs: Repairs,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments as for `vocokernels.voco_loss`, checked; embeddings on a GPU."""
    has_inter = not (repairs.inter_needs_two and x_student.shape[0] == 1)
    terms_3B: Tensor = _forward_op(
        x_student,
        x_teacher.detach(),
        bases_student,
        bases_teacher.detach(),
        labels.detach(),
        has_inter,
        repairs.clamped_similarity,
        repairs.symmetric_regulariser,
    )[0]
    intra, inter, regulariser = terms_3B.mean(1).unbind()
    return intra, inter, regulariser


def settings(dtype: torch.dtype) -> dict[str, Any]:
    """What launches share; each takes what it knows."""
    return {**tile(dtype), "EPSILON": EPSILON, "BLOCK_CELLS": BLOCK_CELLS}


def _tiles(count: int, block: int = BLOCK_ROWS) -> int:
    return -(-count // block)


@torch.library.custom_op("vocokernels::voco_loss_triton", mutates_args=())
def _forward_op(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
    has_inter: bool,  # noqa: FBT001 - the operator's signature
    clamped: bool,  # noqa: FBT001 - the operator's signature
    symmetric: bool,  # noqa: ARG001, FBT001 - the operator's signature; the backward pass asks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Terms of each volume (3, B), and what the backward pass needs: cosines, lengths, counts."""
    embeddings = (x_student, x_teacher, bases_student, bases_teacher)
    terms_3B, cosine_BRK, norm_BL, count_B4 = _outputs(*embeddings)
    (volumes, crops, channels), bases = x_student.shape, bases_student.shape[1]
    sizes = (volumes, crops, bases)
    choices: dict[str, Any] = {"HAS_INTER": has_inter, "CLAMPED": clamped}
    choices |= settings(terms_3B.dtype)
    # one kernel chooses among the four, so they share a type; mostly they do already
    common = _common_type(*embeddings)
    grid = (volumes, 4, _tiles(max(crops, bases)) * _tiles(bases))
    rows = (tensor.to(common).contiguous() for tensor in embeddings)
    launch(_cosines_kernel, grid, *rows, cosine_BRK, norm_BL, *sizes, channels, **choices)
    tables = (labels.contiguous(), cosine_BRK, terms_3B, count_B4)
    launch(_terms_kernel, (volumes,), *tables, *sizes, **choices)
    return terms_3B, cosine_BRK, norm_BL, count_B4


@torch.library.custom_op("vocokernels::voco_loss_triton_backward", mutates_args=())
def _backward_op(
    grad_3B: Tensor,
    x_student: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
    cosine_BRK: Tensor,
    norm_BL: Tensor,
    count_B4: Tensor,
    has_inter: bool,  # noqa: FBT001 - the operator's signature
    clamped: bool,  # noqa: FBT001 - the operator's signature
    symmetric: bool,  # noqa: FBT001 - the operator's signature
) -> tuple[Tensor, Tensor]:
    x_grad, bases_grad = _gradients(x_student, bases_student)
    (volumes, crops, channels), bases = x_student.shape, bases_student.shape[1]
    sizes = (volumes, crops, bases, channels)
    stretches = _tiles(channels, BLOCK_CHANNELS)
    choices: dict[str, Any] = {"HAS_INTER": has_inter, "CLAMPED": clamped, "SYMMETRIC": symmetric}
    choices |= settings(cosine_BRK.dtype)
    grad_3B, x_student, bases_student = (
        tensor.contiguous() for tensor in (grad_3B, x_student, bases_student)
    )
    saved = (cosine_BRK, norm_BL, count_B4)
    crop_side = (bases_teacher.contiguous(), labels.contiguous(), *saved, x_grad, *sizes)
    shared = (grad_3B, x_student, bases_student)
    launch(_crops_bwd_kernel, (volumes, _tiles(crops), stretches), *shared, *crop_side, **choices)
    base_side = (*saved, bases_grad, *sizes)
    launch(_bases_bwd_kernel, (volumes, _tiles(bases), stretches), *shared, *base_side, **choices)
    return x_grad, bases_grad


def _common_type(*tensors: Tensor) -> torch.dtype:
    types = {tensor.dtype for tensor in tensors}
    return types.pop() if len(types) == 1 else compute_dtype(*tensors)


def _outputs(
    x_student: Tensor, x_teacher: Tensor, bases_student: Tensor, bases_teacher: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x_student, x_teacher, bases_student, bases_teacher)
    volumes, crops, bases = *x_student.shape[:2], bases_student.shape[1]
    shapes = ((3, volumes), (volumes, 3 * crops + bases, bases), (volumes, crops + 2 * bases))
    terms_3B, cosine_BRK, norm_BL, count_B4 = (
        x_student.new_empty(shape, dtype=dtype) for shape in (*shapes, (volumes, 4))
    )
    return terms_3B, cosine_BRK, norm_BL, count_B4


def _gradients(x_student: Tensor, bases_student: Tensor) -> tuple[Tensor, Tensor]:
    return x_student.new_empty(x_student.shape), bases_student.new_empty(bases_student.shape)


@_forward_op.register_fake
def _(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    *_others: Any,  # noqa: ANN401 - of no account here
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(x_student, x_teacher, bases_student, bases_teacher)


@_backward_op.register_fake
def _(
    grad_3B: Tensor,  # noqa: ARG001 - the operator's signature
    x_student: Tensor,
    bases_student: Tensor,
    *_others: Any,  # noqa: ANN401 - of no account here
) -> tuple[Tensor, Tensor]:
    return _gradients(x_student, bases_student)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - autograd's context has no public type
    x_student, _, bases_student, bases_teacher, labels, *ctx.choices = inputs
    saved = output[1:]
    ctx.save_for_backward(x_student, bases_student, bases_teacher, labels, *saved)
    ctx.mark_non_differentiable(*saved)


def _backward(ctx: Any, grad_3B: Tensor, *_of_saved: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - autograd's context has no public type
    x_grad, bases_grad = _backward_op(grad_3B, *ctx.saved_tensors, *ctx.choices)
    return x_grad, None, bases_grad, None, None, None, None, None


_forward_op.register_autograd(_backward, setup_context=_save)
