"""Loading weights into a model, with a report of what happened to each tensor.

The released VoCo files, MONAI's, our own and most checkpoints of training runs fit: names are
mapped by `weight_names`, files read by `weight_files`. Nothing is changed in the model unless
everything can be: a checkpoint of another size is refused, not loaded by half.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vocotrain.errors import WeightsFileError, WeightsMismatchError
from vocotrain.models.encoder import EncoderHalf, VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize, model_size, size_from_row
from vocotrain.weight_files import describe, find_weights, read_metadata, read_weights, save_weights
from vocotrain.weight_names import (
    INPUT_CONVOLUTIONS,
    OUTPUT_HEAD,
    PATCH_EMBEDDING,
    architecture_of,
    infer_size,
    is_decoder,
    is_encoder,
    plain_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = [
    "LoadReport",
    "describe",
    "find_weights",
    "infer_size",
    "load_model",
    "load_weights",
    "read_metadata",
    "read_weights",
    "save_weights",
]


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor, by name.

    Attributes:
        source: The file.
        matched: Copied from the file.
        adapted: The output head for another number of classes, which keeps its fresh weights, and
            input convolutions, which were spread over another number of input channels.
        missing: Of the model, not in the file: they keep the weights they had.
        unexpected: Of the file, with no place in the model.
        mismatched: In both, with shapes that do not fit; not copied.
        share: Matched tensors over those that ought to match, of the model or of the file,
            whichever are more: all of the encoder half, and the decoder's where both have one;
            adapted ones are not counted.
        notes: Sentences for the reader.
    """

    source: str
    matched: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    share: float = 0.0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A short table."""
        rows = [
            f"weights     {self.source}",
            f"share       {self.share:.1%} of what ought to match",
        ]
        for kind in ("matched", "adapted", "missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            rows.append(f"{kind:<11} {len(names):>4}  {_by_module(names)}".rstrip())
        return "\n".join([*rows, *(f"note        {note}" for note in self.notes)])


@dataclass
class _Plan:
    """Which tensor goes where, before anything is copied."""

    values: dict[str, Tensor] = field(default_factory=dict)
    matched: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)


def load_weights(model: nn.Module, path: str | Path, *, min_match: float = 0.95) -> LoadReport:
    """Fill a model from a file or a run folder.

    Args:
        model: `VoCoEncoder`, `SwinUNETR`, or any module whose names the file has.
        path: .safetensors, .pt or .pth, or a run folder, which means its final weights.
        min_match: Least `LoadReport.share` to accept; 0 takes whatever fits.

    Returns:
        What became of each tensor.

    Raises:
        WeightsFileError: A file that cannot be read, or tensors that are not finite.
        UnsafeWeightsError: A pickle that asks for code to be run.
        WeightsMismatchError: Too little matches, or the file was trained with another patch
            merging. The model is then as it was.
    """
    file = find_weights(path)
    metadata = read_metadata(file)
    state = plain_names(read_weights(file))
    own = plain_names(model.state_dict())
    _check_merging(model, metadata, file)
    plan = _plan(own, state)
    report = LoadReport(
        source=str(file),
        matched=tuple(plan.matched),
        adapted=tuple(plan.adapted),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(plan.mismatched),
        share=_share(plan, own, state),
        notes=_notes(model, metadata),
    )
    if report.share < min_match:
        raise WeightsMismatchError(_mismatch(model, state, report, min_match))
    _check_finite(plan.values, file)
    with torch.no_grad():
        for name, value in plan.values.items():
            own[name].copy_(value)
    return report


def load_model(
    path: str | Path, *, backend: str = "auto", checkpointing: bool = False
) -> SwinUNETR | VoCoEncoder:
    """Build the model that a file or run folder describes, and fill it.

    The metadata of the file says what to build; without any, the shapes of the tensors do.

    Raises:
        WeightsFileError: A file that cannot be read, or is of no known size.
        UnsafeWeightsError: A pickle that asks for code to be run.
        WeightsMismatchError: The tensors are not those of the model the metadata describes.
    """
    file = find_weights(path)
    wanted = {**_described_by_shapes(file), **read_metadata(file)}
    size = wanted["size"]
    size = size_from_row(size) if isinstance(size, dict) else model_size(size)
    options: dict[str, Any] = {"backend": backend, "checkpointing": checkpointing}
    model: SwinUNETR | VoCoEncoder
    if "out_channels" in wanted:
        model = SwinUNETR(size, wanted["in_channels"], wanted["out_channels"], **options)
    else:
        model = VoCoEncoder(size, wanted["in_channels"], **options)
    load_weights(model, file, min_match=1.0)
    return model


def _described_by_shapes(file: Path) -> dict[str, Any]:
    """What to build by the shapes of the tensors; nothing where the metadata says it."""
    if {"size", "in_channels"} <= read_metadata(file).keys():
        return {}
    state = plain_names(read_weights(file))
    described = {"size": infer_size(state), "in_channels": state[PATCH_EMBEDDING].shape[1]}
    if OUTPUT_HEAD[0] in state:
        described["out_channels"] = state[OUTPUT_HEAD[0]].shape[0]
    return described


def _plan(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> _Plan:
    plan = _Plan()
    for name, target in own.items():
        if name not in state:
            continue
        value = state[name]
        if value.shape == target.shape:
            plan.values[name] = value
            plan.matched.append(name)
        elif name in OUTPUT_HEAD and value.shape[1:] == target.shape[1:]:
            plan.adapted.append(name)
        elif name in INPUT_CONVOLUTIONS and _differ_in_channels(value, target):
            plan.values[name] = _spread(value, target.shape[1])
            plan.adapted.append(name)
        else:
            plan.mismatched.append(name)
    return plan


def _differ_in_channels(value: Tensor, target: Tensor) -> bool:
    return value.ndim == 5 and value[:, 0].shape == target[:, 0].shape


def _spread(value: Tensor, channels: int) -> Tensor:
    """Input weights for other channels: an input that is equal in all of them acts as before."""
    return (value.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1, -1)


def _share(plan: _Plan, own: Iterable[str], state: Iterable[str]) -> float:
    """Matched over those that ought to, of the model or the file, whichever are more."""
    of_model, of_file = set(own) - set(plan.adapted), set(state) - set(plan.adapted)
    if any(map(is_encoder, of_model)):
        decoders = any(map(is_decoder, of_model)) and any(map(is_decoder, of_file))
        of_model, of_file = (
            {name for name in names if is_encoder(name) or (decoders and is_decoder(name))}
            for names in (of_model, of_file)
        )
    return len(of_model & set(plan.matched)) / max(len(of_model), len(of_file), 1)


def _check_merging(model: nn.Module, metadata: Mapping[str, Any], file: Path) -> None:
    """Weights of another patch merging have the same shapes and give wrong answers."""
    row = metadata.get("size")
    if not isinstance(model, EncoderHalf) or not isinstance(row, dict):
        return
    trained = row.get("merging", model.size.merging)
    if trained != model.size.merging:
        msg = (
            f"'{file}' was trained with merging '{trained}', the model '{model.size.name}' has "
            f"'{model.size.merging}'. Build it with the size of the file, '{row.get('name')}'."
        )
        raise WeightsMismatchError(msg)


def _notes(model: nn.Module, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    if metadata.get("size") or not isinstance(model, EncoderHalf):
        return ()
    if model.size.merging == "doubled":
        return ()
    note = (
        "The file does not say how it was trained. Weights trained with MONAI before 1.5, such as "
        "the released VoCo files, want a size with merging 'doubled': B-released and the like."
    )
    return (note,)


def _check_finite(values: Mapping[str, Tensor], file: Path) -> None:
    for name, value in values.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            msg = f"Tensor '{name}' of '{file}' has values that are not finite; nothing was loaded."
            raise WeightsFileError(msg)


def _mismatch(
    model: nn.Module, state: Mapping[str, Tensor], report: LoadReport, min_match: float
) -> str:
    """What to say of weights that do not fit."""
    found = architecture_of(state)
    size = getattr(model, "size", None)
    hint = "Name the file of this model"
    seems = "it seems to be of another model"
    if found is not None and isinstance(size, ModelSize):
        row = (size.feature_size, size.depths, size.heads, size.window)
        if found != row:
            seems = f"it seems to be {_known_as(state)}, the model is size '{size.name}' {row}"
            hint = (
                f"Build the model with the size of the file, or name a file of size '{size.name}'"
            )
    return (
        f"'{report.source}' matches {report.share:.1%} of the tensors that ought to match, "
        f"expected at least {min_match:.0%}: {seems}. {hint}.\n{report}"
    )


def _known_as(state: Mapping[str, Tensor]) -> str:
    found = architecture_of(state)
    described = f"{tuple(found)}" if found else ""
    try:
        return f"size '{infer_size(state)}' {described}"
    except WeightsFileError:
        return f"a size of its own {described}"


def _by_module(names: tuple[str, ...]) -> str:
    """Names counted by their first part: `swinViT 113, encoder1 3`."""
    counts = Counter(name.split(".", 1)[0] for name in names)
    return ", ".join(f"{part} {count}" for part, count in counts.items())
