"""Label-centred crops of a labelled store: planned as a pure function, then read and changed.

Source of the sampling: the authors' fine-tuning programs, which cut crops around labelled and
unlabelled voxels in a fixed ratio. A crop is moved so that it stays inside its scan; a scan smaller
than the crop lies in the crop's middle, with air around it.

Shape letters: N crops, C = 1 channel, X Y Z voxels, S candidate sites, 3 axes x y z.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vocodata.errors import VocoDataError
from vocodata.geometry import Size
from vocotrain.errors import ScanReadError
from vocotrain.labelled_scans import to_classes

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from vocodata.store import Store
    from vocotrain.labelled_scans import LabelledScan

CROP_STREAM = 16
ORDER_STREAM = 17
SITE_STREAM = 18

_SITES = 20_000
"""Candidate centres kept of each kind and scan: 240 kB, and plenty to draw from."""

_FEWEST = 200
"""Candidate centres kept of each class, however many classes there are."""


@dataclass(frozen=True)
class CropSettings:
    """What a training sample looks like and what may happen to it. Probabilities are per crop.

    Attributes:
        roi_vox: Size of a crop, voxels.
        crops: Crops of a volume.
        window_hu: Low and high end of the window mapped to [0, 1], HU.
        positive_share: Chance that a crop is centred on a labelled voxel.
        balance_classes: Draw a class of the scan first, then a voxel of it.
        flip: Chance of a mirroring, for each axis.
        turn: Chance of 90, 180 or 270 degrees in the x, y plane; needs a crop square there.
        shift_probability: Chance that the intensity is shifted.
        shift_range: Largest shift, as a share of the window.
    """

    roi_vox: Size
    crops: int
    window_hu: tuple[float, float]
    positive_share: float
    balance_classes: bool = False
    flip: float = 0.0
    turn: float = 0.0
    shift_probability: float = 0.0
    shift_range: float = 0.0


@dataclass(frozen=True, eq=False)
class CropSites:
    """Where crops of one scan may be centred.

    Attributes:
        labelled_S3: Voxels with a class, at most 20,000, drawn evenly from all of them.
        unlabelled_S3: Voxels without one.
        of_class: The same as `labelled_S3`, class by class, for the classes that the scan has.
    """

    labelled_S3: NDArray[np.int32]  # noqa: N815 (shape letters)
    unlabelled_S3: NDArray[np.int32]  # noqa: N815 (shape letters)
    of_class: tuple[NDArray[np.int32], ...]


class CropPlan(NamedTuple):
    """One crop, before a voxel is read.

    Attributes:
        scan: Which scan.
        start_XYZ: First voxel of the crop in the scan; negative where the scan is smaller.
        flips: Axes to mirror.
        turns: Quarter turns in the x, y plane, after the mirroring.
        shift: Added to the windowed intensity.
    """

    scan: LabelledScan
    start_XYZ: Size  # noqa: N815 (shape letters)
    flips: tuple[bool, bool, bool]
    turns: int
    shift: float


class CropBatch(NamedTuple):
    """Crops ready for the network.

    Attributes:
        image_NCXYZ: Windowed intensity, float32.
        class_NCXYZ: Class of each voxel, uint8.
        scans: Where each crop is from.
    """

    image_NCXYZ: Tensor  # noqa: N815 (shape letters)
    class_NCXYZ: Tensor  # noqa: N815 (shape letters)
    scans: tuple[str, ...]


def find_sites(store: Store, scan: LabelledScan, *, seed: int) -> CropSites:
    """Candidate centres of a scan; its labels are read once, and only the sites are kept."""
    label_XYZ = store.read_label(scan.id, Size(0, 0, 0), scan.shape_XYZ)
    class_XYZ = to_classes(label_XYZ, scan.class_of)
    is_labelled = class_XYZ != 0
    random = _generator(seed, SITE_STREAM, _digest(scan.id))
    anywhere_S3 = random.integers(0, scan.shape_XYZ, size=(_SITES, 3), dtype=np.int32)
    free = ~is_labelled[tuple(anywhere_S3.T)]
    present = np.flatnonzero(np.bincount(class_XYZ.ravel(), minlength=2)[1:]) + 1
    share = max(_FEWEST, _SITES // max(1, len(present)))
    return CropSites(
        _sample_of(is_labelled, random, most=_SITES),
        anywhere_S3[free],
        tuple(_sample_of(class_XYZ == index, random, most=share) for index in present),
    )


def plan_crops(
    scans: Sequence[LabelledScan],
    sites: Mapping[str, CropSites],
    settings: CropSettings,
    *,
    seed: int,
    sample_index: int,
) -> list[CropPlan]:
    """Draw the crops of one volume; the same arguments always give the same crops.

    Every scan comes once in `len(scans)` samples, in an order drawn anew each time round.

    Args:
        scans: Training scans.
        sites: Of each scan.
        settings: What a sample looks like.
        seed: The run's seed.
        sample_index: `step * batch size + position in the batch`.
    """
    round_index, position = divmod(sample_index, len(scans))
    scan = scans[_generator(seed, ORDER_STREAM, round_index).permutation(len(scans))[position]]
    uniform_N10 = _generator(seed, CROP_STREAM, sample_index).random((settings.crops, 10))
    return [_plan_crop(scan, sites[scan.id], settings, uniform_10) for uniform_10 in uniform_N10]


def read_crops(store: Store, plans: Sequence[CropPlan], settings: CropSettings) -> CropBatch:
    """Read planned crops and apply what was drawn for them.

    Raises:
        ScanReadError: A crop cannot be read; the scan is named.
    """
    images, classes = zip(*(_read_crop(store, plan, settings) for plan in plans), strict=True)
    return CropBatch(
        torch.from_numpy(np.stack(images)[:, None]),
        torch.from_numpy(np.stack(classes)[:, None]),
        tuple(plan.scan.id for plan in plans),
    )


def windowed(hu: NDArray[np.generic], window_hu: tuple[float, float]) -> NDArray[np.float32]:
    """HU to [0, 1], linear inside the window and clipped outside.

    >>> windowed(np.array([-200, 0, 300], np.int16), (-100.0, 100.0)).tolist()
    [0.0, 0.5, 1.0]
    """
    low, high = window_hu
    scaled = (hu.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    return scaled.clip(0, 1)


@dataclass(frozen=True)
class CropSource:
    """All that is needed to make any sample of a run.

    Attributes:
        store: Where voxels come from.
        scans: Training scans.
        sites: Of each scan.
        settings: What a sample looks like.
        seed: The run's seed.
        batch_size: Volumes of a step.
    """

    store: Store
    scans: tuple[LabelledScan, ...]
    sites: Mapping[str, CropSites]
    settings: CropSettings
    seed: int
    batch_size: int

    def batch(self, step: int) -> CropBatch:
        """The crops of one step."""
        first = step * self.batch_size
        plans = [
            plan
            for index in range(first, first + self.batch_size)
            for plan in plan_crops(
                self.scans, self.sites, self.settings, seed=self.seed, sample_index=index
            )
        ]
        return read_crops(self.store, plans, self.settings)

    def batches(self, first: int, stop: int, *, workers: int) -> Generator[CropBatch, None, None]:
        """The crops of steps first..stop in order, read ahead by threads (decoding frees the GIL).

        Args:
            first: First step.
            stop: One past the last step.
            workers: Threads; 0 reads when asked.
        """
        if not workers:
            yield from map(self.batch, range(first, stop))
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
            steps = iter(range(first, stop))
            ahead = deque(pool.submit(self.batch, step) for step in islice(steps, 2 * workers))
            try:
                while ahead:
                    ready = ahead.popleft().result()
                    ahead.extend(pool.submit(self.batch, step) for step in islice(steps, 1))
                    yield ready
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _plan_crop(
    scan: LabelledScan, sites: CropSites, settings: CropSettings, uniform_10: NDArray[np.float64]
) -> CropPlan:
    wants_label = uniform_10[0] < settings.positive_share
    first, second = sites.labelled_S3, sites.unlabelled_S3
    if settings.balance_classes and sites.of_class:
        first = sites.of_class[int(uniform_10[9] * len(sites.of_class))]
    if not wants_label:
        first, second = second, first
    # a scan may be labelled all over, or nowhere: then the other kind serves
    from_S3 = first if len(first) else second
    centre = from_S3[int(uniform_10[1] * len(from_S3))]
    turns = 1 + int(uniform_10[6] * 3) if uniform_10[5] < settings.turn else 0
    shift = (2 * uniform_10[8] - 1) * settings.shift_range
    x, y, z = (bool(chance < settings.flip) for chance in uniform_10[2:5])
    return CropPlan(
        scan,
        Size(
            *(_start(*axis) for axis in zip(centre, settings.roi_vox, scan.shape_XYZ, strict=True))
        ),
        (x, y, z),
        turns,
        float(shift) if uniform_10[7] < settings.shift_probability else 0.0,
    )


def _start(centre: int, roi: int, side: int) -> int:
    """First voxel of a crop around `centre`, kept inside; a small scan lies in its middle."""
    if side <= roi:
        return -((roi - side) // 2)
    return int(min(max(int(centre) - roi // 2, 0), side - roi))


def _read_crop(
    store: Store, plan: CropPlan, settings: CropSettings
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    try:
        hu_XYZ = store.read(plan.scan.id, plan.start_XYZ, settings.roi_vox)
        label_XYZ = store.read_label(plan.scan.id, plan.start_XYZ, settings.roi_vox)
    except (VocoDataError, OSError) as error:
        msg = (
            f"Crop of scan '{plan.scan.id}' cannot be read from the store (box of "
            f"{list(settings.roi_vox)} voxels at {list(plan.start_XYZ)}): {error} Run "
            "`voco data verify` on the store, or leave the scan out of data.train."
        )
        raise ScanReadError(msg) from error
    image_XYZ = windowed(hu_XYZ, settings.window_hu) + np.float32(plan.shift)
    class_XYZ = to_classes(label_XYZ, plan.scan.class_of)
    axes = [axis for axis in range(3) if plan.flips[axis]]
    return _moved(image_XYZ, axes, plan.turns), _moved(class_XYZ, axes, plan.turns)


def _moved(data_XYZ: NDArray[Any], axes: list[int], turns: int) -> NDArray[Any]:
    return np.rot90(np.flip(data_XYZ, tuple(axes)), turns)


def _sample_of(
    is_labelled: NDArray[np.bool_], random: np.random.Generator, *, most: int
) -> NDArray[np.int32]:
    """At most `most` of the true voxels, each as likely as any other, never all listed."""
    per_plane = np.count_nonzero(is_labelled, axis=(1, 2))
    ends = np.cumsum(per_plane)
    total = int(ends[-1])
    if total <= most:
        ranks = np.arange(total)
    else:
        ranks = np.sort(random.choice(total, most, replace=False, shuffle=False))
    bounds = np.searchsorted(ranks, [0, *ends])
    sites = [
        _plane_sites(is_labelled[x], x, ranks[low:high] - (ends[x] - per_plane[x]))
        for x, (low, high) in enumerate(pairwise(bounds))
        if high > low
    ]
    return np.concatenate(sites) if sites else np.zeros((0, 3), np.int32)


def _plane_sites(plane_YZ: NDArray[np.bool_], x: int, ranks: NDArray[np.intp]) -> NDArray[np.int32]:
    y, z = np.nonzero(plane_YZ)
    return np.stack([np.full(len(ranks), x), y[ranks], z[ranks]], axis=1).astype(np.int32)


def _digest(scan_id: str) -> int:
    """A number from a scan's name, the same in every process."""
    return int.from_bytes(hashlib.sha256(scan_id.encode()).digest()[:8], "little")


def _generator(seed: int, stream: int, index: int) -> np.random.Generator:
    """Chance of one purpose; the low counter word is left to the generator to count in."""
    bits = np.random.Philox(
        key=np.array([seed, stream], dtype=np.uint64),
        counter=np.array([0, 0, index, 0], dtype=np.uint64),
    )
    return np.random.Generator(bits)
