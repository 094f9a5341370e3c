"""How crop_similarity's kernels are launched, for the static check."""

import torch

from vocokernels.crop_similarity.kernel import (
    _similarity_bwd_kernel,
    _similarity_fwd_kernel,
    tile,
)
from vocokernels.static_gpu import ShippedKernel

_IN_FLOAT32 = ("cosine_ptr", "x_norm_ptr", "base_norm_ptr", "row_norm_ptr", "other_norm_ptr")
_SIZES = ("N", "K", "D", "stride_n", "stride_k")


def shipped() -> list[ShippedKernel]:
    """Forward and backward for each type of embedding that training knows."""
    return [
        _shipped(*kernel, embedding)
        for kernel in (
            ("forward", _similarity_fwd_kernel),
            ("backward", _similarity_bwd_kernel),
        )
        for embedding in ("bf16", "fp16", "fp32")
    ]


def _shipped(name: str, kernel: object, embedding: str) -> ShippedKernel:
    settings = tile(torch.float32)
    num_warps, num_stages = settings.pop("num_warps"), settings.pop("num_stages")
    embeddings = ("x_ptr", "base_ptr", "row_ptr", "other_ptr", "row_grad_ptr")
    return ShippedKernel(
        name=f"crop_similarity {name} {embedding}",
        fn=kernel,
        signature={
            **dict.fromkeys(embeddings, f"*{embedding}"),
            **dict.fromkeys(("grad_ptr", *_IN_FLOAT32), "*fp32"),
            **dict.fromkeys(_SIZES, "i32"),
            **dict.fromkeys(settings, "constexpr"),
        },
        constexprs=settings,
        divisible_by_16=("D",),
        num_warps=num_warps,
        num_stages=num_stages,
    )
