"""Dice of a segmenter on held-out scans: on the store's grid, and on the scans' own.

The authors measure on the resampled and cropped grid. That flatters: what resampling loses is lost
in the truth as well. So the grid of the scan counts where the scan is at hand, and each figure is
called by its grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.archives import unpacked
from vocodata.geometry import Size
from vocodata.readers import read_labels, read_volume
from vocotrain.dice import ScanDice, count_overlap, dice_scores
from vocotrain.errors import LabelsError
from vocotrain.labelled_scans import label_classes, to_classes
from vocotrain.segment import segment_grid, segment_scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vocodata.discover import Scan
    from vocodata.store import Store
    from vocotrain.labelled_scans import LabelledScan
    from vocotrain.segmenter import Segmenter


def evaluate_store_grid(
    segmenter: Segmenter, store: Store, scans: Sequence[LabelledScan]
) -> list[ScanDice]:
    """Dice on the store's grid, scan by scan: the protocol's figure."""
    return [_on_store_grid(segmenter, store, scan) for scan in scans]


def evaluate_native(segmenter: Segmenter, scan: Scan) -> ScanDice:
    """Dice on the scan's own grid, against its own labels.

    Args:
        segmenter: The network.
        scan: A row of the scan list, with labels and their names.

    Raises:
        LabelsError: No labels, labels that lack a class, or labels of another shape.
        UnreadableScanError: A file that cannot be read.
    """
    if scan.labels is None or not scan.label_names:
        msg = (
            f"Scan '{scan.id}' has no labels with names in the manifest; expected both. Add "
            "labels and label_names to its source, or leave data.sources out."
        )
        raise LabelsError(msg)
    with unpacked(scan) as loose:
        assert loose.labels is not None
        volume = read_volume(loose.image, files=loose.files)
        labels = read_labels(loose.labels)
    if labels.shape_XYZ != volume.shape_XYZ or not _same_place(volume.affine, labels.affine):
        msg = (
            f"Labels of scan '{scan.id}' are {labels!r}, the scan is {volume!r}; expected the same "
            "grid. Correct the files, or leave the scan out of data.holdout."
        )
        raise LabelsError(msg)
    try:
        class_of = label_classes(scan.label_names, segmenter.spec.classes)
    except LabelsError as error:
        msg = f"Scan '{scan.id}' cannot be measured: {error}."
        raise LabelsError(msg) from error
    truth_XYZ = to_classes(labels.data_XYZ, class_of)
    predicted_XYZ = segment_scan(segmenter, volume)
    return _score(scan.id, predicted_XYZ, truth_XYZ, segmenter)


def _on_store_grid(segmenter: Segmenter, store: Store, scan: LabelledScan) -> ScanDice:
    origin = Size(0, 0, 0)
    predicted_XYZ = segment_grid(segmenter, store.read(scan.id, origin, scan.shape_XYZ))
    label_XYZ = store.read_label(scan.id, origin, scan.shape_XYZ)
    return _score(scan.id, predicted_XYZ, to_classes(label_XYZ, scan.class_of), segmenter)


def _score(
    scan_id: str,
    predicted_XYZ: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    truth_XYZ: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    segmenter: Segmenter,
) -> ScanDice:
    names = segmenter.spec.classes
    return ScanDice(
        scan_id, dice_scores(count_overlap(predicted_XYZ, truth_XYZ, len(names)), names)
    )


def _same_place(
    first: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    second: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> bool:
    """Whether two affines agree: to 0.01 mm a voxel, and 0.1 mm at the origin."""
    return bool(
        np.allclose(first[:3, :3], second[:3, :3], atol=1e-2)
        and np.allclose(first[:3, 3], second[:3, 3], atol=1e-1)
    )
