"""Speed and memory of the networks on a processor: ours against MONAI's, forward and backward.

    python benchmarks/model.py [--quick] [--threads N] [--keep-memory] [--json FILE]

`swin` is the Swin transformer with its hidden states, `encoder` all that VoCo pretrains, pooled.
Both sides have the same weights, and outputs are compared before anything is timed. Steps of the
two alternate, so that a busy machine slows both alike; medians are given, of the time on the wall
and of the processor's. Peak memory is of a process of its own for each. `--keep-memory` also has
the allocator keep freed memory (vocotrain/memory.py), for both sides.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import monai
import monai.networks.nets.swin_unetr as monai_swin
import torch
from monai.networks.blocks import UnetrBasicBlock
from torch import Tensor, nn

from vocotrain.memory import keep_freed_memory
from vocotrain.models.blocks import channels_first, channels_last
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin import normalised
from vocotrain.sizes import ModelSize, model_size

SIDES = ("monai", "ours")


class Case(NamedTuple):
    """One network on one batch of cubic crops."""

    part: str
    size: str
    crops: int
    side_vox: int
    dtype: str


class Timing(NamedTuple):
    """Medians of one side, s."""

    forward_s: float
    both_s: float
    both_processor_s: float


CASES = [
    Case("swin", "B", 2, 64, "float32"),
    Case("encoder", "B", 2, 64, "float32"),
    Case("encoder", "B", 2, 64, "bfloat16"),
    Case("encoder", "tiny", 88, 16, "float32"),
    Case("encoder", "tiny", 16, 32, "float32"),
]
QUICK = [Case("swin", "tiny", 2, 32, "float32"), Case("encoder", "tiny", 2, 32, "float32")]


class MonaiEncoder(nn.Module):
    """The encoder half of MONAI's Swin UNETR v2, for any number of stages, under our names."""

    def __init__(self, size: ModelSize) -> None:
        """Build it from MONAI's parts."""
        super().__init__()
        self.stages = size.stages
        self.swinViT = monai_swin.SwinTransformer(
            1,
            size.feature_size,
            size.window,
            (size.patch,) * 3,
            size.depths,
            size.heads,
            use_v2=True,
        )
        widths = {"encoder1": (1, size.feature_size), "encoder10": (size.widths[-1],) * 2}
        widths |= {f"encoder{i + 2}": (w, w) for i, w in enumerate(size.widths[: size.stages - 1])}
        for name, pair in widths.items():
            self.add_module(name, UnetrBasicBlock(3, *pair, 3, 1, "instance", res_block=True))

    def hidden_states(self, x: Tensor) -> list[Tensor]:
        """Normalised hidden states, as MONAI's own forward makes them for four stages."""
        transformer = self.swinViT
        x = transformer.patch_embed(x)
        states = [transformer.proj_out(x, normalize=True)]
        for stage in range(1, self.stages + 1):
            x = getattr(transformer, f"layers{stage}c")[0](x.contiguous())
            x = getattr(transformer, f"layers{stage}")[0](x.contiguous())
            states.append(transformer.proj_out(x, normalize=True))
        return states

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features."""
        states = self.hidden_states(x)
        maps = [self.encoder1(x), self.encoder10(states[-1])]
        blocks = [self.get_submodule(f"encoder{i}") for i in range(2, self.stages + 1)]
        maps[1:1] = [block(state) for block, state in zip(blocks, states, strict=False)]
        return torch.cat([map_.mean((2, 3, 4)) for map_ in maps], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="two tiny cases, seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep-memory", action="store_true", help="see vocotrain/memory.py")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--peak-of", nargs=6, metavar="WORD", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    kept = chosen.keep_memory and keep_freed_memory()
    if chosen.peak_of:
        side, part, size, crops, side_vox, dtype = chosen.peak_of
        print(own_peak_mib(side, Case(part, size, int(crops), int(side_vox), dtype)))
        return
    rows = []
    print(HEADER)
    for case in QUICK if chosen.quick else CASES:
        rows.append(measure(case, 2 if chosen.quick else chosen.repeats, kept=kept))
        print(line(case, rows[-1]), flush=True)
    if chosen.json:
        result = {
            "machine": machine(),
            "kept_memory": kept,
            "repeats": chosen.repeats,
            "cases": rows,
        }
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


HEADER = (
    f"{'case':<9}{'size':<5} {'crops':<12}{'type':<9}|{'forward, s':^15}|{'both, s':^15}|"
    f"{'processor, s':^15}|{'peak, MiB':^13}| monai / ours\n{'':<36}|"
    + "|".join([f"{'monai':>8}{'ours':>7}"] * 3)
    + f"|{'monai':>7}{'ours':>6}| forward  both  memory"
)


def line(case: Case, row: dict) -> str:
    theirs, ours = (Timing(**row["seconds"][side]) for side in SIDES)
    peaks = [row["peak_mib"][side] for side in SIDES]
    crops = f"{case.crops} x {case.side_vox}^3"
    return (
        f"{case.part:<9}{case.size:<5} {crops:<12}{case.dtype:<9}|"
        + "|".join(f"{a:>8.2f}{b:>7.2f}" for a, b in zip(theirs, ours, strict=True))
        + f"|{peaks[0]:>7}{peaks[1]:>6}|{theirs.forward_s / ours.forward_s:>7.1f}x"
        f"{theirs.both_s / ours.both_s:>5.1f}x{peaks[0] / peaks[1]:>6.1f}x"
    )


def measure(case: Case, repeats: int, *, kept: bool) -> dict:
    """Check, then time, then weigh the two sides of one case."""
    steps = networks(case)
    x = batch(case)
    error = check(steps, x, case)
    samples: dict[str, list[Timing]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, step in steps.items():
            samples[side].append(time_once(step, x, case))
    seconds = {
        side: Timing(*(statistics.median(column) for column in zip(*taken, strict=True)))._asdict()
        for side, taken in samples.items()
    }
    peaks = {side: peak_mib(side, case, kept=kept) for side in SIDES}
    return {**case._asdict(), "error": error, "seconds": seconds, "peak_mib": peaks}


def networks(case: Case) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    """The two sides with the same weights, as functions from a batch to what the loss sees."""
    torch.manual_seed(0)
    theirs, ours = MonaiEncoder(model_size(case.size)), VoCoEncoder(case.size)
    theirs.load_state_dict(ours.state_dict())
    if case.part == "encoder":
        return {"monai": lambda x: [theirs(x)], "ours": lambda x: [ours(x)]}
    return {
        "monai": theirs.hidden_states,
        "ours": lambda x: [channels_first(normalised(s)) for s in ours.swinViT(channels_last(x))],
    }


def batch(case: Case) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(case.crops, 1, *(case.side_vox,) * 3, requires_grad=True)


def check(steps: dict[str, Callable], x: Tensor, case: Case) -> float:
    """Largest relative difference of an output; stops where it is no rounding."""
    with torch.no_grad(), precision(case):
        outputs = {side: step(x) for side, step in steps.items()}
    error = max(
        ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()
        for ours, theirs in zip(outputs["ours"], outputs["monai"], strict=True)
    )
    if error > (1e-4 if case.dtype == "float32" else 5e-2):
        sys.exit(f"{case}: outputs differ from MONAI's by {error:.1e}. Nothing was timed.")
    return error


def time_once(step: Callable[[Tensor], list[Tensor]], x: Tensor, case: Case) -> Timing:
    started, spent = time.perf_counter(), time.process_time()
    with precision(case):
        outputs = step(x)
    forward = time.perf_counter() - started
    sum(output.float().square().mean() for output in outputs).backward()
    return Timing(forward, time.perf_counter() - started, time.process_time() - spent)


def precision(case: Case) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=case.dtype == "bfloat16")


def peak_mib(side: str, case: Case, *, kept: bool) -> int:
    """Peak memory of a process that takes two steps of one side, MiB."""
    words = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
    words += ["--keep-memory"] if kept else []
    done = subprocess.run(
        [*words, "--peak-of", side, *map(str, case)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def own_peak_mib(side: str, case: Case) -> int:
    step, x = networks(case)[side], batch(case)
    for _ in range(2):
        time_once(step, x, case)
    # Linux: getrusage would say what the process that started this one had.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


def machine() -> dict:
    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
