"""Segment a scan and write the labels where the scan is: same shape, same place."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vocodata.census import take_census
from vocodata.geometry import Size, Spacing, Volume, orient_ras
from vocodata.quality import CHECKS, QualityLimits, failed_checks, measure
from vocodata.readers import read_leaning_volume, suffix_of
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
        warnings: Why the values of the scan are no HU, by the look of them; mostly empty.
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
    warnings: tuple[str, ...] = ()

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
        overwrite: Whether labels and figures that are there may be replaced; never the scan.
        on_event: Told of progress.

    Returns:
        What was found.

    Raises:
        CheckpointError: Weights that are no segmenter.
        ConfigError: A name for the labels that is of another format.
        RunExistsError: The label file or that of the figures is there already.
        PermissionError: The folder of the labels may not be written to.
        UnreadableScanError: A scan that cannot be read; other `VocoDataError`s likewise.
        ValueError: An overlap outside [0, 1).
    """
    begin = time.perf_counter()
    name = "scan" if isinstance(scan, Volume) else _stem(Path(scan))
    labels_path, report_path = _places(Path(out), name)
    _check(overlap)
    _check_free(labels_path, report_path, scan, overwrite=overwrite)
    if not isinstance(checkpoint, Segmenter):
        kind = device_kind(device)
        checkpoint = load_segmenter(
            checkpoint, device=torch.device(kind), precision=chosen_precision(precision, kind)
        )
    volume = scan if isinstance(scan, Volume) else read_leaning_volume(scan)
    _make_writable(labels_path.parent)
    warnings = doubts(volume)
    for warning in warnings:
        on_event(ProgressEvent("warning", 0, 0, {"message": f"Scan '{name}': {warning}"}))

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
        warnings=warnings,
    )
    write_json(report_path, report.as_json())
    return report


def doubts(volume: Volume) -> tuple[str, ...]:
    """Why a scan's values are no HU, by the look of them, in sentences.

    The checks for which a build of a store keeps a scan out. A network finds something in any
    values, so a person must be told.
    """
    source = orient_ras(volume)
    failed = failed_checks(measure(source, take_census(source)), QualityLimits())
    return tuple(
        f"{meaning} The network was trained on HU; mend the values and predict again."
        for usual, meaning in map(CHECKS.__getitem__, failed)
        if usual == "exclude"
    )


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


def _check(overlap: float | None) -> None:
    if overlap is not None and not 0 <= overlap < 1:
        msg = f"overlap is {overlap:g}; expected a share from 0 to below 1."
        raise ValueError(msg)


def _check_free(labels: Path, report: Path, scan: str | Path | Volume, *, overwrite: bool) -> None:
    """Refuse to write over what is there: figures may share their name with a scan's own .json."""
    if labels.parent.exists() and not labels.parent.is_dir():
        msg = f"{labels.parent} is a file; expected a folder. Choose another -o."
        raise RunExistsError(msg)
    if not isinstance(scan, Volume) and labels.resolve() == Path(scan).resolve():
        msg = f"{labels} is the scan itself; expected a new name for its labels. Choose another -o."
        raise RunExistsError(msg)
    for path in (labels, report):
        if path.exists() and not overwrite:
            msg = (
                f"{path} is there already; expected a new name. Choose another -o, or --overwrite."
            )
            raise RunExistsError(msg)


def _make_writable(folder: Path) -> None:
    """Minutes of work are lost if the labels cannot be written in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "The labels cannot be written there", str(folder))
