"""Blocks of work shared out to threads, for compiled code, which lets go of Python's lock."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


def in_threads(
    work: Callable[[range], T], count: int, *, block: int, threads: int | None
) -> Iterator[tuple[range, T]]:
    """Work on `count` things, a block at a time.

    Args:
        work: What to do with a block; called in several threads at once.
        count: Things.
        block: Things in a block.
        threads: None takes as many as there are cores.

    Yields:
        Each block and what came of it, in order, so the threads change nothing but the time.
    """
    blocks = [range(start, min(count, start + block)) for start in range(0, count, block)]
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        yield from zip(blocks, pool.map(work, blocks), strict=True)
