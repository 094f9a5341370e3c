"""Tiny scans on disk, as sources for builds."""

import gzip
import json
import shutil
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from tests.vocodata.bodies import body, save_body
from vocodata.building import build


def _volume(seed, size):
    """A body of soft tissue with a bright corner, in air: no two axes or ends alike."""
    rng = np.random.default_rng(seed)
    data = np.full(size, -1000, np.int16)
    x, y, z = (n // 6 for n in size)
    body = rng.normal(40, 25, [n - 2 * m for n, m in zip(size, (x, y, z), strict=True)])
    data[x : size[0] - x, y : size[1] - y, z : size[2] - z] = body.astype(np.int16)
    data[x : 2 * x, y : 2 * y, z : 2 * z] = 700 + seed
    return data


def write_sources(
    folder,
    scans=3,
    *,
    name="btcv",
    size=(40, 34, 28),
    preset="abdomen",
    labels=False,
    weight=1.0,
    broken=(),
):
    """NIfTI scans of one source below `folder`, added to the manifest there; its path."""
    root = folder / "sources" / name
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "labels").mkdir(exist_ok=True)
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    affine[:3, 3] = (-30.0, 12.5, 7.0)
    value, kind = (300, np.uint16) if labels == "uint16" else (2, np.uint8)
    for number in range(scans):
        path = root / "images" / f"case{number}.nii.gz"
        data = _volume(number, size)
        nib.save(nib.Nifti1Image(data, affine), path)
        if labels:
            mask = (data > 500).astype(kind) * kind(value)
            nib.save(nib.Nifti1Image(mask, affine), root / "labels" / path.name)
    for number in broken:
        path = root / "images" / f"case{number}.nii.gz"
        path.write_bytes(gzip.compress(b"no volume at all"))
    source = {"name": name, "root": str(root), "layout": "glob", "preset": preset}
    source |= {"images": "images/*.nii.gz", "licence": "CC-BY-4.0", "weight": weight}
    if labels:
        source |= {"labels": "labels/{id}.nii.gz", "label_names": {value: "marker"}}
    manifest = folder / "manifest.yaml"
    known = json.loads(manifest.read_text())["sources"] if manifest.exists() else []
    known = [other for other in known if other["name"] != name]
    # JSON is YAML, and needs no writer's taste.
    manifest.write_text(json.dumps({"version": 1, "sources": [*known, source]}))
    return manifest


@pytest.fixture
def make_sources(tmp_path):
    """A function that writes scans of a source and its manifest; gives the manifest's path."""
    return partial(write_sources, tmp_path)


@pytest.fixture(scope="session")
def _built_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_sources(folder, 5, labels=True)
    manifest = write_sources(folder, 1, name="abdo", preset="abdomen-squeezed", size=(48, 40, 30))
    build(manifest, folder / "ct.zarr", workers=0)
    return folder


@pytest.fixture
def built(_built_once, tmp_path):
    """A copy of a store: five scans `btcv/case*` with labels, and `abdo/case0` with a field."""
    shutil.copytree(_built_once / "ct.zarr", tmp_path / "ct.zarr")
    return tmp_path / "ct.zarr"


@pytest.fixture
def tree():
    """A function that reads every file below a folder: relative path -> bytes."""

    def read(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def doubled(tmp_path_factory):
    """Two sources: `a` with three scans, `b` with two of them again and one that is new."""
    folder = tmp_path_factory.mktemp("doubled")
    for seed in range(3):
        save_body(folder / "a", f"s{seed}", body(seed).data_XYZ)
    # The same voxels mirrored and under spacings of 1 mm; slices of another, clipped.
    save_body(folder / "b", "forced", body(1).data_XYZ[::-1], (1, 1, 1))
    save_body(folder / "b", "part", np.clip(body(2).data_XYZ[:, :, 12:50], -175, 250))
    save_body(folder / "b", "other", body(9).data_XYZ)
    sources = [
        {"name": name, "root": name, "preset": "demo", "layout": "glob", "images": "*.nii"}
        for name in "ab"
    ]
    manifest = folder / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": sources}))
    build(manifest, folder / "ct.zarr", workers=0)
    only_a = folder / "a.yaml"
    only_a.write_text(json.dumps({"version": 1, "sources": sources[:1]}))
    build(only_a, folder / "a.zarr", workers=0)
    return folder
