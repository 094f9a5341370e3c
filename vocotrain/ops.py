"""The one door to vocokernels: everything else here imports kernels from this file."""

from vocokernels import (
    VoCoTerms,
    available_backends,
    crop_similarity,
    cut_crops,
    resolve_backend,
    voco_loss,
    window_attention,
)

__all__ = [
    "VoCoTerms",
    "available_backends",
    "crop_similarity",
    "cut_crops",
    "resolve_backend",
    "voco_loss",
    "window_attention",
]
