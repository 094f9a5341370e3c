"""Segment one image: on the model's grid from a store, or a scan in its own geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from vocodata.foreground import crop, foreground_box
from vocodata.resampling import resample
from vocodata.straightening import leaning_again, straightened
from vocotrain.native import native_labels
from vocotrain.segmentation_data import windowed
from vocotrain.sliding import slide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from vocodata.geometry import Volume
    from vocotrain.segmenter import Segmenter
    from vocotrain.sliding import Slab

OnSlab = Callable[[int, int], None]
"""Told how many planes of the grid are done, of how many."""


def segment_grid(
    segmenter: Segmenter, hu_XYZ: NDArray[np.generic], *, overlap: float | None = None
) -> NDArray[np.uint8]:
    """Class of each voxel of an image that is on the model's grid already.

    Args:
        segmenter: The network.
        hu_XYZ: HU on its grid.
        overlap: Of sliding windows; None: the segmenter's own.
    """
    classes_XYZ = np.empty(hu_XYZ.shape, np.uint8)
    for slab in score_grid(segmenter, hu_XYZ, overlap=overlap):
        stop = slab.start + slab.scores_CXYZ.shape[1]
        best_XYZ = slab.scores_CXYZ.argmax(dim=0).to(torch.uint8)
        classes_XYZ[slab.start : stop] = best_XYZ.cpu().numpy()
    return classes_XYZ


def segment_scan(
    segmenter: Segmenter,
    volume: Volume,
    *,
    overlap: float | None = None,
    on_slab: OnSlab | None = None,
) -> NDArray[np.uint8]:
    """Class of each voxel of a scan, in the scan's own shape, orientation and spacing.

    The scan goes the way that a build of the store goes: put straight, to RAS, onto the grid,
    cropped to the patient. Probabilities come back by linear interpolation (see native.py).

    Args:
        segmenter: The network.
        volume: HU, as a reader gives them; slices may lean.
        overlap: Of sliding windows; None: the segmenter's own.
        on_slab: Told of progress.

    Raises:
        GeometryError: The scan leans too far to be put straight.
        ImplausibleScanError: No voxel of the scan is above the foreground threshold.
    """
    spec = segmenter.spec
    straight = straightened(volume)
    grid = resample(straight, spec.spacing_mm)
    if spec.foreground_above_hu is not None:
        grid = crop(grid, foreground_box(grid, spec.foreground_above_hu))
    slabs = score_grid(segmenter, grid.data_XYZ, overlap=overlap)
    labels_XYZ = native_labels(straight, _told(slabs, grid.shape_XYZ.x, on_slab), grid)
    return leaning_again(labels_XYZ, volume)


def score_grid(
    segmenter: Segmenter, hu_XYZ: NDArray[np.generic], *, overlap: float | None = None
) -> Iterator[Slab]:
    """Class scores of an image on the model's grid, slab after slab along x.

    The network is in evaluation mode while a slab is made.
    """
    spec, model, precision = segmenter.spec, segmenter.model, segmenter.precision
    image_XYZ = torch.from_numpy(windowed(hu_XYZ, spec.window_hu)).to(segmenter.device)

    def scores(crops_WCXYZ: Tensor) -> Tensor:
        was_training = model.training
        model.eval()
        with (
            torch.no_grad(),
            torch.autocast(
                segmenter.device.type, dtype=precision.dtype, enabled=precision.is_autocast
            ),
        ):
            scores_WCXYZ: Tensor = model(crops_WCXYZ)
        model.train(was_training)
        return scores_WCXYZ

    return slide(
        image_XYZ,
        scores,
        roi_vox=spec.roi_vox,
        overlap=spec.overlap if overlap is None else overlap,
        blending=spec.blending,
    )


def _told(slabs: Iterator[Slab], planes: int, on_slab: OnSlab | None) -> Iterator[Slab]:
    for slab in slabs:
        yield slab
        if on_slab is not None:
            on_slab(slab.start + slab.scores_CXYZ.shape[1], planes)
