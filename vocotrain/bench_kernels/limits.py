"""What a device could do at best, measured: bytes copied and products computed in a second.

A kernel's share of these says how much there is left to gain. Datasheets promise more than any
program gets; these two numbers are what a plain copy and torch's own matrix product get here. On a
processor they are of the threads' time, a second of one thread, as are the shares: other work on
the machine would make the wall's time look like a slow device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vocotrain.bench_kernels.timing import Clock, Workload, take_turns

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
"""Read once and written once; several times any cache."""
PRODUCT_SIDE = {"cpu": 1024, "cuda": 8192}
REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """Of several runs, the one that a fifth of them beat."""

    copy_bytes_per_s: float
    """Bytes read and bytes written, both counted."""
    product_flop_per_s: float
    """Of two square matrices in the benchmark's number type."""


def fair_metric(device: torch.device) -> str:
    """Which of a clock's times tells how well a device was used."""
    return "speed" if device.type == "cuda" else "processor"


def measure_limits(device: torch.device, dtype: torch.dtype, clock: Clock) -> Limits:
    """Copy and multiply."""
    source = torch.ones(COPY_BYTES[device.type], dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    side = PRODUCT_SIDE[device.type]
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    product = torch.empty_like(matrix)
    found = take_turns(
        {
            "copy": Workload(lambda: target.copy_(source), (), None),
            "product": Workload(lambda: torch.mm(matrix, matrix, out=product), (), None),
        },
        clock,
        repeats=REPEATS,
    )
    copy_ms = found["copy"]["forward", fair_metric(device)].low
    product_ms = found["product"]["forward", fair_metric(device)].low
    return Limits(
        copy_bytes_per_s=2 * source.numel() / (1e-3 * copy_ms),
        product_flop_per_s=2 * side**3 / (1e-3 * product_ms),
    )
