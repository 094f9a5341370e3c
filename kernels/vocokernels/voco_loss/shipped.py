"""How the losses' kernels are launched, for the static check."""

import torch

from vocokernels.static_gpu import ShippedKernel
from vocokernels.voco_loss.kernel import (
    _bases_bwd_kernel,
    _cosines_kernel,
    _crops_bwd_kernel,
    _terms_kernel,
)
from vocokernels.voco_loss.op import settings

_KERNELS = {
    "cosines": _cosines_kernel,
    "terms": _terms_kernel,
    "crops backward": _crops_bwd_kernel,
    "bases backward": _bases_bwd_kernel,
}
_EMBEDDINGS = (
    "x_student_ptr",
    "x_teacher_ptr",
    "base_student_ptr",
    "base_teacher_ptr",
    "x_grad_ptr",
    "base_grad_ptr",
)
_IN_FLOAT32 = ("label_ptr", "term_ptr", "cosine_ptr", "norm_ptr", "count_ptr", "grad_ptr")


def shipped() -> list[ShippedKernel]:
    """Each kernel for each type of embedding that training knows."""
    return [
        _shipped(name, embedding)
        for name in _KERNELS
        # the sums read cosines only, which are float32 always
        for embedding in (("fp32",) if name == "terms" else ("bf16", "fp16", "fp32"))
    ]


def _shipped(name: str, embedding: str) -> ShippedKernel:
    constants = {
        **settings(torch.float32),
        "HAS_INTER": True,
        "CLAMPED": True,
        "SYMMETRIC": True,
    }
    num_warps, num_stages = constants.pop("num_warps"), constants.pop("num_stages")
    return ShippedKernel(
        name=f"voco_loss {name} {embedding}",
        fn=_KERNELS[name],
        signature={
            **dict.fromkeys(_EMBEDDINGS, f"*{embedding}"),
            **dict.fromkeys(_IN_FLOAT32, "*fp32"),
            **dict.fromkeys("BNKD", "i32"),
            **dict.fromkeys(constants, "constexpr"),
        },
        constexprs=constants,
        divisible_by_16=("D",),
        num_warps=num_warps,
        num_stages=num_stages,
    )
