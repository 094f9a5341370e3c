"""Keeping freed memory: what a step gives back, the next step wants again.

glibc returns every large block to the system when it is freed, and gets it back, page by page and
zeroed, a moment later. A training step on a CPU frees and takes gigabytes of maps, so a fifth of
its time goes there (benchmarks/model.py). With other allocators nothing is done.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Numbers of the options of mallopt, from malloc.h."""


def keep_freed_memory() -> bool:
    """Tell this process's allocator to keep what is freed for the next step.

    The price is that the process holds its peak until it ends, and some 5 % more through gaps.

    Returns:
        Whether the allocator took it; False where it is not glibc's.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
