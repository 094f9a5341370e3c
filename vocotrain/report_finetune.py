"""The part of a report that compares fine-tuned models on scans that none of them saw."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vocodata.geometry import Size
from vocodata.pictures import view
from vocodata.store import open_store
from vocotrain.charts import Line, line_chart
from vocotrain.device import chosen_precision
from vocotrain.errors import CheckpointError
from vocotrain.figures import LABEL_RGB, Picture, overlay_picture, slice_picture
from vocotrain.finetuning import RESULTS_NAME
from vocotrain.labelled_scans import label_classes, to_classes
from vocotrain.report_page import ChartCard, FinetuneCard, Legend, Panel
from vocotrain.run_record import read_run
from vocotrain.segment import segment_grid
from vocotrain.segmenter import load_segmenter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vocodata.store import Store


def finetune_card(runs: Mapping[str, Path], store_path: str | Path) -> FinetuneCard:
    """Compare fine-tuning runs of one task.

    Args:
        runs: What to call each run, and its folder; the first is shown first.
        store_path: The store with the held-out scans.

    Raises:
        CheckpointError: A run has not finished.
        StoreError: No such store.
    """
    results = {name: _results(run) for name, run in runs.items()}
    first = next(iter(results.values()))
    classes = first["classes"][1:]
    return FinetuneCard(
        task=first["task"],
        steps=first["steps"],
        classes=classes,
        rows=[_row(name, result) for name, result in results.items()],
        holdout=first["holdout"],
        chart=_chart(runs),
        panels=_panels(runs, open_store(store_path), first) if first["holdout"] else [],
        legend=[Legend(name, _colour(k)) for k, name in enumerate(classes)],
        note=_note(first),
    )


def _results(run: Path) -> dict[str, Any]:
    path = run / RESULTS_NAME
    if not path.is_file():
        msg = f"{run} has no {RESULTS_NAME}; expected a finished fine-tuning run. Let it finish."
        raise CheckpointError(msg)
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def _row(name: str, result: Mapping[str, Any]) -> tuple[str, dict[str, float], float]:
    dice = _dice(result)
    by_class = {key: value for key, value in dice["by_class"].items() if value is not None}
    return name, by_class, float("nan") if dice["mean"] is None else dice["mean"]


def _dice(result: Mapping[str, Any]) -> dict[str, Any]:
    """On the scans' own grids where measured, else on the store's."""
    empty: dict[str, Any] = {"mean": None, "by_class": {}}
    return result["dice_native"] or result["dice_store_grid"] or empty


def _note(result: Mapping[str, Any]) -> str:
    grid = "the scans' own grids" if result["dice_native"] else "the store's grid"
    train, held = len(result["train"]), len(result["holdout"])
    return (
        f"Each network was trained for {result['steps']} steps on {_count(train)} with labels "
        f"and measured on {_count(held)} that none of them saw, on {grid}. So few scans show that "
        "the path works; they do not measure how good pretraining is."
    )


def _count(scans: int) -> str:
    return f"{scans} scan" if scans == 1 else f"{scans} scans"


def _chart(runs: Mapping[str, Path]) -> ChartCard:
    lines = [
        Line(name, *read_run(run).series("loss"), f"line-{number}")
        for number, (name, run) in enumerate(runs.items(), start=1)
    ]
    return ChartCard(
        "Fine-tuning loss",
        line_chart(lines, x_title="step", y_title="Dice + cross entropy loss"),
        [Legend(line.name, f"var(--{line.style})") for line in lines],
        "Loss on training crops; lower is better.",
    )


def _panels(runs: Mapping[str, Path], store: Store, result: Mapping[str, Any]) -> list[Panel]:
    """The label's outline alone, then over what each run predicts, on the fullest slice."""
    scan = result["holdout"][0]
    info = store.info(scan)
    start = Size(0, 0, 0)
    hu_XYZ = store.read(scan, start, info.shape_XYZ)
    class_of = label_classes(info.label_names, tuple(result["classes"]))
    truth_XYZ = to_classes(store.read_label(scan, start, info.shape_XYZ), class_of)
    index = fullest_slice(truth_XYZ)
    slice_ = slice_picture(
        hu_XYZ, "axial", index=index, spacing_mm=info.spacing_mm, window_hu=info.window_hu
    )
    names = ", ".join(result["classes"][1:])
    alt = f"Axial slice {index} of {scan} with the labels of {names} outlined"
    truth = view(truth_XYZ, "axial", index)
    panels = [Panel("label (outline)", overlay_picture(slice_, truth), alt)]
    for name, run in runs.items():
        predicted = view(_predicted(run, hu_XYZ), "axial", index)
        picture: Picture = overlay_picture(slice_, truth, filled=predicted)
        panels.append(Panel(f"{name} (filled)", picture, f"{alt}; what {name} finds is filled"))
    return panels


def _predicted(run: Path, hu_XYZ: NDArray[np.int16]) -> NDArray[np.uint8]:
    device = torch.device("cpu")
    segmenter = load_segmenter(run, device=device, precision=chosen_precision("fp32", "cpu"))
    return segment_grid(segmenter, hu_XYZ)


def fullest_slice(labels_XYZ: NDArray[np.uint8]) -> int:
    """The axial slice with the most labelled voxels of the rarest class that is there at all.

    A slice chosen by the largest organ would often miss the small ones.
    """
    present = [value for value in np.unique(labels_XYZ) if value > 0]
    if not present:
        return int(labels_XYZ.shape[2] // 2)
    counts_KZ = np.array([(labels_XYZ == value).sum(axis=(0, 1)) for value in present])
    return int((counts_KZ / counts_KZ.sum(axis=1, keepdims=True)).sum(axis=0).argmax())


def _colour(index: int) -> str:
    red, green, blue = LABEL_RGB[index % len(LABEL_RGB)].tolist()
    return f"rgb({red} {green} {blue})"
