"""What a run is trained on: looked up and checked before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocodata.store import open_store
from vocotrain.bill import bill_of_materials
from vocotrain.errors import ConfigError
from vocotrain.excluded_scans import Exclusions, read_excluded
from vocotrain.scan_table import ScanTable, read_scan_table, split_holdout
from vocotrain.sizes import ModelSize, check_crop, model_size

if TYPE_CHECKING:
    from vocodata.geometry import Size, Spacing
    from vocodata.store import Store
    from vocotrain.config import PretrainConfig
    from vocotrain.fields import FieldSettings
    from vocotrain.scan_table import ScanRow

_LEAST_SHARE = 0.5
"""Of a field; a scan that fills less is worth a warning."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Scans and settings that fit each other.

    Attributes:
        store: Where fields are read from.
        digest: Digest of the store's content.
        size: Which model.
        settings: What a sample looks like.
        training: Scans to draw from.
        held_out: Scans that are only looked at.
        excluded: Scans that lists leave out.
        bill: What `data.json` gets.
    """

    store: Store
    digest: str
    size: ModelSize
    settings: FieldSettings
    training: ScanTable
    held_out: ScanTable
    excluded: Exclusions
    bill: dict[str, Any]

    @property
    def spacings_mm(self) -> list[Spacing]:
        """Spacings of the scans trained on, each once."""
        return sorted({row.spacing_mm for row in self.training.rows})

    @property
    def windows_hu(self) -> list[tuple[float, float]]:
        """HU windows of the scans trained on, each once."""
        return sorted({row.window_hu for row in self.training.rows})

    @property
    def warnings(self) -> list[str]:
        """What a person should know before the run begins, in sentences."""
        field_vox = self.settings.field_vox
        small = [
            row for row in self.training.rows if _share_of_field(row, field_vox) < _LEAST_SHARE
        ]
        if not small:
            return list(self.excluded.warnings)
        scan = " x ".join(map(str, small[0].shape_XYZ))
        padded = (
            f"{len(small)} of {len(self.training)} scans fill less than half of a field of "
            f"{' x '.join(map(str, field_vox))} voxels, such as {small[0].id} with {scan}; the "
            "rest is air, which tells no place. Build the store with a finer preset, or set a "
            "smaller objective.crop_vox or model.size."
        )
        return [*self.excluded.warnings, padded]


def look_up_data(config: PretrainConfig, *, processes: int = 1) -> TrainingData:
    """Open the store, part the scans, and check that they fit the settings; writes nothing.

    Raises:
        ConfigError: No scans to train on, a holdout that matches none, or volumes that do not
            share out among the processes.
        InputShapeError: A crop too small for the size.
        ManifestError: A list of `data.exclude` cannot be read.
        ModelSizeError: No such size.
        StoreError: No such store.
    """
    _check_shares(config.train.batch_size, processes)
    size = model_size(config.model.size)
    settings = config.objective.field_settings(size.crop_vox)
    check_crop(size, settings.crop_vox)
    store = open_store(config.data.store)
    table = read_scan_table(store, settings.field_vox)
    ids = [row.id for row in table.rows]
    excluded = read_excluded(config.data.exclude, in_store=ids, store_digest=store.digest)
    training, held_out = split_holdout(table, config.data.holdout, excluded.scans)
    used = {row.id for row in (*training.rows, *held_out.rows)} | excluded.scans
    bill = bill_of_materials(
        store=config.data.store,
        digest=store.digest,
        training=training,
        held_out=held_out,
        unused=[scan for scan in ids if scan not in used],
        excluded=excluded,
    )
    return TrainingData(store, store.digest, size, settings, training, held_out, excluded, bill)


def _share_of_field(row: ScanRow, field_vox: Size) -> float:
    """How much of a field of a scan is scan, the rest being air."""
    sides = zip(row.shape_XYZ, field_vox, strict=True)
    return math.prod(min(has, wanted) / wanted for has, wanted in sides)


def _check_shares(batch_size: int, processes: int) -> None:
    share, left = divmod(batch_size, processes)
    if left or share < 2:
        msg = (
            f"train.batch_size is {batch_size} for {processes} processes; expected a multiple of "
            f"{processes} with at least 2 volumes each, as a volume is compared with its neighbour."
        )
        raise ConfigError(msg)
