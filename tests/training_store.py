"""A small store of unlabelled phantoms, and settings for runs of seconds on it."""

from pathlib import Path

import numpy as np

from vocodata.discover import Scan
from vocodata.geometry import Volume
from vocodata.ingest import ProcessedScan, ScanStats
from vocodata.store.root import publish
from vocodata.store.writer import write_scan
from vocotrain.config import PretrainConfig, load_config

SPACING_MM = 4.0


def phantom(shape_XYZ, seed: int) -> np.ndarray:
    """HU that rises along x and falls along y, with noise of the scan: position can be seen."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(0, 1, n) for n in shape_XYZ), indexing="ij")
    hu = -150 + 250 * x - 120 * y + 40 * np.sin(9 * z) + random.normal(0, 15, shape_XYZ)
    return hu.astype(np.int16)


def write_store(
    root: Path, shapes: dict, *, weights=None, fields=(), licence="CC-BY-4.0", preset="demo"
):
    """Write a store with a phantom of each shape, by id; `fields` get a squeezed field too."""
    root.mkdir(parents=True)
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    rows = []
    for seed, (scan_id, shape) in enumerate(sorted(shapes.items())):
        source, name = scan_id.split("/")
        hu = Volume(phantom(shape, seed), affine)
        weight = (weights or {}).get(scan_id, 1.0)
        scan = Scan(scan_id, source, name, Path("none"), None, None, preset, weight, licence)
        processed = ProcessedScan(
            hu=hu,
            labels=None,
            field=Volume(phantom((32, 32, 32), seed), affine) if scan_id in fields else None,
            stats=ScanStats(-1000, 200, 0.0, 1.0, -1000.0, 0.0, 100.0, 0.5),
            fingerprint=scan_id,
            source_shape_XYZ=hu.shape_XYZ,
            source_spacing_mm=hu.spacing_mm,
            source_digest=scan_id.encode().hex(),
        )
        rows.append(write_scan(root, scan, processed, "zstd"))
    publish(root, rows, [], found=len(rows), recipe_digest="test")
    return root


SHAPES = {
    "clinic/a": (70, 68, 40),
    "clinic/b": (66, 80, 34),
    "clinic/c": (50, 72, 30),
    "trial/d": (72, 66, 36),
}


def small_run(store: Path, out: Path, *sets: str) -> PretrainConfig:
    """Settings of a run with 10 crops of 16 x 16 x 32 a step: two volumes, four cells, a crop."""
    return load_config(
        "tiny",
        (
            "objective.grid=[2, 2, 1]",
            "objective.crop_vox=[16, 16, 32]",
            "objective.crops=1",
            "train.batch_size=2",
            "train.steps=6",
            "train.log_every=1",
            "train.checkpoint_every=3",
            "train.eval_every=0",
            "train.eval_fields=2",
            "optim.lr=0.001",
            "optim.warmup_steps=2",
            "data.holdout=[trial/*]",
            "device=cpu",
            "threads=1",
            *sets,
        ),
        values={"data.store": str(store), "out": str(out)},
    )
