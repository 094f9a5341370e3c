"""Dice of a segmenter on held-out scans: on the store's grid, and on the scans' own.

The authors measure on the resampled and cropped grid. That flatters: what resampling loses is lost
in the truth as well. So the grid of the scan counts where the scan is at hand, and each figure is
called by its grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocodata.archives import unpacked
from vocodata.errors import GeometryError
from vocodata.geometry import Size, orient_ras
from vocodata.readers import read_labels, read_volume
from vocodata.refusals import refuse_other_grid
from vocotrain.dice import ScanDice, count_overlap, dice_scores
from vocotrain.errors import LabelsError
from vocotrain.labelled_scans import label_classes, to_classes
from vocotrain.segment import segment_grid, segment_scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

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
        LabelsError: No labels, labels that lack a class, or labels of another grid.
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
        # A DICOM series and the NIfTI labels made of it differ in the order of their voxels.
        volume = orient_ras(read_volume(loose.image, files=loose.files))
        labels = orient_ras(read_labels(loose.labels))
    try:
        refuse_other_grid(labels, volume.shape_XYZ, volume.affine)
        class_of = label_classes(scan.label_names, segmenter.spec.classes)
    except (GeometryError, LabelsError) as error:
        msg = f"Scan '{scan.id}' cannot be measured: {str(error).removesuffix('.')}."
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
