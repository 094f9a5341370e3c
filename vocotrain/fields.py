"""The plan of a sample: which scan, which box of it, which crops, which changes.

All chance of a sample is drawn here, from (seed, stream, sample index) by a counter-based
generator, so a sample can be made again alone, by any worker, in any order. Sample index is
`step * batch size + position`: resuming needs only the step, and another number of processes with
the same global batch gives the same samples.

The uniform numbers of a sample come in one call and one fixed layout. So a changed probability
leaves every other draw as it was.

Shape letters: N random crops, K base cells, M = N + K crops (random first), 3 axes x y z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vocodata.geometry import Size
from vocotrain.crops import base_starts, field_size, overlap_labels, random_starts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocotrain.scan_table import ScanRow, ScanTable

TRAINING_STREAM = 0
MONITOR_STREAM = 1

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class FieldSettings:
    """What a sample looks like and what may happen to it. Probabilities are per crop or field.

    Attributes:
        grid: Base cells along x, y, z.
        crop_vox: Voxels of a cell, as of a crop.
        crops: Random crops of a field.
        reach_last: Whether a random crop may lie at the very last position.
        shift_probability: Chance that a crop's intensity is shifted.
        shift_range: Largest shift, as a share of the HU window.
        crop_flips: Chances that a crop is mirrored along x, y, z, its label kept.
        crop_turn: Chance that a crop is turned by 90, 180 or 270 degrees in the x, y plane.
        field_flips: Chances that the whole field, labels with it, is mirrored along x, y, z.
        row_dropout: Chance that the student does not see a crop's feature at all.
    """

    grid: Size
    crop_vox: Size
    crops: int
    reach_last: bool = True
    shift_probability: float = 0.0
    shift_range: float = 0.0
    crop_flips: Triple = (0.0, 0.0, 0.0)
    crop_turn: float = 0.0
    field_flips: Triple = (0.0, 0.0, 0.0)
    row_dropout: float = 0.0

    @property
    def field_vox(self) -> Size:
        """Voxels of a field."""
        return field_size(self.grid, self.crop_vox)

    @property
    def cells(self) -> int:
        """Base cells of a field, K."""
        return int(np.prod(self.grid))


@dataclass(frozen=True, eq=False)
class FieldPlan:
    """One sample, before a voxel is read.

    Attributes:
        scan: Which scan.
        start_XYZ: First voxel of the field in the scan; negative where the scan is smaller than
            the field and lies in its middle.
        field_flip_3: Axes along which the whole field is mirrored, before crops are cut.
        crop_start_M3: First voxel of each crop in the field: random crops, then base cells.
        label_NK: Overlap of each random crop with each cell.
        shift_M: Added to each crop's windowed intensity.
        crop_flip_M3: Axes along which each crop is mirrored.
        turns_M: Quarter turns of each crop in the x, y plane, after the mirroring.
        keep_M: Whether the student sees the crop's feature.
    """

    scan: ScanRow
    start_XYZ: Size  # noqa: N815 (shape letters)
    field_flip_3: NDArray[np.bool_]
    crop_start_M3: NDArray[np.int64]  # noqa: N815 (shape letters)
    label_NK: NDArray[np.float32]  # noqa: N815 (shape letters)
    shift_M: NDArray[np.float32]  # noqa: N815 (shape letters)
    crop_flip_M3: NDArray[np.bool_]  # noqa: N815 (shape letters)
    turns_M: NDArray[np.int64]  # noqa: N815 (shape letters)
    keep_M: NDArray[np.bool_]  # noqa: N815 (shape letters)


def plan_field(
    table: ScanTable,
    settings: FieldSettings,
    *,
    seed: int,
    sample_index: int,
    stream: int = TRAINING_STREAM,
) -> FieldPlan:
    """Draw one sample; the same arguments always give the same plan.

    Args:
        table: Scans to draw from, by weight.
        settings: What a sample looks like.
        seed: The run's seed.
        sample_index: `step * batch size + position in the global batch`.
        stream: Which use of chance; streams never share numbers.

    Returns:
        The plan.
    """
    crops, cells = settings.crops, settings.cells
    uniform = _uniform(seed, stream, sample_index, count=7 + 3 * crops + 8 * (crops + cells))
    scan = table.drawn(uniform[0])
    start_N3 = random_starts(
        uniform[7 : 7 + 3 * crops].reshape(crops, 3),
        grid=settings.grid,
        crop_vox=settings.crop_vox,
        reach_last=settings.reach_last,
    )
    chance_M8 = uniform[7 + 3 * crops :].reshape(crops + cells, 8)
    shift_M = np.where(
        chance_M8[:, 5] < settings.shift_probability,
        (2 * chance_M8[:, 6] - 1) * settings.shift_range,
        0.0,
    )
    return FieldPlan(
        scan=scan,
        start_XYZ=_field_start(uniform[1:4], scan.shape_XYZ, settings.field_vox),
        field_flip_3=uniform[4:7] < np.array(settings.field_flips),
        crop_start_M3=np.concatenate([start_N3, base_starts(settings.grid, settings.crop_vox)]),
        label_NK=overlap_labels(start_N3, grid=settings.grid, crop_vox=settings.crop_vox),
        shift_M=shift_M.astype(np.float32),
        crop_flip_M3=chance_M8[:, :3] < np.array(settings.crop_flips),
        turns_M=_turns(chance_M8[:, 3], chance_M8[:, 4], settings.crop_turn),
        keep_M=chance_M8[:, 7] >= settings.row_dropout,
    )


def batch_sample_indices(step: int, *, batch_size: int, rank: int = 0, world: int = 1) -> range:
    """Samples that one process makes for one step: its contiguous share of the global batch.

    >>> [list(batch_sample_indices(2, batch_size=4, rank=r, world=2)) for r in (0, 1)]
    [[8, 9], [10, 11]]
    """
    share = batch_size // world
    first = step * batch_size + rank * share
    return range(first, first + share)


def _uniform(seed: int, stream: int, sample_index: int, count: int) -> NDArray[np.float64]:
    """Numbers in [0, 1) of a sample. The low counter word is left to the generator to count in."""
    bits = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64),
        counter=np.array([0, 0, sample_index, 0], dtype=np.uint64),
    )
    return np.random.Generator(bits).random(count)


def _field_start(uniform_3: NDArray[np.float64], shape_XYZ: Size, field_vox: Size) -> Size:
    """A uniform position where the scan is larger than the field, the middle where it is not."""
    room = np.array(shape_XYZ) - np.array(field_vox)
    start = np.where(room >= 0, np.floor(uniform_3 * (room + 1)), -(-room // 2))
    return Size(*(int(value) for value in start))


def _turns(
    whether_M: NDArray[np.float64], which_M: NDArray[np.float64], probability: float
) -> NDArray[np.int64]:
    """Quarter turns: 1 to 3 with the given chance, else 0."""
    return np.where(whether_M < probability, 1 + np.floor(which_M * 3), 0).astype(np.int64)
