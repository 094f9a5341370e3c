"""Segment a scan and write the labels where the scan is: same shape, same place."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vocodata.geometry import Size, Spacing, Volume
from vocodata.readers import read_volume, suffix_of
from vocodata.write_nifti import write_labels
from vocotrain.device import chosen_precision, device_kind
from vocotrain.errors import ConfigError, RunExistsError
from vocotrain.progress import OnEvent, ProgressEvent, silent
from vocotrain.run_folder import write_json
from vocotrain.segment import segment_scan
from vocotrain.segmenter import Segmenter, load_segmenter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class PredictReport:
    """What was found in a scan.

    Attributes:
        scan: Name of the scan.
        labels: The label file: class of each voxel on the scan's own grid.
        report: These figures as JSON.
        classes: Label value -> class name, background included.
        volumes_ml: Class name -> volume, millilitres; background left out.
        shape_XYZ: Voxels of scan and labels.
        spacing_mm: Their spacing, mm.
        task: What the segmenter was fine-tuned on.
        device: Where it computed.
        seconds: From reading to writing.
    """

    scan: str
    labels: Path
    report: Path
    classes: Mapping[int, str]
    volumes_ml: Mapping[str, float]
    shape_XYZ: Size  # noqa: N815 (shape letters)
    spacing_mm: Spacing
    task: str
    device: str
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            **asdict(self),
            "labels": str(self.labels),
            "report": str(self.report),
            "classes": {str(value): name for value, name in self.classes.items()},
        }


def predict(
    checkpoint: str | Path | Segmenter,
    scan: str | Path | Volume,
    out: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    overlap: float | None = None,
    overwrite: bool = False,
    on_event: OnEvent = silent,
) -> PredictReport:
    """Segment one scan.

    Args:
        checkpoint: A fine-tuning run, its segmenter.safetensors, or a segmenter in memory, which
            keeps its device and precision.
        scan: NIfTI, MHA, MHD or NRRD file, folder of a DICOM series, or a volume in memory.
        out: A name that ends in .nii or .nii.gz, or a folder, where the labels are called
            `<scan>_seg.nii.gz`. The figures go beside them, as .json.
        device: auto, cpu or cuda.
        precision: auto, fp32, bf16 or fp16.
        overlap: Share of a sliding window that the next one covers again; None: as trained.
        overwrite: Whether files that are there may be replaced.
        on_event: Told of progress.

    Returns:
        What was found.

    Raises:
        CheckpointError: Weights that are no segmenter.
        ConfigError: A name for the labels that is of another format.
        RunExistsError: The label file is there already.
        UnreadableScanError: A scan that cannot be read; other `VocoDataError`s likewise.
        ValueError: An overlap outside [0, 1).
    """
    begin = time.perf_counter()
    name = "scan" if isinstance(scan, Volume) else _stem(Path(scan))
    labels_path, report_path = _places(Path(out), name)
    _check(labels_path, overlap, overwrite=overwrite)
    if not isinstance(checkpoint, Segmenter):
        kind = device_kind(device)
        checkpoint = load_segmenter(
            checkpoint, device=torch.device(kind), precision=chosen_precision(precision, kind)
        )
    volume = scan if isinstance(scan, Volume) else read_volume(scan)

    def on_slab(done: int, planes: int) -> None:
        on_event(ProgressEvent("predict", done, planes, {"scan": name}))

    labels_XYZ = segment_scan(checkpoint, volume, overlap=overlap, on_slab=on_slab)
    write_labels(labels_path, labels_XYZ, volume.affine)
    spec = checkpoint.spec
    report = PredictReport(
        scan=name,
        labels=labels_path,
        report=report_path,
        classes=dict(enumerate(spec.classes)),
        volumes_ml=volumes_ml(labels_XYZ, volume.affine, spec.classes),
        shape_XYZ=volume.shape_XYZ,
        spacing_mm=volume.spacing_mm,
        task=spec.task,
        device=str(checkpoint.device),
        seconds=round(time.perf_counter() - begin, 3),
    )
    write_json(report_path, report.as_json())
    return report


def volumes_ml(
    labels_XYZ: NDArray[np.uint8], affine: NDArray[np.float64], classes: tuple[str, ...]
) -> dict[str, float]:
    """Volume of each class but background, millilitres.

    >>> volumes_ml(np.ones((2, 5, 1), np.uint8), np.diag([2.0, 2.0, 5.0, 1.0]), ("none", "liver"))
    {'liver': 0.2}
    """
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    counts = sum(np.bincount(plane.ravel(), minlength=len(classes)) for plane in labels_XYZ)
    return {
        name: round(float(count) * voxel_ml, 4)
        for name, count in zip(classes[1:], np.atleast_1d(counts)[1:], strict=True)
    }


def _stem(path: Path) -> str:
    """A scan's file or folder name without the ending of its format."""
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.resolve().name


def _places(out: Path, name: str) -> tuple[Path, Path]:
    """The label file and the report."""
    ending = next((ending for ending in _ENDINGS if out.name.endswith(ending)), None)
    if ending:
        return out, out.with_name(f"{out.name.removesuffix(ending)}.json")
    if suffix_of(out) and not out.is_dir():
        msg = f"{out} ends in {suffix_of(out)}; labels are written as NIfTI. Call it .nii.gz."
        raise ConfigError(msg)
    return out / f"{name}_seg.nii.gz", out / f"{name}_seg.json"


def _check(labels: Path, overlap: float | None, *, overwrite: bool) -> None:
    if overlap is not None and not 0 <= overlap < 1:
        msg = f"overlap is {overlap:g}; expected a share from 0 to below 1."
        raise ValueError(msg)
    if labels.parent.exists() and not labels.parent.is_dir():
        msg = f"{labels.parent} is a file; expected a folder. Choose another -o."
        raise RunExistsError(msg)
    if labels.exists() and not overwrite:
        msg = f"{labels} is there already; expected a new name. Choose another -o, or --overwrite."
        raise RunExistsError(msg)
