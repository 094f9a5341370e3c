"""Two small synthetic scans on disk, and what the commands make of them, each made once."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml

from vococli.main import main
from vocodata.presets import preset

SHAPE = (60, 56, 24)
LABELS = {1: "liver", 2: "spleen"}


def organs_XYZ(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A body in air with two organs of their own HU: (hu, labels)."""
    random = np.random.default_rng(seed)
    hu = np.full(SHAPE, -1000, np.int16)
    labels = np.zeros(SHAPE, np.uint8)
    hu[3:-3, 3:-3, 1:-1] = 0
    for value, place in ((1, np.s_[36:52, 20:40, 6:18]), (2, np.s_[8:18, 12:24, 8:18])):
        labels[place] = value
        hu[place] = 60 + 60 * value
    noise = random.normal(0, 8, SHAPE) * (hu > -500)
    return (hu + noise).astype(np.int16), labels


def write_scan(folder: Path, name: str, seed: int) -> None:
    """A scan and its labels as NIfTI on the demo preset's grid."""
    affine = np.diag([*preset("demo").spacing_mm, 1.0])
    hu, labels = organs_XYZ(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(hu, affine), folder / "images" / f"{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labels" / f"{name}.nii.gz")


def manifest_at(path: Path, **changes: object) -> Path:
    """A manifest of one source; `changes` go over its row."""
    row = {
        "name": "toy",
        "root": "toy",
        "layout": "glob",
        "preset": "demo",
        "images": "images/*.nii.gz",
        "labels": "labels/{id}.nii.gz",
        "label_names": LABELS,
        **changes,
    }
    path.write_text(yaml.safe_dump({"version": 1, "sources": [row]}), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_toy():
    """`write_scan`, for tests."""
    return write_scan


@pytest.fixture(scope="session")
def write_manifest():
    """`manifest_at`, for tests."""
    return manifest_at


@pytest.fixture(scope="session")
def toys(tmp_path_factory) -> Path:
    """A folder with three scans, one of them cut short, and a manifest."""
    folder = tmp_path_factory.mktemp("toys")
    for seed, name in enumerate(("a", "b", "c")):
        write_scan(folder / "toy", name, seed)
    broken = folder / "toy/images/c.nii.gz"
    broken.write_bytes(broken.read_bytes()[:2000])
    manifest_at(folder / "manifest.yaml")
    return folder


@pytest.fixture(scope="session")
def store(toys) -> Path:
    """The toys' store, as the command builds it."""
    out = toys / "ct.zarr"
    code = main(f"data build --sources {toys}/manifest.yaml --out {out} --workers 0 --json".split())
    assert code == 0
    return out


@pytest.fixture(scope="session")
def run(toys, store) -> Path:
    """A pretraining run of two steps, as the command makes it."""
    out = toys / "run"
    words = f"train pretrain --size tiny --data {store} --out {out}".split()
    sets = [
        "data.holdout=[toy/b]",
        "train.steps=2",
        "train.batch_size=2",
        "train.eval_every=2",
        "train.eval_fields=2",
        "optim.warmup_steps=0",
        "threads=1",
    ]
    assert main([*words, *(word for one in sets for word in ("--set", one))]) == 0
    return out


@pytest.fixture(scope="session")
def finetuned(toys, store, run) -> Path:
    """A fine-tuning run of two steps from the pretraining run."""
    out = toys / "finetuned"
    words = f"train finetune --from {run} --data {store} --task demo-organs --out {out}".split()
    spacing = list(preset("demo").spacing_mm)
    sets = [
        "data.holdout=[toy/b]",
        "train.steps=2",
        "optim.warmup_steps=0",
        "task.roi_vox=[16,16,16]",
        f"task.spacing_mm={spacing}",
        "threads=1",
    ]
    assert main([*words, *(word for one in sets for word in ("--set", one))]) == 0
    return out
