"""One field with its base cells, a random crop, and what a trained model says of the crop.

The field is the first one that the run's own monitor looks at, so nobody picked it for its looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from vocodata.geometry import Size, spacing_of
from vocotrain.monitor import make_monitor
from vocotrain.ops import crop_similarity
from vocotrain.scan_table import read_scan_table, split_holdout
from vocotrain.sizes import model_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Spacing
    from vocodata.store import Store
    from vocotrain.config import PretrainConfig
    from vocotrain.data import FieldBatch
    from vocotrain.objective import VoCo


@dataclass(frozen=True, eq=False)
class PositionExample:
    """A field, its cells, and one crop.

    Attributes:
        scan: Id of the scan.
        is_held_out: Whether the scan was never trained on.
        field_XYZ: HU.
        spacing_mm: Of the field.
        window_hu: Window that the model sees.
        crop_vox: Side of crop and cell.
        crop_start: First voxel of the crop.
        base_start_K3: First voxel of each base cell.
        label_K: Share of the crop in each cell.
        similarity_K: Cosine of the crop's and the cell's embedding, by the model.
    """

    scan: str
    is_held_out: bool
    field_XYZ: NDArray[np.int16]  # noqa: N815 (shape letters)
    spacing_mm: Spacing
    window_hu: tuple[float, float]
    crop_vox: Size
    crop_start: Size
    base_start_K3: NDArray[np.int64]  # noqa: N815 (shape letters)
    label_K: NDArray[np.float32]  # noqa: N815 (shape letters)
    similarity_K: NDArray[np.float32]  # noqa: N815 (shape letters)


def position_example(
    objective: VoCo, config: PretrainConfig, store: Store, *, index: int = 0
) -> PositionExample:
    """Ask a trained model where the crop of a monitored field lies.

    Batch norm in the heads sees as many fields together as in the run's own monitor.

    Args:
        objective: The trained model, on the CPU.
        config: Of its run.
        store: That it was trained on.
        index: Which of the monitor's fields.
    """
    settings = config.objective.field_settings(model_size(config.model.size).crop_vox)
    table = read_scan_table(store, settings.field_vox)
    training, held_out = split_holdout(table, config.data.holdout)
    monitor = make_monitor(
        store,
        training=training,
        held_out=held_out,
        settings=settings,
        seed=config.train.seed,
        fields=config.train.eval_fields,
        batch_size=config.train.batch_size,
        device=torch.device("cpu"),
    )
    batch = monitor.batches[index // config.train.batch_size]
    place = index % config.train.batch_size
    similarity_BNK = crop_similarity(*objective.teacher_embeddings(batch))
    return _example(
        batch, place, similarity_BNK[place, 0].float().numpy(), store, monitor.is_held_out
    )


def _example(
    batch: FieldBatch,
    place: int,
    similarity_K: NDArray[np.float32],
    store: Store,
    is_held_out: bool,  # noqa: FBT001 (a value, not a switch)
) -> PositionExample:
    scan = batch.scans[place]
    start_M3 = batch.start_BM3[place].numpy()
    low, high = batch.window_hu_B2[place].tolist()
    return PositionExample(
        scan=scan,
        is_held_out=is_held_out,
        field_XYZ=batch.field_BXYZ[place].numpy(),
        spacing_mm=_field_spacing(store, scan, batch.field_BXYZ.shape[1:]),
        window_hu=(low, high),
        crop_vox=Size(*batch.crop_vox),
        crop_start=Size(*start_M3[0].tolist()),
        base_start_K3=start_M3[batch.crops :],
        label_K=batch.label_BNK[place, 0].numpy(),
        similarity_K=similarity_K,
    )


def _field_spacing(store: Store, scan: str, field_XYZ: tuple[int, ...]) -> Spacing:
    """Of the squeezed whole scan if that is the field, else of the scan."""
    row = store.brief_row(scan)
    if row.field_affine is not None and row.field_shape_xyz == tuple(field_XYZ):
        return spacing_of(np.array(row.field_affine).reshape(4, 4))
    return store.info(scan).spacing_mm
