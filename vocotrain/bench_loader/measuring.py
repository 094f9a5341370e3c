"""All readers in one process, one after another over the same boxes, in random order.

glibc reads its settings when a process starts, so each of its two ways is a process of its own.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vocodata.geometry import Size
from vocotrain.bench_loader.readers import OPENERS, WINDOWED, open_all
from vocotrain.bench_loader.settings import CROPS, MALLOCS
from vocotrain.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.connection import Connection

    from vocotrain.bench_loader.readers import Opener, Reader
    from vocotrain.bench_loader.settings import LoaderSettings

PATIENCE_S = 1800
"""A child that is silent for longer is taken for hung."""


@dataclass(frozen=True)
class Row:
    """One reader's medians for one kind of crop.

    Attributes:
        volume_vox: Size of the volumes, which the crop must not depend on.
        malloc: Key of `settings.MALLOCS`.
        crop: Key of `settings.CROPS`.
        reader: Key of `readers.OPENERS`, or of the others that were given.
        wall_ms: Time.
        processor_ms: Time of all the process's threads; on a busy machine the one to trust.
        read_mb: Bytes of read calls; 0 for a memory map, whose pages come without.
        disk_mb: Bytes that came from the disk for a field with none of it in the page cache; None
            if not measured or the system does not say.
    """

    volume_vox: Size
    malloc: str
    crop: str
    reader: str
    wall_ms: float
    processor_ms: float
    read_mb: float
    disk_mb: float | None


def measured(
    folder: Path, size: Size, malloc: str, settings: LoaderSettings, others: dict[str, Opener]
) -> list[Row]:
    """Check all readers, then time them, in a fresh process with glibc's settings.

    Raises:
        BenchmarkError: A reader gives other voxels, or the process died or hangs.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
        target=_answer, args=(theirs, folder, size, malloc, settings, others), daemon=True
    )
    with _environment(MALLOCS[malloc]):
        child.start()
    theirs.close()
    try:
        answer = ours.recv() if ours.poll(PATIENCE_S) else "it hangs"
    except EOFError:
        answer = "it died"
    if child.is_alive() and isinstance(answer, str):
        child.kill()
    child.join()
    if isinstance(answer, str):
        msg = f"The process that reads volumes of {tuple(size)} with {malloc} malloc: {answer}."
        raise BenchmarkError(msg)
    rows: list[Row] = answer
    return rows


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _answer(
    answers: Connection,
    folder: Path,
    size: Size,
    malloc: str,
    settings: LoaderSettings,
    others: dict[str, Opener],
) -> None:
    """What the process does."""
    torch.set_num_threads(1)
    readers = open_all(folder, settings.volumes, others)
    wrong = differing(readers, folder, settings.volumes, size)
    if wrong:
        answers.send(f"{', '.join(wrong)}: not the voxels that were stored")
        return
    from_disk = _disk_bytes(readers, folder, size, settings)
    # Back into the page cache, all of them: else who reads a box first would pay for the disk.
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    rows = []
    for crop, crop_vox in CROPS.items():
        _timed(readers, size, crop_vox, settings.volumes, rounds=2)
        timed = _timed(readers, size, crop_vox, settings.volumes, rounds=settings.rounds)
        for reader, (wall_s, processor_s, read_bytes) in timed.items():
            disk = from_disk.get(reader) if crop == "field" else None
            disk_mb = None if disk is None else disk / 1e6
            times_ms = (1e3 * wall_s, 1e3 * processor_s)
            rows.append(Row(size, malloc, crop, reader, *times_ms, read_bytes / 1e6, disk_mb))
    answers.send(rows)


def differing(readers: Mapping[str, Reader], folder: Path, volumes: int, size: Size) -> list[str]:
    """Readers that do not give the voxels that were stored."""
    start = Size(*(n // 3 for n in size))
    count = Size(*(n // 2 for n in size))
    box = tuple(slice(a, a + n) for a, n in zip(start, count, strict=True))
    truths = [np.load(folder / f"{n}.int16.npy", mmap_mode="r")[box] for n in range(volumes)]
    return [
        name
        for name, read in readers.items()
        if name != WINDOWED
        and not all(
            np.array_equal(read(number, start, count), truth) for number, truth in enumerate(truths)
        )
    ]


def _boxes(size: Size, crop: Size, volumes: int, rounds: int) -> Iterator[tuple[int, Size]]:
    """Which volume and where, of each round."""
    rng = np.random.default_rng([rounds, *crop])
    for _ in range(rounds):
        number = int(rng.integers(volumes))
        spare = (n - c for n, c in zip(size, crop, strict=True))
        yield number, Size(*(int(rng.integers(0, n + 1)) for n in spare))


def _timed(
    readers: Mapping[str, Reader], size: Size, crop: Size, volumes: int, *, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Medians of (wall s, processor s, bytes of read calls) of each reader."""
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in readers}
    order = np.random.default_rng(rounds)
    for number, start in _boxes(size, crop, volumes, rounds):
        for name in order.permutation(list(readers)).tolist():
            read, before = readers[name], _io("rchar")
            wall, processor = time.perf_counter(), time.process_time()
            read(number, start, crop)
            passed = (time.perf_counter() - wall, time.process_time() - processor)
            samples[name].append((*passed, _io("rchar") - before))
    return {
        name: tuple(statistics.median(column) for column in zip(*rows, strict=True))
        for name, rows in samples.items()
    }


def _disk_bytes(
    readers: Mapping[str, Reader], folder: Path, size: Size, settings: LoaderSettings
) -> dict[str, float]:
    """Median bytes from the disk for a field, its files out of the page cache."""
    files = _files(folder)
    read: dict[str, list[int]] = {name: [] for name in readers}
    for number, start in _boxes(size, CROPS["field"], settings.volumes, settings.cold_rounds):
        for name, reader in readers.items():
            for path in files:
                _evict(path)
            before = _io("read_bytes")
            reader(number, start, CROPS["field"])
            read[name].append(_io("read_bytes") - before)
    if not any(read[name][0] for name in OPENERS if name in read):
        return {}
    return {name: statistics.median(values) for name, values in read.items()}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _evict(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _io(counter: str) -> int:
    """A counter of this process in /proc; 0 where there is none."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)[counter])
