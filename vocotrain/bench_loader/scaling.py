"""Fields a second of two processes at once, against one alone: nothing may be shared or locked."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from vocodata.geometry import Size
from vocodata.store import open_store
from vocotrain.bench_loader.settings import CROPS
from vocotrain.bench_loader.volumes import scan_id, store_path
from vocotrain.errors import BenchmarkError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

_TURNS = 5
_PAIRS = 5
"""Pairs of processes: where the pages of one happen to lie is a tenth of what it reads."""
_PATIENCE_S = 300


def scaling(folder: Path, codec: str, size: Size, *, fields: int) -> float:
    """How many times the fields a second of one process two processes read.

    Median of the turns of some pairs of processes; in each turn, first one process reads alone,
    then both at once.

    Raises:
        BenchmarkError: A process died or hangs.
    """
    turns = [_turns(folder, codec, size, fields) for _ in range(_PAIRS)]
    return statistics.median(itertools.chain.from_iterable(turns))


def _turns(folder: Path, codec: str, size: Size, fields: int) -> list[float]:
    """The ratio of each turn of one pair of processes."""
    context = multiprocessing.get_context("spawn")
    pipes, children = [], []
    for seed in range(2):
        ours, theirs = context.Pipe()
        child = context.Process(target=_serve, args=(theirs, folder, codec, size, seed))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        _seconds(pipes, 2)
        return [2 * _seconds(pipes[:1], fields) / _seconds(pipes, fields) for _ in range(_TURNS)]
    finally:
        for pipe in pipes:
            pipe.close()
        for child in children:
            child.join(10)
            if child.is_alive():
                child.kill()
                child.join()


def _seconds(pipes: list[Connection], fields: int) -> float:
    """Until all of these processes have read so many fields each."""
    began = time.perf_counter()
    for pipe in pipes:
        pipe.send(fields)
    for pipe in pipes:
        try:
            answered = pipe.poll(_PATIENCE_S) and pipe.recv() == fields
        except (EOFError, ConnectionResetError):
            answered = False
        if not answered:
            msg = f"A process that reads {fields} fields died or hangs."
            raise BenchmarkError(msg)
    return time.perf_counter() - began


def _serve(pipe: Connection, folder: Path, codec: str, size: Size, seed: int) -> None:
    """Read as many random fields as asked for, until nobody asks any more."""
    store, field = open_store(store_path(folder, codec)), CROPS["field"]
    rng = np.random.default_rng(seed)
    while True:
        try:
            fields = pipe.recv()
        except EOFError:
            return
        for _ in range(fields):
            spare = (n - c for n, c in zip(size, field, strict=True))
            start = Size(*(int(rng.integers(0, n + 1)) for n in spare))
            store.read(scan_id(0), start, field)
        pipe.send(fields)
