"""Speed of window attention on a processor: ours against MONAI's, forward and backward.

    python benchmarks/kernels.py [--quick] [--threads N] [--clock wall|processor]
                                 [--only TEXT] [--json FILE]

What is timed is the attention half of a Swin block: linear layer for q, k, v, attention in
windows, linear layer after it. `monai` is MONAI's block as it is (its normalisation removed),
`reference` and `cpu` are ours with the same weights. Before a case is timed, outputs and all
gradients are compared. Runs of the three alternate, so that a busy machine slows all alike;
medians are given. On a machine that others use, `--threads 1 --clock processor` counts only the
time that the work itself took.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import monai
import monai.networks.nets.swin_unetr as monai_swin
import torch
from torch import Tensor, nn

from vocokernels import window_attention

Triple = tuple[int, int, int]


class Case(NamedTuple):
    """One map size, shifted or not."""

    name: str
    maps: int
    side: int
    window: int
    channels: int
    heads: int
    shifted: bool

    @property
    def shift(self) -> int:
        """Shift along each axis, tokens."""
        return self.window // 2 if self.shifted else 0


# name, maps, tokens along an axis, window, channels, heads
SIZES = [
    ("B stage 1 of 64^3", 2, 32, 7, 48, 3),
    ("B stage 2 of 64^3", 4, 16, 7, 96, 6),
    ("B stage 3 of 64^3", 8, 8, 7, 192, 12),
    ("B stage 4 of 64^3", 22, 4, 7, 384, 24),
    ("88 small maps", 88, 16, 4, 12, 3),
    ("88 small maps", 88, 12, 4, 24, 3),
    ("88 small maps", 88, 8, 4, 24, 3),
    ("88 small maps", 88, 6, 4, 48, 6),
    ("88 small maps", 88, 12, 7, 48, 3),
]
QUICK_SIZES = [("B stage 3 of 64^3", 1, 8, 7, 192, 12), ("small maps", 8, 6, 4, 48, 6)]


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Timing(NamedTuple):
    """Medians of one implementation, ms."""

    forward_ms: float
    both_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="two tiny cases, seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    repeats = 2 if chosen.quick else chosen.repeats
    rows = []
    print(HEADER)
    sizes = QUICK_SIZES if chosen.quick else SIZES
    for size in (size for size in sizes if chosen.only in size[0]):
        for shifted in (False, True):
            case = Case(*size, shifted)
            rows.append(measure(case, repeats, CLOCKS[chosen.clock]))
            print(line(case, rows[-1]), flush=True)
    if chosen.json:
        settings = {"repeats": repeats, "clock": chosen.clock}
        result = {"machine": machine(), **settings, "cases": rows}
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


HEADER = (
    f"{'case':<18} {'maps':>4} {'tokens':>7} {'w':>2} {'s':>2} {'heads x d':>9} |"
    f"{'forward, ms':^26}|{'forward and backward, ms':^26}| monai / cpu\n"
    f"{'':<47} |{'monai':>8}{'refer.':>9}{'cpu':>9}|{'monai':>8}{'refer.':>9}{'cpu':>9}|"
    "  forward  both"
)


def line(case: Case, row: dict) -> str:
    timings = [Timing(**row["ms"][name]) for name in ("monai", "reference", "cpu")]
    theirs, _, ours = timings
    shape = f"{case.heads} x {case.channels // case.heads}"
    return (
        f"{case.name:<18} {case.maps:>4} {case.side:>5}^3 {case.window:>2} {case.shift:>2} "
        f"{shape:>9} |"
        + "".join(f"{t.forward_ms:>{8 + (i > 0)}.1f}" for i, t in enumerate(timings))
        + "|"
        + "".join(f"{t.both_ms:>{8 + (i > 0)}.1f}" for i, t in enumerate(timings))
        + f"|{theirs.forward_ms / ours.forward_ms:>8.1f}x{theirs.both_ms / ours.both_ms:>5.1f}x"
    )


def measure(case: Case, repeats: int, clock: Callable[[], float]) -> dict:
    """Check, then time, the three implementations of one case."""
    torch.manual_seed(0)
    block, mask = monai_block(case)
    x = torch.randn(case.maps, *(case.side,) * 3, case.channels, requires_grad=True)
    grad = torch.randn_like(x)
    runs = {
        "monai": lambda: block.forward_part1(x, mask),
        "reference": lambda: ours(block, x, case, "reference"),
        "cpu": lambda: ours(block, x, case, "cpu"),
    }
    wanted = [x, *block.attn.parameters()]
    error = check(runs, wanted, grad)
    timings = interleaved(runs, wanted, grad, clock, repeats)
    settings = {**case._asdict(), "shift": case.shift}
    return {**settings, "error": error, "ms": {k: t._asdict() for k, t in timings.items()}}


def monai_block(case: Case) -> tuple[nn.Module, Tensor]:
    window: Triple = (case.window,) * 3
    shift: Triple = (case.shift,) * 3
    block = monai_swin.SwinTransformerBlock(case.channels, case.heads, window, shift)
    block.norm1 = nn.Identity()
    used, moved = monai_swin.get_window_size((case.side,) * 3, window, shift)
    whole = [-(-case.side // extent) * extent for extent in used]
    return block, monai_swin.compute_mask(whole, used, moved, "cpu")


def ours(block: nn.Module, x: Tensor, case: Case, backend: str) -> Tensor:
    attention = block.attn
    out = window_attention(
        attention.qkv(x),
        attention.relative_position_bias_table,
        heads=case.heads,
        window=(case.window,) * 3,
        shift=(case.shift,) * 3,
        pad_qkv=attention.qkv.bias,
        backend=backend,
    )
    return attention.proj(out)


def check(
    runs: dict[str, Callable[[], Tensor]], wanted: list[Tensor], grad: Tensor
) -> dict[str, float]:
    """Largest relative difference from MONAI among output and gradients; stops above 1e-4."""
    found = {}
    for name, run in runs.items():
        out = run()
        found[name] = [out.detach(), *torch.autograd.grad(out, wanted, grad)]
    errors = {
        name: max(
            ((ours - theirs).norm() / theirs.norm()).item()
            for ours, theirs in zip(found[name], found["monai"], strict=True)
        )
        for name in ("reference", "cpu")
    }
    if max(errors.values()) > 1e-4:
        sys.exit(f"Results differ from MONAI's: {errors}. Nothing was timed.")
    return errors


def interleaved(
    runs: dict[str, Callable[[], Tensor]],
    wanted: list[Tensor],
    grad: Tensor,
    clock: Callable[[], float],
    repeats: int,
) -> dict[str, Timing]:
    samples: dict[str, list[Timing]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            samples[name].append(time_once(run, wanted, grad, clock))
    return {
        name: Timing(*(statistics.median(column) for column in zip(*taken, strict=True)))
        for name, taken in samples.items()
    }


def time_once(
    run: Callable[[], Tensor], wanted: list[Tensor], grad: Tensor, clock: Callable[[], float]
) -> Timing:
    start = clock()
    with torch.no_grad():
        run()
    between = clock()
    torch.autograd.grad(run(), wanted, grad)
    return Timing(1e3 * (between - start), 1e3 * (clock() - between))


def machine() -> dict:
    return {
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
