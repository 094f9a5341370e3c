"""Kernels of the VoCo toolkit: tensors in, tensors out, each with a plain PyTorch specification."""

from vocokernels.backends import available_backends, resolve_backend
from vocokernels.window_attention import window_attention

__all__ = ["available_backends", "resolve_backend", "window_attention"]
