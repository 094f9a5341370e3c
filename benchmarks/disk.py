"""Bytes on disk of real scans: our store against MONAI's cache and .nii.gz, on the same grid.

    python benchmarks/disk.py [--more FOLDER ...] [--quick] [--json FILE]

Real scans are the sample scans (fetched from two public packages) and whatever `voco data init`
finds in the folders given. Each is brought onto two grids, 1.5 mm and 1.25 x 1.25 x 5 mm, cropped
to its foreground, and kept there four times: as a store with either codec, as the float32 tensor
that PersistentDataset saves (without its metadata, which would only add to it), and as an int16
.nii.gz by nibabel. All keep every HU; each store is read back and compared before it counts.

The second table is of loss: the same stores with HU rounded to multiples of 2 and 4 (`--step-hu`),
and, which no store holds, the preset's window as uint8 in the same chunks.

A scan whose own voxels are larger than the grid's is interpolated and compresses better than one
measured there, and one finer than the grid keeps its noise: `own mm` says which is which.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from vocodata.discover import Scan, find_scans
from vocodata.errors import VocoDataError
from vocodata.geometry import Volume
from vocodata.hu_steps import STEPS_HU, in_steps
from vocodata.ingest import ProcessedScan, process_scan
from vocodata.initial import first_manifest, guess_sources
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.sample_scans import default_cache, fetch_samples
from vocodata.store import open_store, write_scan
from vocodata.store.root import publish
from vocodata.store.shard import LABEL_FILL, codec_named, encode_shard
from vocodata.store.writer import disk_view, scan_folder

GRIDS = {"1.5 mm": "abdomen", "1.25x1.25x5 mm": "chest"}
CODECS = ("zstd", "lz4")
LOSSY = {f"{codec}_step{step_hu}": (codec, step_hu) for codec in CODECS for step_hu in STEPS_HU[1:]}
LOSSLESS = {**{kind: codec for kind, (codec, _) in LOSSY.items()}, "uint8": "zstd"}
SCANS, CACHE_TB = 160_167, 30.0
"""PreCT-160K: its scans, and what its authors' float32 cache takes."""


def real_scans(cache: Path, more: list[Path], scratch: Path) -> list[Scan]:
    scans = find_scans(load_manifest(fetch_samples(cache).manifest))
    for number, folder in enumerate(more):
        text = first_manifest(guess_sources(folder.absolute()), folder=scratch)
        manifest = scratch / f"{number}.yaml"
        manifest.write_text(text, encoding="utf-8")
        scans += find_scans(load_manifest(manifest))
    return scans


def store_bytes(root: Path, scan: Scan, made: ProcessedScan, codec: str) -> tuple[int, int]:
    """Bytes and files of the scan's folder, without labels; its voxels were read back."""
    bare = dataclasses.replace(made, labels=None, field=None)
    publish(root, [write_scan(root, scan, bare, codec)], [], found=1, recipe_digest="")
    back = open_store(root).read(scan.id, (0, 0, 0), made.hu.shape_XYZ)
    assert np.array_equal(back, made.hu.data_XYZ), scan.id
    files = [path for path in scan_folder(root, scan.id).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files), len(files)


def rounded(made: ProcessedScan, step_hu: int) -> ProcessedScan:
    hu = in_steps(made.hu, step_hu)
    off_hu = np.abs(hu.data_XYZ.astype(np.int32) - made.hu.data_XYZ)
    assert 2 * off_hu.max() <= step_hu
    return dataclasses.replace(made, hu=hu, step_hu=step_hu)


def window_bytes(hu: Volume, window_hu: tuple[float, float]) -> int:
    """Bytes of the shard that would hold the window as uint8."""
    low, high = window_hu
    share = (np.clip(hu.data_XYZ, low, high).astype(np.float32) - low) / (high - low)
    grey = np.rint(255 * share).astype(np.uint8)
    return len(encode_shard(disk_view(grey), fill=LABEL_FILL, codec=codec_named("zstd")))


def measured(scan: Scan, grid: str, folder: Path) -> dict[str, Any]:
    made = process_scan(dataclasses.replace(scan, preset=GRIDS[grid]), preset(GRIDS[grid]))
    data = np.ascontiguousarray(made.hu.data_XYZ)
    torch.save(torch.from_numpy(data.astype(np.float32))[None], folder / "image.pt")
    nib.save(nib.Nifti1Image(data, made.hu.affine), folder / "image.nii.gz")
    row: dict[str, Any] = {
        "scan": scan.id,
        "own_mm": [round(n, 2) for n in made.source_spacing_mm],
        "grid": grid,
        "shape": list(data.shape),
        "pt_bytes": (folder / "image.pt").stat().st_size,
        "nii_gz_bytes": (folder / "image.nii.gz").stat().st_size,
    }
    for codec in CODECS:
        row[f"{codec}_bytes"], row["files"] = store_bytes(folder / codec, scan, made, codec)
        row[f"{codec}_ratio"] = row["pt_bytes"] / row[f"{codec}_bytes"]
    for kind, (codec, step_hu) in LOSSY.items():
        lossy = rounded(made, step_hu)
        row[f"{kind}_bytes"], _ = store_bytes(folder / kind, scan, lossy, codec)
    row["uint8_bytes"] = window_bytes(made.hu, preset(GRIDS[grid]).window_hu)
    return row


def ratios(rows: list[dict[str, Any]], over: str, under: str) -> list[float]:
    return [row[f"{over}_bytes"] / row[f"{under}_bytes"] for row in rows]


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the ratios, and what all bytes together would make of the authors' cache.

    Small crops count as much as whole scans in the mean, so the cache is scaled by the sums.
    """
    found: dict[str, Any] = {"scans": len({row["scan"] for row in rows})}
    for codec in CODECS:
        ratio = float(np.mean([row[f"{codec}_ratio"] for row in rows]))
        in_all = sum(row["pt_bytes"] for row in rows) / sum(row[f"{codec}_bytes"] for row in rows)
        over_gz = float(np.mean([row["nii_gz_bytes"] / row[f"{codec}_bytes"] for row in rows]))
        found[codec] = {
            "mean_ratio_to_pt": ratio,
            "ratio_of_all_bytes_to_pt": in_all,
            "smallest_ratio_to_pt": min(row[f"{codec}_ratio"] for row in rows),
            "mean_ratio_to_nii_gz": over_gz,
            "tb_for_160167_scans": CACHE_TB / in_all,
            "is_a_quarter_or_less": ratio >= 4,
        }
    for kind, codec in LOSSLESS.items():
        to_pt, of_lossless = ratios(rows, "pt", kind), ratios(rows, kind, codec)
        in_all = sum(row["pt_bytes"] for row in rows) / sum(row[f"{kind}_bytes"] for row in rows)
        found[kind] = {
            "mean_ratio_to_pt": float(np.mean(to_pt)),
            "ratio_of_all_bytes_to_pt": in_all,
            "smallest_ratio_to_pt": min(to_pt),
            "mean_share_of_lossless": float(np.mean(of_lossless)),
            "largest_share_of_lossless": max(of_lossless),
            "tb_for_160167_scans": CACHE_TB / in_all,
        }
    files = max(row["files"] for row in rows)
    found["files_a_scan"], found["files_for_160167_scans"] = files, files * SCANS
    return found


def table(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    heads = ("voxels", ".pt MB", ".nii.gz", "zstd", "lz4", "zstd", "lz4")
    widths = (14, 8, 8, 7, 7, 6, 6)
    named = " ".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))
    lines = [f"{'scan':28} {'own mm':>16} {'grid':>15} {named}"]
    for row in rows:
        own, shape = "x".join(map(str, row["own_mm"])), "x".join(map(str, row["shape"]))
        sizes = [row[f"{kind}_bytes"] / 1e6 for kind in ("pt", "nii_gz", "zstd", "lz4")]
        lines.append(
            f"{row['scan'][:28]:28} {own:>16} {row['grid']:>15} {shape:>14} {sizes[0]:8.1f}"
            f" {sizes[1]:8.1f} {sizes[2]:7.1f} {sizes[3]:7.1f}"
            f" {row['zstd_ratio']:5.2f}x {row['lz4_ratio']:5.2f}x"
        )
    for codec in CODECS:
        means = found[codec]
        lines.append(
            f"{codec}: {means['mean_ratio_to_pt']:.2f}x smaller than .pt on average over "
            f"{found['scans']} scans ({means['smallest_ratio_to_pt']:.2f}x at least, all bytes "
            f"together {means['ratio_of_all_bytes_to_pt']:.2f}x), "
            f"{means['mean_ratio_to_nii_gz']:.2f}x than .nii.gz; {SCANS:,} scans whose float32 "
            f"cache is {CACHE_TB:g} TB would take {means['tb_for_160167_scans']:.1f} TB in "
            f"{found['files_for_160167_scans']:,} files"
        )
    return "\n".join(lines)


def loss_table(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    kinds = {"zstd": "lossless", "zstd_step2": "step 2", "zstd_step4": "step 4", "uint8": "uint8"}
    named = " ".join(f"{head:>8}" for head in kinds.values())
    lines = [f"{'zstd, MB':28} {'grid':>15} {named}   times smaller than .pt: {named}"]
    for row in rows:
        sizes = " ".join(f"{row[f'{kind}_bytes'] / 1e6:8.1f}" for kind in kinds)
        smaller = " ".join(f"{row['pt_bytes'] / row[f'{kind}_bytes']:7.2f}x" for kind in kinds)
        lines.append(f"{row['scan'][:28]:28} {row['grid']:>15} {sizes} {'':24} {smaller}")
    for kind, codec in LOSSLESS.items():
        means = found[kind]
        lines.append(
            f"{kind}: {means['mean_ratio_to_pt']:.2f}x smaller than .pt on average, "
            f"{means['mean_share_of_lossless']:.3f} of the bytes of lossless {codec} "
            f"({means['largest_share_of_lossless']:.3f} at most), "
            f"{means['tb_for_160167_scans']:.1f} TB"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="folders with more scans")
    parser.add_argument("--quick", action="store_true", help="the 1.5 mm grid only")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for scan in real_scans(arguments.cache, arguments.more, scratch):
            for grid in list(GRIDS)[: 1 if arguments.quick else None]:
                folder = scratch / str(len(rows))
                folder.mkdir()
                try:
                    rows.append(measured(scan, grid, folder))
                except VocoDataError as error:
                    print(f"left out: {scan.id}, {error}")
    found = summary(rows)
    print(table(rows, found))
    print(loss_table(rows, found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": rows, "summary": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
