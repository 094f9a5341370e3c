"""The state of a run, to be continued bit for bit.

A checkpoint is a folder `step-00001234` with `state.safetensors` (weights, teacher, optimiser) and
`state.json` (step, loss scale, digest of the tensors). No pickle: reading a stranger's checkpoint
runs no code. No generator state either, as all chance is a function of seed and step.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vocotrain.errors import CheckpointError
from vocotrain.run_folder import whole_folder, write_json
from vocotrain.weight_files import write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer

TENSORS_NAME = "state.safetensors"
STATE_NAME = "state.json"
FORMAT = 1
_NOT_WRITTEN = (
    "The checkpoint of step {} was not written; those before it are whole. Make room, or mend what "
    "is wrong with the disk, and go on with --resume."
)
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        step: Updates done.
        tensors: Weights as `model.<name>`, moments as `optim.<name>.<moment>`.
        state: Other values, as JSON holds them.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int) -> Path:
    """Write a checkpoint whole, then drop all but the newest `keep`.

    Args:
        folder: `checkpoints/` of the run.
        checkpoint: What to write.
        keep: Checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: The file system refuses, such as a full disk; what was written is removed.
    """
    path = folder / f"step-{checkpoint.step:08d}"
    try:
        with whole_folder(path) as temporary:
            _write(checkpoint, temporary)
    except OSError as error:
        error.add_note(_NOT_WRITTEN.format(checkpoint.step))
        raise
    for _, old in _found(folder)[keep:]:
        shutil.rmtree(old)
    return path


def _write(checkpoint: Checkpoint, folder: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in checkpoint.tensors.items()}
    write_tensors(tensors, folder / TENSORS_NAME)
    state = {
        "format": FORMAT,
        "step": checkpoint.step,
        "sha256": _sha256(folder / TENSORS_NAME),
        **checkpoint.state,
    }
    write_json(folder / STATE_NAME, state)


def load_newest(
    folder: Path, *, on_damaged: Callable[[str], None], needs: Sequence[str] = ()
) -> Checkpoint | None:
    """Read the newest checkpoint that is whole.

    Args:
        folder: `checkpoints/` of the run.
        on_damaged: Called with a sentence for each newer one that is not.
        needs: Names that its state or its tensors must have; one without is of another kind.

    Returns:
        The checkpoint, or None if none was ever written.

    Raises:
        CheckpointError: There are checkpoints, and all are damaged.
    """
    found = _found(folder)
    for _, path in found:
        try:
            return _load(path, needs)
        except CheckpointError as error:
            on_damaged(str(error))
    if found:
        msg = (
            f"All {len(found)} checkpoints in {folder} are damaged; expected at least one whole. "
            "Copy one back from elsewhere, or start a new run."
        )
        raise CheckpointError(msg)
    return None


def training_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """All tensors that a run needs to go on."""
    names = _names(model, optimizer)
    moments = {
        f"optim.{names[index]}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }
    return {f"model.{name}": value for name, value in model.state_dict().items()} | moments


def restore(model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors back where `training_tensors` took them from.

    Raises:
        CheckpointError: They belong to another model or optimiser.
    """
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optim."):
            name, moment = key.removeprefix("optim.").rsplit(".", 1)
            states.setdefault(name, {})[moment] = value
    names = _names(model, optimizer)
    try:
        model.load_state_dict(weights)
        numbered = {index: states[name] for index, name in enumerate(names) if name in states}
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": numbered, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        msg = (
            "The checkpoint's tensors do not fit the model of config.yaml; expected those of the "
            f"same model and optimiser. {error}"
        )
        raise CheckpointError(msg) from error


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors with NaN or infinity."""
    return [
        name
        for name, value in tensors.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Names of the optimiser's parameters, in its order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folders of all checkpoints, the newest first."""
    if not folder.is_dir():
        return []
    named = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(((int(match[1]), path) for match, path in named), reverse=True)


def _load(path: Path, needs: Sequence[str]) -> Checkpoint:
    try:
        state = json.loads((path / STATE_NAME).read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            msg = f"Checkpoint {path} has format {state['format']}; expected {FORMAT}."
            raise CheckpointError(msg)
        if _sha256(path / TENSORS_NAME) != state["sha256"]:
            msg = f"Checkpoint {path} is damaged: {TENSORS_NAME} is not what {STATE_NAME} says."
            raise CheckpointError(msg)
        found = Checkpoint(int(state["step"]), load_file(path / TENSORS_NAME), state)
    except (
        OSError,
        KeyError,
        TypeError,
        ValueError,
        SafetensorError,
    ) as error:
        msg = f"Checkpoint {path} is damaged: {type(error).__name__}: {error}."
        raise CheckpointError(msg) from error
    missing = [name for name in needs if name not in found.state and name not in found.tensors]
    if missing:
        msg = f"Checkpoint {path} is of another kind of run: it lacks {', '.join(missing)}."
        raise CheckpointError(msg)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
