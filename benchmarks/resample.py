"""Ours against MONAI's Orientationd + Spacingd, one thread each, in the same run.

    python benchmarks/resample.py [--json out.json] [--repeats 5]

The volumes are made up (an ellipsoid body with noise): resampling time does not depend on content.
MONAI is given the float32 tensor that its own chain would hold; turning int16 into it is not timed.
MONAI's tensor is C-contiguous, as its loader makes it. The two take turns; times are the best of
each, seconds, which a busy machine disturbs least; `error` is the largest difference, HU (0.5 is
the rounding to int16).
"""

import argparse
import json
import os
import platform
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


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


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
    vocodata.resample(volume, wanted)  # compiles
    ours_s = monai_s = float("inf")
    for _ in range(repeats):
        seconds, ours = timed(lambda: vocodata.resample(volume, wanted))
        ours_s = min(ours_s, seconds)
        seconds, monai = timed(lambda: space(orient(tensor)))
        monai_s = min(monai_s, seconds)
    return {
        "case": name,
        "voxels_in": int(np.prod(shape_XYZ)),
        "size_out": list(ours.shape_XYZ),
        "ours_s": ours_s,
        "monai_s": monai_s,
        "times_faster": monai_s / ours_s,
        "error_hu": float(np.abs(monai[0].numpy() - ours.data_XYZ).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
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
