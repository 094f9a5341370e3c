"""Ours against MONAI's Orientationd + Spacingd, one thread each, in the same run.

    python benchmarks/resample.py [--quick] [--json out.json] [--repeats 5]

The volumes are made up (an ellipsoid body with noise): resampling time does not depend on content.
MONAI is given the float32 tensor that its own chain would hold; turning int16 into it is not timed.
MONAI's tensor is C-contiguous, as its loader makes it. Both are run once before; then each round
runs both, in random order. Times are medians of processor time, which a busy machine disturbs
least; `error` is the largest difference, HU (0.5 is the rounding to int16).
"""

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation, Spacing

import vocodata
from vocodata.geometry import Spacing as SpacingMm
from vocodata.geometry import Volume

CASES = {
    "abdomen 0.75x0.75x1.25 -> 1.5": ((512, 512, 300), (-0.75, -0.75, 1.25), (1.5, 1.5, 1.5)),
    "abdomen 0.703x0.703x2.5 -> 1.5": ((512, 512, 133), (-0.703, 0.703, 2.5), (1.5, 1.5, 1.5)),
    "chest 0.68x0.68x1 -> 1.25x1.25x5": ((512, 512, 320), (-0.68, -0.68, 1), (1.25, 1.25, 5)),
}


def made_up(shape_XYZ: tuple[int, int, int], step_mm: tuple[float, float, float]) -> Volume:
    rng = np.random.default_rng(0)
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape_XYZ)
    inside = (x[None, None] ** 2 + y[None, :, None] ** 2 + 0.2 * z[:, None, None] ** 2) < 0.7
    noise = rng.integers(-40, 40, shape_XYZ[::-1], dtype=np.int16)
    data_ZYX = np.where(inside, np.int16(40), np.int16(-1000)) + noise
    return Volume(data_ZYX.transpose(2, 1, 0), np.diag([*step_mm, 1.0]))


def processor_s(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(name: str, repeats: int) -> dict[str, Any]:
    shape_XYZ, step_mm, spacing_mm = CASES[name]
    volume = made_up(shape_XYZ, step_mm)
    tensor = MetaTensor(
        torch.from_numpy(volume.data_XYZ.astype(np.float32, order="C"))[None],
        affine=torch.from_numpy(np.array(volume.affine)),
    )
    orient = Orientation("RAS", labels=None)
    space = Spacing(pixdim=spacing_mm, mode="bilinear", padding_mode="border")
    wanted = SpacingMm(*spacing_mm)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: vocodata.resample(volume, wanted),
        "monai": lambda: space(orient(tensor)),
    }
    # Also compiles ours.
    ours, monai = (way() for way in ways.values())
    size_out, error = list(ours.shape_XYZ), float(np.abs(monai[0].numpy() - ours.data_XYZ).max())
    del ours, monai
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way in order.permutation(list(ways)).tolist():
            seconds[way].append(processor_s(ways[way]))
    ours_s, monai_s = (statistics.median(seconds[way]) for way in ways)
    return {
        "case": name,
        "voxels_in": int(np.prod(shape_XYZ)),
        "size_out": size_out,
        "ours_s": ours_s,
        "monai_s": monai_s,
        "times_faster": monai_s / ours_s,
        "error_hu": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="each case once")
    options = parser.parse_args()
    options.repeats = 1 if options.quick else options.repeats
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
    rows = [compare(name, options.repeats) for name in CASES]
    print(f"{'case':34} {'ours s':>8} {'MONAI s':>8} {'faster':>7} {'error HU':>9}")
    for row in rows:
        print(
            f"{row['case']:34} {row['ours_s']:8.3f} {row['monai_s']:8.3f} "
            f"{row['times_faster']:6.1f}x {row['error_hu']:9.3f}"
        )
    if options.json:
        about = {
            "benchmark": "resample",
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "threads": 1,
            "data": "made up",
            "rows": rows,
        }
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
