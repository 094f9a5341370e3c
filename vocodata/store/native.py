"""Two C functions that the compiled reader calls: c-blosc2's decoder and a CRC-32C.

Both lie in wheels that are installed anyway. Their addresses are given to LLVM under our own
names, so that numba can cache the reader on disk: a ctypes pointer in a compiled function would
tie it to one process. A library that is not found is no fault: without the decoder, chunks are
decoded by numcodecs (slower, same bytes), without the CRC, `verify` is what checks chunks.

Odd choice: a decompression context of our own for each thread. `blosc2_decompress` shares one
global context, which is neither thread-safe nor free of a getenv a chunk.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import llvmlite.binding  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    from collections.abc import Iterator

DECOMPRESS_SYMBOL = "voco_blosc2_decompress_ctx"
CRC32C_SYMBOL = "voco_crc32c_value"


class _DecodeSettings(ctypes.Structure):
    """`blosc2_dparams` of c-blosc2 2.x, with room for members that later versions add."""

    _fields_ = (
        ("threads", ctypes.c_int16),
        ("members", ctypes.c_void_p * 3),
        ("typesize", ctypes.c_int32),
        ("later_members", ctypes.c_void_p * 6),
    )


class DecodeContext:
    """A c-blosc2 decompression context with one thread; its address is `.address`."""

    def __init__(self) -> None:
        """Ask the library for a context; `HAS_BLOSC2` says whether there is one."""
        self.address = 0
        assert _blosc2 is not None
        create = _blosc2.blosc2_create_dctx
        create.argtypes = [_DecodeSettings]
        create.restype = ctypes.c_void_p
        self.address = int(create(_DecodeSettings(threads=1)))

    def __del__(self) -> None:
        """Give the context back."""
        if _blosc2 is not None and self.address:
            _blosc2.blosc2_free_ctx(ctypes.c_void_p(self.address))


def _package_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _blosc2_candidates() -> Iterator[Path | str]:
    """Where wheels, distributions and conda put the library, most likely first."""
    folder = _package_folder("blosc2")
    if folder is not None:
        places = (folder / "lib", folder, folder.parent / "blosc2.libs", folder / ".dylibs")
        for place in places:
            yield from sorted(
                itertools.chain(place.glob("libblosc2*.so*"), place.glob("libblosc2*.dylib"))
            )
    yield from ("libblosc2.so", "libblosc2.dylib")


def _crc32c_candidates() -> Iterator[Path | str]:
    folder = _package_folder("google_crc32c")
    if folder is not None:
        for place in (folder.parent / "google_crc32c.libs", folder / ".dylibs", folder):
            yield from sorted(
                itertools.chain(place.glob("libcrc32c*.so*"), place.glob("libcrc32c*.dylib"))
            )
    yield from ("libcrc32c.so", "libcrc32c.dylib")


def _first_library(
    candidates: Iterator[Path | str], symbols: tuple[str, ...]
) -> ctypes.CDLL | None:
    for candidate in candidates:
        try:
            library = ctypes.CDLL(str(candidate))
        except OSError:
            continue
        if all(hasattr(library, symbol) for symbol in symbols):
            return library
    return None


def _address(library: ctypes.CDLL, symbol: str) -> int:
    address = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
    assert address is not None
    return address


def _load_blosc2() -> ctypes.CDLL | None:
    library = _first_library(
        _blosc2_candidates(), ("blosc2_init", "blosc2_create_dctx", "blosc2_decompress_ctx")
    )
    if library is not None:
        library.blosc2_init()
    return library


_blosc2 = _load_blosc2()
_crc32c = _first_library(_crc32c_candidates(), ("crc32c_value",))

HAS_BLOSC2 = _blosc2 is not None
"""Whether the compiled reader can decode; otherwise numcodecs does."""
HAS_CRC32C = _crc32c is not None
"""Whether the compiled reader can check chunks as it reads them."""

if _blosc2 is not None:
    llvmlite.binding.add_symbol(DECOMPRESS_SYMBOL, _address(_blosc2, "blosc2_decompress_ctx"))
    # A symbol that is never called must still resolve, so it borrows the other's address.
    llvmlite.binding.add_symbol(
        CRC32C_SYMBOL,
        _address(_crc32c, "crc32c_value")
        if _crc32c is not None
        else _address(_blosc2, "blosc2_decompress_ctx"),
    )
