"""Volumes made to look like CT, on disk in every format that is compared.

Shape letters: X Y Z voxels.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vocodata.discover import Scan
from vocodata.geometry import Size, Spacing, Volume
from vocodata.ingest import ProcessedScan, ScanStats
from vocodata.store import write_scan
from vocodata.store.root import publish

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODECS = ("zstd", "lz4")
_SPACING_MM = 1.5


def ct_like(seed: int, size: Size) -> NDArray[np.int16]:
    """A body in air with correlated noise of 15 to 25 HU, so that it compresses as CT does.

    Returns:
        HU (X, Y, Z), Fortran order as a NIfTI's bytes lie.
    """
    rng = np.random.default_rng(seed)
    shape_ZYX = size[::-1]
    noise = rng.normal(size=shape_ZYX).astype(np.float32)
    for axis in range(3):
        noise = 0.25 * np.roll(noise, 1, axis) + 0.5 * noise + 0.25 * np.roll(noise, -1, axis)
    noise *= rng.uniform(15, 25) / noise.std()
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape_ZYX)
    radius = (y[:, None] / 0.75) ** 2 + (x[None, :] / 0.9) ** 2
    tissue = np.where(radius < 0.8, 45, -90) + 60 * np.sin(5 * x[None, :] + 3 * y[:, None])
    hu = np.where(radius < 1, tissue, -1000)[None] + 20 * np.sin(9 * z)[:, None, None] + noise
    clipped_ZYX: NDArray[np.int16] = np.clip(hu, -1024, 3071).round().astype(np.int16)
    return clipped_ZYX.transpose(2, 1, 0)


def write_all(folder: Path, volumes: list[NDArray[np.int16]], *, is_quick: bool) -> None:
    """Write the volumes for all readers, and wait until they are on the disk."""
    for codec in CODECS:
        write_store(store_path(folder, codec), volumes, codec)
    for number, data in enumerate(volumes):
        as_float = np.ascontiguousarray(data, dtype=np.float32)
        torch.save(torch.from_numpy(as_float), folder / f"{number}.pt")
        np.save(folder / f"{number}.float32.npy", as_float)
        np.save(folder / f"{number}.int16.npy", np.ascontiguousarray(data))
        _write_b2nd(folder, number, np.ascontiguousarray(data), as_float, is_quick=is_quick)
    os.sync()


def store_path(folder: Path, codec: str) -> Path:
    """Where the store of a codec lies."""
    return folder / f"voco-{codec}.zarr"


def scan_id(number: int) -> str:
    """Id of a volume in the stores."""
    return f"made/{number}"


def write_store(root: Path, volumes: list[NDArray[np.int16]], codec: str) -> None:
    """A store of volumes that no build has made."""
    rows = []
    for number, data in enumerate(volumes):
        volume = Volume(data, np.diag([_SPACING_MM] * 3 + [1.0]))
        scan = Scan(scan_id(number), "made", str(number), Path("none"), None, None, "abdomen")
        stats = ScanStats(-1024, 3071, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        spacing = Spacing(*[_SPACING_MM] * 3)
        made = ProcessedScan(volume, None, None, stats, "", volume.shape_XYZ, spacing, "0")
        rows.append(write_scan(root, scan, made, codec))
    publish(root, rows, [], found=len(rows), recipe_digest="")


def _write_b2nd(
    folder: Path,
    number: int,
    data_XYZ: NDArray[np.int16],
    as_float_XYZ: NDArray[np.float32],
    *,
    is_quick: bool,
) -> None:
    """blosc2's own container: the best of its settings, and as nnU-Net writes it (slow).

    Bits in planes are read in two thirds of the time of bytes in planes, at 1.4 % more bytes.
    """
    try:
        blosc2: Any = importlib.import_module("blosc2")
    except ModuleNotFoundError:
        return
    best = {"codec": blosc2.Codec.ZSTD, "clevel": 3, "filters": [blosc2.Filter.BITSHUFFLE]}
    blosc2.asarray(
        data_XYZ,
        chunks=(64, 64, 64),
        blocks=(16, 16, 16),
        cparams=best,
        urlpath=str(folder / f"{number}.int16.b2nd"),
        mode="w",
    )
    if is_quick:
        return
    # The chunks and blocks that nnU-Net's rule gives for a patch of 160^3, and its level.
    blosc2.asarray(
        as_float_XYZ,
        chunks=(80, 64, 64),
        blocks=(16, 16, 16),
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 8},
        urlpath=str(folder / f"{number}.nnunet.b2nd"),
        mode="w",
    )
