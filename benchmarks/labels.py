"""Label maps of real scans: ours against MONAI's nearest neighbour, and MONAI against itself.

    python benchmarks/labels.py [--quick] [--cache FOLDER] [--json FILE.json]

Orientationd + Spacingd(mode="nearest") on the same grids. Where an output voxel lies half-way
between two, nearest means nothing: we take the even voxel, and MONAI what the last bit of its
coordinates says, which depends on the processor. So MONAI is run a second time with torch's
kernels for any processor (ATEN_CPU_CAPABILITY=default), and a third with coordinates in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

import vocodata
from vocodata.geometry import Spacing as SpacingMm
from vocodata.geometry import Volume, orient_ras
from vocodata.resampling import grid_after
from vocodata.sample_scans import default_cache, fetch_samples

GRIDS_MM = ((1.5, 1.5, 1.5), (1.25, 1.25, 5.0))
TIE_VOX = 1e-6


def of_monai(
    labels: Volume, spacing_mm: tuple[float, float, float], kind: torch.dtype
) -> np.ndarray:
    """The label map as MONAI's chain has it."""
    tensor = MetaTensor(
        torch.from_numpy(labels.data_XYZ.astype(np.float32, order="C"))[None],
        affine=torch.from_numpy(np.array(labels.affine)),
    )
    space = Spacing(pixdim=spacing_mm, mode="nearest", padding_mode="border", dtype=kind)
    return space(Orientation("RAS", labels=None)(tensor))[0].numpy().astype(np.uint8)


def elsewhere(path: Path, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """MONAI's, by torch's kernels for any processor."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.npy"
        asked = ["--monai", str(path), "--spacing-mm", *map(str, spacing_mm), "--out", str(out)]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
        subprocess.run([sys.executable, __file__, *asked], check=True, env=environment)
        return np.load(out)


def read(path: Path) -> Volume:
    image = nib.load(path)
    return Volume(np.asarray(image.dataobj).astype(np.uint8), image.affine)


def ties(labels: Volume, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Output voxels that lie half-way between two along some axis."""
    size = grid_after(labels.shape_XYZ, labels.affine, SpacingMm(*spacing_mm))
    steps = zip(size, spacing_mm, orient_ras(labels).spacing_mm, strict=True)
    x, y, z = (np.abs((np.arange(n) * out / own) % 1 - 0.5) < TIE_VOX for n, out, own in steps)
    return x[:, None, None] | y[:, None] | z


def compare(name: str, path: Path, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
    labels = read(path)
    ours = vocodata.resample(labels, SpacingMm(*spacing_mm), interpolation="nearest").data_XYZ
    monai, is_tie = of_monai(labels, spacing_mm, torch.float64), ties(labels, spacing_mm)
    return {
        "scan": name,
        "spacing_mm": spacing_mm,
        "voxels": ours.size,
        "tie_share": float(is_tie.mean()),
        "differ_off_ties": int(((ours != monai) & ~is_tie).sum()),
        "differ_at_ties": int(((ours != monai) & is_tie).sum()),
        "monai_by_processor": int((elsewhere(path, spacing_mm) != monai).sum()),
        "monai_by_precision": int((of_monai(labels, spacing_mm, torch.float32) != monai).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the 1.5 mm grid only")
    parser.add_argument("--cache", type=Path, default=None, help="cache of the real scans")
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    parser.add_argument("--monai", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--spacing-mm", type=float, nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    if options.monai:
        made = of_monai(read(options.monai), tuple(options.spacing_mm), torch.float64)
        np.save(options.out, made)
        return
    scans = fetch_samples(options.cache or default_cache()).scans
    rows = [
        compare(scan.id, scan.labels, grid)
        for scan in scans
        if scan.labels is not None
        for grid in GRIDS_MM[: 1 if options.quick else 2]
    ]
    print("label voxels that differ from MONAI's, and MONAI's from itself")
    head = ("scan", "grid mm", "voxels", "ties", "off ties", "at ties", "processor", "precision")
    print("{:24} {:>14} {:>10} {:>5} {:>9} {:>9} {:>10} {:>10}".format(*head))
    for row in rows:
        grid = "x".join(f"{mm:g}" for mm in row["spacing_mm"])
        print(
            f"{row['scan']:24} {grid:>14} {row['voxels']:10} {row['tie_share']:5.0%} "
            f"{row['differ_off_ties']:9} {row['differ_at_ties']:9} "
            f"{row['monai_by_processor']:10} {row['monai_by_precision']:10}"
        )
    if options.json:
        report = {"benchmark": "labels", "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
