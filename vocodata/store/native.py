"""C functions of the store: decoders of c-blosc2, its zstd encoder, and a CRC-32C.

They lie in wheels that are installed anyway: the streams of our own chunks go straight to the zstd
and LZ4 that c-blosc2 brings along, other chunks to c-blosc2 itself. Addresses are given to LLVM
under our own names, so that numba can cache the reader on disk: a ctypes pointer in a compiled
function would tie it to one process. A library that is not found is no fault: without the decoder,
chunks are decoded by numcodecs (slower, same bytes), without the CRC, `verify` is what checks
chunks.

Odd choice: a decompression context of our own for each thread. `blosc2_decompress` shares one
global context, which is neither thread-safe nor free of a getenv a chunk.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import llvmlite.binding  # type: ignore[import-untyped]  # ships no types
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DECOMPRESS_SYMBOL = "voco_blosc2_decompress_ctx"
ZSTD_SYMBOL = "voco_zstd_decompress"
COMPRESS_SYMBOL = "voco_zstd_compress"
LZ4_SYMBOL = "voco_lz4_decompress"
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
    """Decompression contexts of one thread.

    Attributes:
        addresses: Of c-blosc2's context, and of zstd's; 0 without `HAS_STREAMS`.
    """

    def __init__(self) -> None:
        """Ask the library for contexts; `HAS_BLOSC2` says whether there is one."""
        self.addresses = (0, 0)
        assert _blosc2 is not None
        create = _blosc2.blosc2_create_dctx
        create.argtypes = [_DecodeSettings]
        create.restype = ctypes.c_void_p
        self.addresses = (int(create(_DecodeSettings(threads=1))), 0)
        if HAS_STREAMS:
            _blosc2.ZSTD_createDCtx.restype = ctypes.c_void_p
            self.addresses = (self.addresses[0], int(_blosc2.ZSTD_createDCtx()))

    def __del__(self) -> None:
        """Give the contexts back."""
        blosc2, zstd = self.addresses
        if _blosc2 is not None and blosc2:
            _blosc2.blosc2_free_ctx(ctypes.c_void_p(blosc2))
        if _blosc2 is not None and zstd:
            _blosc2.ZSTD_freeDCtx(ctypes.c_void_p(zstd))


class ZstdSettings(NamedTuple):
    """How zstd searches for matches; its manual says what each means (`ZSTD_cParameter`).

    Attributes:
        level: For a library that takes no more than that.
        strategy: 1 fast, 2 dfast, 3 greedy, 4 lazy.
        min_match: Bytes of the shortest match that is looked for.
        search_log: Two to this power of candidates are looked at.
        table_log: Two to this power of places are remembered.
    """

    level: int
    strategy: int
    min_match: int
    search_log: int
    table_log: int


# ZSTD_c_windowLog and so on, part of the stable interface since zstd 1.4.
_WINDOW_LOG, _HASH_LOG, _CHAIN_LOG, _SEARCH_LOG, _MIN_MATCH, _TARGET, _STRATEGY = range(101, 108)


class ZstdEncoder:
    """zstd with an encoding context that is kept; to make one for each stream is a quarter of it.

    Attributes:
        address: Of the context.

    Not for two threads at once. Only where `HAS_ENCODER` is true.
    """

    def __init__(self, settings: ZstdSettings, stream_log: int) -> None:
        """Ask the library for a context.

        Args:
            settings: How to search.
            stream_log: Streams have two to this power of bytes at most, or their far matches are
                not looked for.
        """
        self.address = 0
        assert _blosc2 is not None
        create, self._compress = _blosc2.ZSTD_createCCtx, _blosc2.ZSTD_compress2
        create.restype = ctypes.c_void_p
        self._compress.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t),
            *(ctypes.c_void_p, ctypes.c_size_t),
        ]
        self._compress.restype = ctypes.c_size_t
        self.address = int(create())
        table_log = settings.table_log
        for parameter, value in (
            *((_WINDOW_LOG, stream_log), (_HASH_LOG, table_log), (_CHAIN_LOG, table_log)),
            *((_SEARCH_LOG, settings.search_log), (_MIN_MATCH, settings.min_match)),
            *((_TARGET, 0), (_STRATEGY, settings.strategy)),
        ):
            _blosc2.ZSTD_CCtx_setParameter(ctypes.c_void_p(self.address), parameter, value)
        self._room = np.empty(0, np.uint8)

    def compress(self, data: NDArray[np.uint8]) -> bytes:
        """One zstd frame, or the data themselves where a frame would not be shorter."""
        if self._room.size < data.size:
            self._room = np.empty(data.size, np.uint8)
        got = self._compress(
            *(self.address, self._room.ctypes.data, data.size),
            *(data.ctypes.data, data.size),
        )
        # Too little room is a fault to zstd, and faults are sizes beyond any room.
        return self._room[:got].tobytes() if got < data.size else data.tobytes()

    def __del__(self) -> None:
        """Give the context back."""
        if _blosc2 is not None and self.address:
            _blosc2.ZSTD_freeCCtx(ctypes.c_void_p(self.address))


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
HAS_STREAMS = _blosc2 is not None and all(
    hasattr(_blosc2, symbol)
    for symbol in ("ZSTD_createDCtx", "ZSTD_freeDCtx", "ZSTD_decompressDCtx", "LZ4_decompress_safe")
)
"""Whether it can decode the streams of a chunk one by one; otherwise c-blosc2 decodes the whole."""
HAS_ENCODER = _blosc2 is not None and all(
    hasattr(_blosc2, symbol)
    for symbol in ("ZSTD_createCCtx", "ZSTD_freeCCtx", "ZSTD_CCtx_setParameter", "ZSTD_compress2")
)
"""Whether zstd streams can be made here; otherwise numcodecs makes them."""
HAS_CRC32C = _crc32c is not None
"""Whether the compiled reader can check chunks as it reads them."""


def _name_functions(blosc2: ctypes.CDLL) -> None:
    """Make the functions known to LLVM.

    A symbol that is never called must still resolve, so it borrows another's address.
    """
    decompress = _address(blosc2, "blosc2_decompress_ctx")
    zstd = _address(blosc2, "ZSTD_decompressDCtx") if HAS_STREAMS else decompress
    compress = _address(blosc2, "ZSTD_compress2") if HAS_ENCODER else decompress
    lz4 = _address(blosc2, "LZ4_decompress_safe") if HAS_STREAMS else decompress
    crc32c = decompress if _crc32c is None else _address(_crc32c, "crc32c_value")
    llvmlite.binding.add_symbol(DECOMPRESS_SYMBOL, decompress)
    llvmlite.binding.add_symbol(ZSTD_SYMBOL, zstd)
    llvmlite.binding.add_symbol(COMPRESS_SYMBOL, compress)
    llvmlite.binding.add_symbol(LZ4_SYMBOL, lz4)
    llvmlite.binding.add_symbol(CRC32C_SYMBOL, crc32c)


if _blosc2 is not None:
    _name_functions(_blosc2)
