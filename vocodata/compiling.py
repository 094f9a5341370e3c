"""How this package compiles its inner loops: once, kept on disk, with the interpreter lock free."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call and keep it beside the file, or in the user's cache folder.

    Where neither can be written (a read-only container without a home), every process compiles
    anew: seconds lost, where numba would refuse to start.
    """
    try:
        return _kept(function, cache=True)
    except RuntimeError:
        return _kept(function, cache=False)


def _kept(function: Callable[P, R], *, cache: bool) -> Callable[P, R]:
    kept: Callable[P, R] = njit(cache=cache, nogil=True, boundscheck=False)(function)
    return kept
