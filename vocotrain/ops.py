"""The one door to vocokernels: everything else here imports kernels from this file."""

from vocokernels import available_backends, resolve_backend, window_attention

__all__ = ["available_backends", "resolve_backend", "window_attention"]
