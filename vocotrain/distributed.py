"""The processes of a run: one, or those that torchrun started.

torchrun tells each process its place in environment variables; they are read when a run starts,
never at import. Gradients travel by the backend that fits the device; small decisions between the
processes, such as to stop, travel by gloo on the host and wait for no GPU.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class World:
    """A process's place among those of the run.

    Attributes:
        rank: This process, from 0.
        size: Number of processes.
        local_rank: This process on its machine: which GPU is its own.
        control: Group for decisions on the host; None in a run of one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    control: dist.ProcessGroup | None = None

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def largest(self, value: int) -> int:
        """The largest value that any process has; all must ask."""
        if self.control is None:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control)
        return int(shared)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Means over all processes; all must ask."""
        if self.control is None:
            return values
        shared = values.detach().cpu().clone()
        dist.all_reduce(shared, dist.ReduceOp.SUM, group=self.control)
        return shared / self.size

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.control is not None:
            dist.barrier(group=self.control)


def is_writer_process() -> bool:
    """Whether this process is the one that writes and speaks, asked before or after the run.

    While a run is open `World.is_writer` says the same; torchrun's variables outlive the run.
    """
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined_world(device: str) -> Iterator[World]:
    """Join the other processes for as long as the block lasts.

    Args:
        device: `cuda` or `cpu`: what gradients lie on.

    Yields:
        This process's place; alone where torchrun has set nothing.
    """
    size = process_count()
    if size == 1:
        yield World()
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, local_rank, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()
