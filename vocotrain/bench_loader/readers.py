"""The readers that are compared: each gives the HU of a box, contiguous and its own memory.

The box is read from a file that is opened for it, as a loader that draws from 160,000 scans does;
our store, tensorstore and zarr-python hold their arrays open, which they are made for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vocodata.geometry import Size
from vocodata.store import open_store
from vocotrain.bench_loader.volumes import scan_id, store_path

if TYPE_CHECKING:
    from pathlib import Path

Reader = Callable[[int, Size, Size], NDArray[Any]]
Opener = Callable[["Path", int], Reader]
"""Opens what lies in a folder: (folder, number of volumes) -> reader."""

BASELINE = "torch.load .pt float32"
UNCHECKED = "voco zstd, unchecked"
"""Without comparing checksums: blosc2's containers have none."""
WINDOWED = "voco zstd, as float32 in [0, 1]"
WINDOW_HU = (-175.0, 250.0)


def open_all(folder: Path, volumes: int, others: dict[str, Opener]) -> dict[str, Reader]:
    """Every reader whose package is installed and whose files were written."""
    readers = {}
    for name, opener in (OPENERS | others).items():
        try:
            readers[name] = opener(folder, volumes)
        except (ModuleNotFoundError, FileNotFoundError):
            continue
    return readers


def _box(start: Size, size: Size) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def _store(codec: str, folder: Path, volumes: int, *, check_crc: bool = True) -> Reader:
    """Our store, through its public door."""
    store = open_store(store_path(folder, codec), check_crc=check_crc)
    assert len(store) == volumes
    return lambda number, start, size: store.read(scan_id(number), start, size)


def _windowed(folder: Path, volumes: int) -> Reader:
    """The same, and the crop brought to float32 in [0, 1] here; in training the device does it."""
    read = _store("zstd", folder, volumes)
    low, high = WINDOW_HU

    def windowed(number: int, start: Size, size: Size) -> NDArray[Any]:
        crop = read(number, start, size).astype(np.float32)
        crop -= np.float32(low)
        crop *= np.float32(1 / (high - low))
        return np.clip(crop, 0, 1, out=crop)

    return windowed


def _pt(folder: Path, _volumes: int, *, mmap: bool) -> Reader:
    """A float32 tensor a file, as MONAI's PersistentDataset caches; the slice is copied."""

    def read(number: int, start: Size, size: Size) -> NDArray[Any]:
        whole = torch.load(folder / f"{number}.pt", weights_only=True, mmap=mmap)
        crop: NDArray[Any] = whole[_box(start, size)].clone().numpy()
        return crop

    return read


def _memmap(dtype: str, folder: Path, _volumes: int) -> Reader:
    """The memory map by numpy of an uncompressed file."""

    def read(number: int, start: Size, size: Size) -> NDArray[Any]:
        whole = np.load(folder / f"{number}.{dtype}.npy", mmap_mode="r")
        return np.array(whole[_box(start, size)])

    return read


def _tensorstore(codec: str, folder: Path, volumes: int) -> Reader:
    """Tensorstore on our own store, one thread."""
    tensorstore: Any = importlib.import_module("tensorstore")
    limits = {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
    context = tensorstore.Context(limits)
    scans = store_path(folder, codec) / "scans"
    arrays = [
        tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": str(scans / scan_id(number) / "0")},
            },
            context=context,
            read=True,
        ).result()
        for number in range(volumes)
    ]

    def read(number: int, start: Size, size: Size) -> NDArray[Any]:
        crop: NDArray[Any] = arrays[number][_box(start, size)[::-1]].read().result()
        return crop.transpose(2, 1, 0)

    return read


def _b2nd(kind: str, folder: Path, _volumes: int) -> Reader:
    """c-blosc2's own container, one thread, memory-mapped."""
    blosc2: Any = importlib.import_module("blosc2")
    if not (folder / f"0.{kind}.b2nd").exists():
        raise FileNotFoundError
    blosc2.set_nthreads(1)

    def read(number: int, start: Size, size: Size) -> NDArray[Any]:
        array = blosc2.open(
            str(folder / f"{number}.{kind}.b2nd"),
            mode="r",
            mmap_mode="r",
            dparams={"nthreads": 1},
        )
        crop: NDArray[Any] = array[_box(start, size)]
        return crop

    return read


OPENERS: dict[str, Opener] = {
    BASELINE: partial(_pt, mmap=False),
    "voco zstd": partial(_store, "zstd"),
    "voco lz4": partial(_store, "lz4"),
    UNCHECKED: partial(_store, "zstd", check_crc=False),
    WINDOWED: _windowed,
    "tensorstore on voco zstd": partial(_tensorstore, "zstd"),
    "tensorstore on voco lz4": partial(_tensorstore, "lz4"),
    "b2nd int16, blocks of 16^3": partial(_b2nd, "int16"),
    "b2nd float32, as nnU-Net": partial(_b2nd, "nnunet"),
    "torch.load .pt, mmap=True": partial(_pt, mmap=True),
    "np.memmap float32": partial(_memmap, "float32"),
    "np.memmap int16": partial(_memmap, "int16"),
}
