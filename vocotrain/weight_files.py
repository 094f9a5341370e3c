"""Files of weights: safetensors to write, safetensors and torch pickles to read.

A pickle is read with torch's restricted unpickler, so a stranger's file cannot run code here. What
a model needs beside its tensors (size, channels, classes, spacing, window) lies as JSON in the
header of the safetensors file.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vocotrain.errors import UnsafeWeightsError, WeightsFileError
from vocotrain.models.encoder import EncoderHalf

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA_KEY = "voco"
"""All metadata is one JSON text under this key: the header is then the same bytes each time."""

PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")

FINAL = Path("checkpoints") / "final"
"""Where a run folder keeps its final weights."""


def save_weights(
    weights: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a safetensors file, whole or not at all.

    Args:
        weights: A model, or its tensors by name.
        path: The file; replaced if it is there, its folder made if it is not.
        metadata: Anything JSON can hold, read back by `read_metadata`. What a model says of itself
            (architecture, size, in_channels, out_channels) is added.

    Returns:
        The path.
    """
    path = Path(path)
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    described = (
        {**describe(weights), **(metadata or {})} if isinstance(weights, nn.Module) else metadata
    )
    text = json.dumps(dict(described or {}), sort_keys=True, allow_nan=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_tensors(tensors, partial, {METADATA_KEY: text})
        _to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    _to_disk(path.parent)
    return path


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file.

    Raises:
        OSError: The file system refuses, such as a full disk; safetensors has its own error for it.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from error


def describe(model: nn.Module) -> dict[str, Any]:
    """What a model says of itself: enough to build it again. Empty for a module of another kind."""
    if not isinstance(model, EncoderHalf):
        return {}
    described: dict[str, Any] = {
        "architecture": type(model).__name__,
        "size": model.size.as_row(),
        "in_channels": model.in_channels,
    }
    if hasattr(model, "out_channels"):
        described["out_channels"] = model.out_channels
    return described


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file or run folder; empty where the file has none, as pickles do.

    Raises:
        WeightsFileError: No such file, or one that cannot be read.
    """
    file = find_weights(path)
    if file.suffix != ".safetensors":
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
        metadata = json.loads(header.get(METADATA_KEY, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsFileError(_damaged(file, error)) from error
    if not isinstance(metadata, dict):
        raise WeightsFileError(_damaged(file, "its metadata is no JSON object"))
    return metadata


def read_weights(path: str | Path) -> dict[str, Any]:
    """What a file or run folder holds: tensors by name, or for a pickle whatever lies around them.

    Raises:
        WeightsFileError: No such file, another kind of file, or a damaged one.
        UnsafeWeightsError: A pickle that asks for code to be run.
    """
    file = find_weights(path)
    if file.suffix == ".safetensors":
        try:
            return dict(load_file(file))
        except (SafetensorError, OSError) as error:
            raise WeightsFileError(_damaged(file, error)) from error
    if file.suffix not in PICKLE_SUFFIXES:
        msg = f"Expected weights in .safetensors, .pt or .pth, got '{file}'."
        raise WeightsFileError(msg)
    return _read_pickle(file)


def find_weights(path: str | Path) -> Path:
    """The file of weights that a path means: itself, or the final weights of a run folder.

    Raises:
        WeightsFileError: Nothing there, or more than one file to choose from.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        msg = f"There is no file or run folder of weights at '{path}'."
        raise WeightsFileError(msg)
    folder = path / FINAL if (path / FINAL).is_dir() else path
    files = sorted(file for file in folder.glob("*.safetensors") if file.stem != "heads")
    if len(files) == 1:
        return files[0]
    if not files and (saved := sorted(path.glob("checkpoints/step-*/*.safetensors"))):
        msg = (
            f"Run '{path}' has not ended, so it has no final weights. Resume it to its end, or "
            f"name a checkpoint, such as '{saved[-1]}'."
        )
        raise WeightsFileError(msg)
    found = f"found {', '.join(file.name for file in files)}" if files else "found none"
    msg = f"Expected one .safetensors file of weights in '{folder}', {found}. Name the file itself."
    raise WeightsFileError(msg)


def _read_pickle(file: Path) -> dict[str, Any]:
    # torch's own words on a refused pickle advise to load it without the guard: not passed on.
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
    except pickle.UnpicklingError as error:
        msg = (
            f"'{file}' asks for more than tensors to be unpickled, which can run any code; nothing "
            "of it was run. If you trust its maker, load it in a place of its own and save its "
            "tensors as safetensors."
        )
        raise UnsafeWeightsError(msg) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsFileError(_damaged(file, error)) from error
    if not isinstance(content, dict):
        msg = f"Expected a dictionary of tensors in '{file}', got {type(content).__name__}."
        raise WeightsFileError(msg)
    return content


def _damaged(file: Path, error: object) -> str:
    return f"Weights '{file}' cannot be read, the file is damaged or of another kind: {error}"


def _to_disk(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
