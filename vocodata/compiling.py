"""How this package compiles its inner loops: once, kept on disk, with the interpreter lock free."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call and keep it beside the file, or in the user's cache folder.

    What is kept is used as long as no file of the function's folder has changed. numba by itself
    looks at the function's own file only: after an upgrade that changes a constant or a called
    function elsewhere, it would go on with the old machine code, which nothing would tell.

    Where nothing can be kept (a read-only container without a home, a numba whose cache we do not
    know), every process compiles anew: seconds lost, where numba would refuse to start.
    """
    try:
        kept: Any = njit(cache=True, nogil=True, boundscheck=False)(function)
        file = kept._cache._cache_file
        file._source_stamp = (
            file._source_stamp,
            _digest(Path(function.__code__.co_filename).parent),
        )
    except (RuntimeError, AttributeError):
        kept = njit(nogil=True, boundscheck=False)(function)
    result: Callable[P, R] = kept
    return result


@functools.cache
def _digest(folder: Path) -> str:
    """Of all sources in a folder."""
    sources = (file.read_bytes() for file in sorted(folder.glob("*.py")))
    return hashlib.sha256(
        b"".join(hashlib.sha256(source).digest() for source in sources)
    ).hexdigest()
