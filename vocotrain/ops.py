"""The one door to vocokernels: everything else here imports kernels from this file."""

from functools import partial

from vocokernels import (
    VoCoTerms,
    available_backends,
    crop_similarity,
    cut_crops,
    resolve_backend,
    voco_loss,
    window_attention,
)
from vocokernels.backends import check_no_transform as _check_no_transform
from vocokernels.window_attention.counts import (
    HalfWork,
    box_pairs,
    half_work,
    padded_tokens,
    window_pairs,
)
from vocokernels.workers import run_shares, worker_count

__all__ = [
    "HalfWork",
    "VoCoTerms",
    "available_backends",
    "box_pairs",
    "check_no_transform",
    "crop_similarity",
    "cut_crops",
    "half_work",
    "padded_tokens",
    "resolve_backend",
    "run_shares",
    "voco_loss",
    "window_attention",
    "window_pairs",
    "worker_count",
]

# what has no backends has no slower way either
check_no_transform = partial(_check_no_transform, instead="Use backward() without torch.func.")
