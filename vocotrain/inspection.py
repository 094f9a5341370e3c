"""What lies at a path: a store, a run, weights or a scan, told apart by content."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vocodata.errors import StoreError
from vocodata.readers import read_header
from vocodata.remote import is_url
from vocodata.store import open_store
from vocotrain.errors import ConfigError
from vocotrain.run_folder import CHECKPOINTS_NAME, CONFIG_NAME
from vocotrain.run_record import read_run
from vocotrain.weight_files import PICKLE_SUFFIXES, find_weights, read_metadata, read_weights

if TYPE_CHECKING:
    from pathlib import Path

WEIGHT_SUFFIXES = frozenset({".safetensors", *PICKLE_SUFFIXES}) - {".tar"}
PACKAGES = ("voco-toolkit", "torch", "monai", "numpy", "numba", "zarr", "dask", "triton")

_NEWEST = (
    *("loss", "position_accuracy", "heldout_position_accuracy"),
    *("dice_store_grid", "dice_native"),
)
"""Numbers of a run of which the newest is told, where it has them."""

Kind = Literal["toolkit", "store", "run", "weights", "scan"]


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: What it is.
        facts: Plain values in the order in which a person reads them.
    """

    kind: Kind
    facts: dict[str, Any] = field(default_factory=dict)


def inspect_toolkit() -> Inspection:
    """Versions of the toolkit and of what it stands on."""
    facts: dict[str, Any] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            facts[name] = None
    return Inspection("toolkit", facts)


def inspect_path(path: Path) -> Inspection:
    """Say what lies at a path.

    Args:
        path: A store's folder or URL, the folder of a run or a checkpoint, a file of weights, a
            scan or a DICOM folder.

    Raises:
        ConfigError: Nothing is there, or a folder of stores and runs.
        VocoDataError: A scan that cannot be read; any other folder counts as a DICOM series.
        VocoTrainError: A damaged run or file of weights.
    """
    if is_url(str(path)):
        return Inspection("store", open_store(path).summary())
    if not path.exists():
        msg = f"{path} is not there; expected a store, a run, weights or a scan. Correct the path."
        raise ConfigError(msg)
    if path.suffix in WEIGHT_SUFFIXES:
        return _weights(path)
    if (path / CONFIG_NAME).is_file():
        return _run(path)
    try:
        return Inspection("store", open_store(path).summary())
    except StoreError:
        # A damaged store says so; whatever else has no zarr.json is taken for a scan.
        if (path / "zarr.json").exists():
            raise
    if path.is_dir() and any(path.glob("*.safetensors")):
        return _weights(find_weights(path))
    if path.is_dir() and (known := sorted(filter(_is_known, path.iterdir()))):
        names = ", ".join(str(each) for each in known)
        msg = f"{path} is no store, run or scan itself; it holds {names}. Give one of those."
        raise ConfigError(msg)
    return _scan(path)


def _is_known(path: Path) -> bool:
    """Whether a folder is a store or a run."""
    return (path / "zarr.json").is_file() or (path / CONFIG_NAME).is_file()


def _run(path: Path) -> Inspection:
    record = read_run(path)
    steps = [line["step"] for line in record.lines]
    last = {name: record.last(name) for name in _NEWEST}
    task = {name: value for name, value in record.data.items() if name == "task"}
    final = path / CHECKPOINTS_NAME / "final"
    weights = sorted(str(file) for file in final.glob("*.safetensors"))
    return Inspection(
        "run",
        {
            "path": str(path),
            **task,
            "last_step": max(steps, default=0),
            **{name: value for name, value in last.items() if value is not None},
            "weights": weights,
            "store": record.data.get("store"),
            "store_digest": record.data.get("store_digest"),
            "device": record.environment.get("device"),
            "started": record.environment.get("started"),
        },
    )


def _weights(path: Path) -> Inspection:
    tensors = {name: value for name, value in read_weights(path).items() if hasattr(value, "numel")}
    facts: dict[str, Any] = {
        "path": str(path),
        "tensors": len(tensors),
        "parameters": sum(v.numel() for v in tensors.values() if v.is_floating_point()),
        "bytes": path.stat().st_size,
    }
    return Inspection("weights", facts | {k: _plain(v) for k, v in read_metadata(path).items()})


def _scan(path: Path) -> Inspection:
    header = read_header(path)
    tilted = header.tilt_degrees > 0
    return Inspection(
        "scan",
        {
            "path": str(path),
            "shape_xyz": list(header.shape_XYZ),
            "spacing_mm": [round(side, 4) for side in header.spacing_mm],
            "dtype": str(header.dtype),
            "affine": header.affine.round(4).tolist(),
            **({"straightened_by_degrees": round(header.tilt_degrees, 2)} if tilted else {}),
        },
    )


def _plain(value: object) -> object:
    """JSON in JSON is opened."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
