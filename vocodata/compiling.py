"""How this package compiles its inner loops: once, kept on disk, with the interpreter lock free."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_IMPORT = re.compile(r"^from +([\w.]+) +import +(?:\(([^)]*)\)|(.*))$", re.MULTILINE)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call and keep it beside the file, or in the user's cache folder.

    What is kept is used as long as neither the function's module nor one of this package that it
    imports, in turn, has changed. numba by itself looks at the function's own file only: after an
    upgrade that changes a constant or a called function elsewhere, it would go on with the old
    machine code, which nothing would tell.

    Where nothing can be kept (a read-only container without a home, a full disk, a numba whose
    cache we do not know), every process compiles anew: seconds lost, where numba would refuse to
    start, or to go on.
    """
    try:
        kept: Any = njit(cache=True, nogil=True, boundscheck=False)(function)
        file = kept._cache._cache_file
        file._source_stamp = (file._source_stamp, _digest(function.__module__))
        _name_by_key(file)
        kept._cache.save_overload = _if_there_is_room(kept._cache.save_overload)
    except (RuntimeError, AttributeError, OSError):
        kept = njit(nogil=True, boundscheck=False)(function)
    result: Callable[P, R] = kept
    return result


def _name_by_key(file: Any) -> None:  # noqa: ANN401 (numba's IndexDataCacheFile)
    """Call what is kept after what it is compiled for, and from.

    numba numbers it: of two processes that compile a function for different types at once, both may
    take one number, and from then on one kind of array is worked on by the other's machine code.
    """
    save, index, folder = file.save, file._load_index, Path(file._cache_path)
    stem = file._index_name.removesuffix(".nbi")
    assert callable(file._data_name)

    def saved(key: object, data: object) -> None:
        if not index():
            for old in folder.glob(f"{glob.escape(stem)}.*.nbc"):
                old.unlink(missing_ok=True)
        mark = hashlib.sha256(repr((key, file._source_stamp)).encode()).hexdigest()[:16]
        file._data_name = lambda number: f"{stem}.{mark}-{number}.nbc"
        save(key, data)

    file.save = saved


def _if_there_is_room(save: Callable[P, None]) -> Callable[P, None]:
    """Keep nothing on a full disk: what was compiled is at hand, and the caller's data is not."""

    def saved(*args: P.args, **kwargs: P.kwargs) -> None:
        with contextlib.suppress(OSError):
            save(*args, **kwargs)

    return saved


@functools.cache
def _digest(module: str) -> str:
    """Of the sources of a module and of what it imports from its package, in turn."""
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name not in sources and file is not None:
            sources[name] = Path(file).read_bytes()
            waiting += _imports(sources[name].decode(), package=module.partition(".")[0])
    each = (hashlib.sha256(sources[name]).digest() for name in sorted(sources))
    return hashlib.sha256(b"".join(each)).hexdigest()


def _imports(source: str, *, package: str) -> list[str]:
    """Modules of the package that a source imports when it is loaded."""
    found = []
    for origin, bracketed, plain in _IMPORT.findall(source):
        if origin.partition(".")[0] == package:
            names = re.findall(r"\w+", bracketed or plain)
            below = [f"{origin}.{name}" for name in names if f"{origin}.{name}" in sys.modules]
            found += below or [origin]
    return found
