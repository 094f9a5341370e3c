"""Kernels of the VoCo toolkit: tensors in, tensors out, each with a plain PyTorch specification."""

from vocokernels.backends import available_backends, resolve_backend
from vocokernels.crop_similarity import crop_similarity
from vocokernels.cut_crops import cut_crops
from vocokernels.errors import KernelError
from vocokernels.monai_patch import MonaiPatch, patch_monai, unpatch_monai
from vocokernels.voco_loss import VoCoTerms, voco_loss
from vocokernels.window_attention import window_attention

__all__ = [
    "KernelError",
    "MonaiPatch",
    "VoCoTerms",
    "available_backends",
    "crop_similarity",
    "cut_crops",
    "patch_monai",
    "resolve_backend",
    "unpatch_monai",
    "voco_loss",
    "window_attention",
]
