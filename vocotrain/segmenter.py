"""A fine-tuned network as a file: weights, and all that predicting needs to know of them.

One safetensors file: the network describes itself in its metadata, and `SegmenterSpec` adds what it
was trained to see and say. So the file travels alone.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from vocodata.geometry import Size, Spacing  # noqa: TC001 (pydantic reads them at run time)
from vocotrain.errors import CheckpointError
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sliding import Blending  # noqa: TC001 (the same)
from vocotrain.weights import find_weights, load_model, read_metadata, save_weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from vocotrain.device import Precision

SEGMENTER_NAME = "segmenter.safetensors"
_KEY = "segmenter"
_ENCODER = "VoCoEncoder"


@dataclass(frozen=True)
class SegmenterSpec:
    """What is known of a segmenter besides its network.

    Attributes:
        task: Row of tasks.yaml it was fine-tuned on.
        classes: Class names in channel order, background first.
        spacing_mm: Grid that the network sees, mm.
        window_hu: Window mapped to [0, 1], HU.
        roi_vox: Sliding window, voxels.
        overlap: Share of a window that the next one covers again.
        blending: Weight of voxels where windows overlap.
        preset: Preset of the scans it was trained on.
        foreground_above_hu: Scans are cropped to the box above this, HU; None: they are not.
        steps: Updates it was trained for.
    """

    task: str
    classes: tuple[str, ...]
    spacing_mm: Spacing
    window_hu: tuple[float, float]
    roi_vox: Size
    overlap: float
    blending: Blending
    preset: str
    foreground_above_hu: float | None
    steps: int


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A network ready to segment.

    Attributes:
        model: The network, on its device.
        spec: What it expects and what its classes are called.
        device: Where it computes.
        precision: Its arithmetic.
    """

    model: SwinUNETR
    spec: SegmenterSpec
    device: torch.device
    precision: Precision


def save_segmenter(model: SwinUNETR, spec: SegmenterSpec, path: Path, **more: float | str) -> Path:
    """Write network and spec in one file, whole or not at all.

    Args:
        model: The network.
        spec: What belongs to it.
        path: The file.
        more: Anything else to be noted, such as the score it was chosen by.
    """
    return save_weights(model, path, {_KEY: asdict(spec), **more})


def load_segmenter(
    checkpoint: str | Path, *, device: torch.device, precision: Precision
) -> Segmenter:
    """Read a segmenter.

    Args:
        checkpoint: A fine-tuning run, or a file that such a run wrote.
        device: Where to put it.
        precision: In what arithmetic it shall compute.

    Raises:
        CheckpointError: Weights that are no segmenter, such as a pretrained encoder: it cannot
            segment before it is fine-tuned.
        WeightsFileError: Nothing there, or a file that cannot be read.
    """
    path = find_weights(checkpoint)
    spec = read_spec(path)
    model = load_model(path)
    assert isinstance(model, SwinUNETR), "only a whole network gets a spec"
    return Segmenter(model.to(device).eval(), spec, device, precision)


def read_spec(path: Path) -> SegmenterSpec:
    """What a segmenter's file says of itself.

    Raises:
        CheckpointError: Weights that are no segmenter, or a description that makes no sense.
        WeightsFileError: A file that cannot be read.
    """
    metadata = read_metadata(path)
    if _KEY not in metadata:
        raise CheckpointError(_no_segmenter(path, metadata))
    try:
        return TypeAdapter(SegmenterSpec).validate_python(metadata[_KEY])
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()
        )
        msg = f"{path} describes its segmenter in a way that makes no sense: {faults}. Train again."
        raise CheckpointError(msg) from error


def _no_segmenter(path: Path, metadata: dict[str, Any]) -> str:
    what = "weights without the names of classes, a grid and a window"
    if metadata.get("architecture") == _ENCODER:
        what = "a pretrained encoder without a decoder"
    start = shlex.quote(str(path))
    return (
        f"{path} holds {what}; predicting needs a network that was fine-tuned here. Fine-tune it "
        f"first: `voco train finetune --from {start} --task NAME --data STORE --out RUN`, then "
        "predict with that run."
    )
