"""From the store to batches of fields on the device.

A batch is a pure function of the step: its plans say which boxes of which scans, and a loader reads
them while the device works. Crops are cut and windowed on the device, from int16, so that nine base
cells and the random crops share one transfer.

Shape letters: B volumes of this process, N random crops, K base cells, M = N + K crops of a volume
(random first), R = B * M rows (random crops of all volumes first), X Y Z voxels.
"""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vocodata.errors import VocoDataError
from vocotrain.errors import LoaderDiedError, ScanReadError
from vocotrain.fields import FieldPlan, FieldSettings, batch_sample_indices, plan_field
from vocotrain.ops import cut_crops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.process import BaseProcess
    from typing import Self

    from numpy.typing import NDArray

    from vocodata.geometry import Size
    from vocodata.store import Store
    from vocotrain.scan_table import ScanTable

T = TypeVar("T")

_LOADER_DIED = (
    "{}: a process that reads fields was killed, mostly because memory or shared memory ran out. "
    "`voco doctor` shows both. Set fewer data.workers, or a smaller data.prefetch_batches, and go "
    "on with --resume: checkpoints written before are whole. If it ends at once in a script of "
    "yours: start training there under `if __name__ == '__main__':`."
)


@dataclass(frozen=True, eq=False)
class FieldBatch:
    """The fields of one step and all that is done to them.

    Attributes:
        scans: Names of the volumes' scans, for errors.
        crop_vox: Voxels of a crop.
        field_BXYZ: HU, int16, already mirrored where a plan mirrors the whole field.
        start_BM3: First voxel of each crop in its field.
        window_hu_B2: HU that become 0 and 1.
        shift_BM: Added to each crop's windowed intensity.
        flip_BM3: Axes along which each crop is mirrored.
        turns_BM: Quarter turns of each crop in the x, y plane, after the mirroring.
        keep_BM: Whether the student sees the crop's feature.
        label_BNK: Overlap of each random crop with each cell.
    """

    scans: tuple[str, ...]
    crop_vox: Size
    field_BXYZ: Tensor  # noqa: N815 (shape letters)
    start_BM3: Tensor  # noqa: N815 (shape letters)
    window_hu_B2: Tensor  # noqa: N815 (shape letters)
    shift_BM: Tensor  # noqa: N815 (shape letters)
    flip_BM3: Tensor  # noqa: N815 (shape letters)
    turns_BM: Tensor  # noqa: N815 (shape letters)
    keep_BM: Tensor  # noqa: N815 (shape letters)
    label_BNK: Tensor  # noqa: N815 (shape letters)

    @property
    def crops(self) -> int:
        """Random crops of each volume, N."""
        return self.label_BNK.shape[1]

    def rows(self, value_BM: Tensor) -> Tensor:
        """Values of all crops in the order of the network's input, (R, ...).

        The random crops of all volumes, b0s0, b0s1, b1s0, ..., then the base cells of all volumes.
        """
        random_R = value_BM[:, : self.crops].flatten(0, 1)
        return torch.cat([random_R, value_BM[:, self.crops :].flatten(0, 1)])

    def crop_rows(self) -> Tensor:
        """Cut, window and change all crops: (R, 1, X, Y, Z), float32."""
        crop_BM1XYZ = cut_crops(
            self.field_BXYZ,
            self.start_BM3,
            self.crop_vox,
            window_hu_B2=self.window_hu_B2,
            shift_BN=self.shift_BM,
            flip_BN3=self.flip_BM3,
            turns_BN=self.turns_BM,
        )
        return self.rows(crop_BM1XYZ)

    def to(self, device: torch.device) -> Self:
        """The same batch, voxels and labels on a device; what is planned stays on the host.

        The copy does not wait if the memory is pinned.
        """
        return replace(
            self,
            field_BXYZ=self.field_BXYZ.to(device, non_blocking=True),
            keep_BM=self.keep_BM.to(device, non_blocking=True),
            label_BNK=self.label_BNK.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Self:
        """The same batch, in memory that a GPU can read by itself; the loader calls this."""
        return replace(
            self,
            field_BXYZ=self.field_BXYZ.pin_memory(),
            keep_BM=self.keep_BM.pin_memory(),
            label_BNK=self.label_BNK.pin_memory(),
        )


@dataclass(frozen=True)
class FieldSource(Dataset[FieldBatch | ScanReadError]):
    """Makes the batch of any step; small and picklable, so that loader processes can have it.

    Attributes:
        store: Where fields are read from.
        table: Scans to draw from.
        settings: What a sample looks like.
        seed: The run's seed.
        batch_size: Volumes in the global batch.
        rank: This process.
        world: Processes that share the global batch.
    """

    store: Store
    table: ScanTable
    settings: FieldSettings
    seed: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def plans(self, step: int) -> list[FieldPlan]:
        """Plans of this process's share of a step."""
        indices = batch_sample_indices(
            step, batch_size=self.batch_size, rank=self.rank, world=self.world
        )
        return [
            plan_field(self.table, self.settings, seed=self.seed, sample_index=index)
            for index in indices
        ]

    def __getitem__(self, step: int) -> FieldBatch | ScanReadError:
        """The batch of a step, or why there is none: loader processes mangle what they raise."""
        try:
            return read_batch(self.store, self.plans(step), self.settings)
        except ScanReadError as error:
            return error


def read_batch(store: Store, plans: Sequence[FieldPlan], settings: FieldSettings) -> FieldBatch:
    """Read the fields of some plans and stack them.

    Raises:
        ScanReadError: A field cannot be read; the scan is named.
    """
    return FieldBatch(
        scans=tuple(plan.scan.id for plan in plans),
        crop_vox=settings.crop_vox,
        field_BXYZ=_stacked([_read_field(store, plan, settings.field_vox) for plan in plans]),
        start_BM3=_stacked([plan.crop_start_M3 for plan in plans]),
        window_hu_B2=torch.tensor([plan.scan.window_hu for plan in plans], dtype=torch.float32),
        shift_BM=_stacked([plan.shift_M for plan in plans]),
        flip_BM3=_stacked([plan.crop_flip_M3 for plan in plans]),
        turns_BM=_stacked([plan.turns_M for plan in plans]),
        keep_BM=_stacked([plan.keep_M for plan in plans]),
        label_BNK=_stacked([plan.label_NK for plan in plans]),
    )


class Batches:
    """Batches of consecutive steps, read ahead while the device works.

    With `workers` processes a torch DataLoader makes them; without, one thread does: the reader and
    its decoder run outside Python's lock.

    Attributes:
        waited_s: Seconds that `next` has spent waiting, in all.
    """

    def __init__(
        self,
        source: FieldSource,
        steps: range,
        *,
        device: torch.device,
        workers: int,
        prefetch_batches: int,
    ) -> None:
        """Start to read; `close` ends it."""
        self._device = device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fields") if workers == 0 else None
        self._made: Iterator[FieldBatch | ScanReadError]
        if self._pool is not None:
            self._made = _ahead(self._pool, source.__getitem__, steps, prefetch_batches)
        else:
            self._made = iter(_loader(source, steps, device, workers, prefetch_batches))
        self.waited_s = 0.0

    def next(self) -> FieldBatch:
        """The next step's batch, on the device.

        Raises:
            ScanReadError: A field cannot be read; the scan is named.
            LoaderDiedError: A loader process was killed.
        """
        begin = time.perf_counter()
        try:
            made = next(self._made)
        except RuntimeError as error:
            # torch has no class of its own for it
            if "DataLoader worker" not in str(error):
                raise
            raise LoaderDiedError(_LOADER_DIED.format(error)) from error
        self.waited_s += time.perf_counter() - begin
        if isinstance(made, ScanReadError):
            raise made
        return made.to(self._device)

    def close(self) -> None:
        """Stop reading ahead."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        del self._made


def _read_field(store: Store, plan: FieldPlan, field_vox: Size) -> NDArray[np.int16]:
    try:
        if plan.scan.is_squeezed:
            field_XYZ = store.read_field(plan.scan.id)
        else:
            field_XYZ = store.read(plan.scan.id, plan.start_XYZ, field_vox)
    except (VocoDataError, OSError) as error:
        msg = (
            f"Scan '{plan.scan.id}' cannot be read from the store (box of {list(field_vox)} voxels "
            f"at {list(plan.start_XYZ)}): {error} Run `voco data verify` on the store, or leave "
            "the scan out with data.exclude."
        )
        raise ScanReadError(msg) from error
    mirror = tuple(slice(None, None, -1 if flip else 1) for flip in plan.field_flip_3)
    return field_XYZ[mirror]


def _stacked(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _ahead(
    pool: ThreadPoolExecutor, make: Callable[[int], T], steps: range, ahead: int
) -> Iterator[T]:
    """Results of `make` in order, `ahead` of them made before they are asked for."""
    waiting: collections.deque[Future[T]] = collections.deque()
    for step in steps:
        waiting.append(pool.submit(make, step))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _loader(
    source: FieldSource, steps: range, device: torch.device, workers: int, prefetch_batches: int
) -> DataLoader[FieldBatch | ScanReadError]:
    methods = multiprocessing.get_all_start_methods()
    return DataLoader(
        source,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=prefetch_batches,
        collate_fn=_as_it_is,
        worker_init_fn=_serve_the_parent,
        multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
        pin_memory=device.type == "cuda",
    )


def _as_it_is(made: T) -> T:
    return made


def _serve_the_parent(_worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes; the parent alone decides.

    torch ends a loader process when its system parent has gone, and that is the fork server here,
    which lives on: without this a killed run would leave its loader processes for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
