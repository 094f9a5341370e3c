"""Speed and memory of the networks on a processor: ours against MONAI's, forward and backward.

    python benchmarks/model.py [--quick] [--only NAME] [--threads N] [--json FILE]

`swin` is the Swin transformer with its hidden states, `voco` all that VoCo pretrains, pooled.
Both sides have the same weights; loss and gradients are compared before anything is timed. Steps
of all contenders alternate, so that a busy machine slows them alike, and medians are given, of the
time on the wall and of the processor's. Peak memory is of a process of its own for each, above what
it had before the network was built. Where MONAI's network does not fit the batch of pretraining it
runs a smaller one, and times are per crop.

`--keep-memory` also has the allocator keep freed memory (vocotrain/memory.py), for all sides.
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


class Runner(NamedTuple):
    """One side of a comparison, and the crops it takes at once."""

    side: str
    dtype: str
    crops: int


class Target(NamedTuple):
    """What issue 4 asks of a pair of runners."""

    ours: int
    theirs: int
    speed: float | None = None
    memory_share: float | None = None


class Case(NamedTuple):
    """One network on cubic crops, by several runners."""

    name: str
    part: str
    size: str
    side_vox: int
    runners: tuple[Runner, ...]
    targets: tuple[Target, ...] = ()


class Timing(NamedTuple):
    """Medians of one runner, s per crop."""

    forward_s: float
    both_s: float
    both_processor_s: float


Step = Callable[[Tensor], list[Tensor]]

CASES = (
    Case(
        "swin",
        "swin",
        "B",
        64,
        (Runner("monai", "float32", 4), Runner("ours", "float32", 4)),
        (Target(ours=1, theirs=0, speed=2.7, memory_share=0.45),),
    ),
    Case(
        "voco",
        "voco",
        "B",
        64,
        (
            # 22 crops would take MONAI's network about 36 GiB
            Runner("monai", "float32", 8),
            Runner("ours", "float32", 22),
            Runner("monai", "bfloat16", 8),
            Runner("ours", "bfloat16", 22),
        ),
        (
            Target(ours=1, theirs=0, speed=1.6),
            Target(ours=3, theirs=0, speed=2.3),
            Target(ours=3, theirs=2),
        ),
    ),
    Case(
        "tiny",
        "voco",
        "tiny",
        16,
        (Runner("monai", "float32", 88), Runner("ours", "float32", 88)),
        (Target(ours=1, theirs=0),),
    ),
)
QUICK = (
    Case(
        "quick",
        "voco",
        "tiny",
        64,
        (Runner("monai", "float32", 2), Runner("ours", "float32", 2)),
        (Target(ours=1, theirs=0),),
    ),
)
WARM_UP = Case("warm-up", "voco", "tiny", 16, ())

LARGEST_DIFFERENCE = {"float32": (1e-6, 1e-2), "bfloat16": (1e-2, 0.5)}
"""Of the loss, relative, and of a gradient, by norm; above these nothing is timed."""


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
    parser.add_argument("--quick", action="store_true", help="a small case, less than a minute")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep-memory", action="store_true", help="see vocotrain/memory.py")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--peak-of", nargs=2, metavar="WORD", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    kept = chosen.keep_memory and keep_freed_memory()
    if chosen.peak_of:
        name, runner = chosen.peak_of
        case = next(case for case in CASES + QUICK if case.name == name)
        print(own_peak_mib(case, case.runners[int(runner)]))
        return
    cases = QUICK if chosen.quick else [c for c in CASES if chosen.only in (None, c.name)]
    rows = []
    for case in cases:
        rows.append(measure(case, 2 if chosen.quick else chosen.repeats, kept=kept))
        print("\n".join(report(case, rows[-1])), flush=True)
    if chosen.json:
        head = {"machine": machine(), "kept_memory": kept, "repeats": chosen.repeats}
        chosen.json.write_text(json.dumps({**head, "cases": rows}, indent=2) + "\n")


def report(case: Case, row: dict) -> list[str]:
    """Lines of a table: a runner each, then a comparison each."""
    lines = [
        "",
        f"{case.name}: size {case.size}, crops of {case.side_vox}^3, s per crop",
        f"  {'':<18}{'crops':>6}{'forward':>10}{'both':>8}{'processor':>11}{'peak, MiB':>11}",
    ]
    for runner, found in zip(case.runners, row["runners"], strict=True):
        lines.append(
            f"  {runner.side:<8}{runner.dtype:<10}{runner.crops:>6}{found['forward_s']:>10.3f}"
            f"{found['both_s']:>8.3f}{found['both_processor_s']:>11.3f}{found['peak_mib']:>11}"
        )
    return [*lines, *map(comparison_line, row["comparisons"])]


def comparison_line(found: dict) -> str:
    asked = []
    if found["asked_speed"]:
        asked.append(f"{found['asked_speed']}x")
    if found["asked_memory_share"]:
        asked.append(f"{found['asked_memory_share']:.0%} of the memory")
    verdict = f"; asked: {', '.join(asked)}: {'met' if found['met'] else 'MISSED'}" if asked else ""
    return (
        f"  {found['pair']}: {found['speed']:.2f}x on the wall, {found['speed_processor']:.2f}x of "
        f"the processor's time, {found['memory_share']:.0%} of the memory per crop{verdict}"
    )


def measure(case: Case, repeats: int, *, kept: bool) -> dict:
    """Check, then time, then weigh the runners of one case."""
    steps = {side: network(case, side) for side in ("monai", "ours")}
    differences = {dtype: check(case, steps, dtype) for dtype in dtypes(case)}
    samples: list[list[Timing]] = [[] for _ in case.runners]
    for _ in range(repeats):
        for taken, runner in zip(samples, case.runners, strict=True):
            taken.append(time_once(steps[runner.side], batch(case, runner.crops), runner.dtype))
    del steps
    found = [
        {
            **runner._asdict(),
            **Timing(*(statistics.median(c) for c in zip(*taken, strict=True)))._asdict(),
            "peak_mib": peak_mib(case, place, kept=kept),
        }
        for place, (runner, taken) in enumerate(zip(case.runners, samples, strict=True))
    ]
    head = {"name": case.name, "part": case.part, "size": case.size, "side_vox": case.side_vox}
    comparisons = [compare(target, found) for target in case.targets]
    return {**head, "differences": differences, "runners": found, "comparisons": comparisons}


def compare(target: Target, found: list[dict]) -> dict:
    """Ratios of two runners, per crop, and whether they reach what is asked."""
    ours, theirs = found[target.ours], found[target.theirs]
    speed = theirs["both_s"] / ours["both_s"]
    peaks = [side["peak_mib"] / side["crops"] for side in (ours, theirs)]
    share = peaks[0] / peaks[1]
    enough = target.speed is None or speed >= target.speed
    small = target.memory_share is None or share <= target.memory_share
    return {
        "pair": f"{ours['side']} {ours['dtype']} against {theirs['side']} {theirs['dtype']}",
        "speed": speed,
        "speed_processor": theirs["both_processor_s"] / ours["both_processor_s"],
        "memory_share": share,
        "asked_speed": target.speed,
        "asked_memory_share": target.memory_share,
        "met": enough and small,
    }


def network(case: Case, side: str) -> Step:
    """One side, with the same weights as the other, as a function to what the loss sees."""
    torch.manual_seed(0)
    ours = VoCoEncoder(case.size)
    if side == "monai":
        theirs = MonaiEncoder(model_size(case.size))
        theirs.load_state_dict(ours.state_dict())
        return theirs.hidden_states if case.part == "swin" else lambda x: [theirs(x)]
    if case.part == "swin":
        swin = ours.swinViT
        return lambda x: [channels_first(normalised(s)) for s in swin(channels_last(x))]
    return lambda x: [ours(x)]


def batch(case: Case, crops: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(crops, 1, *(case.side_vox,) * 3, generator=generator)


def loss_of(outputs: list[Tensor]) -> Tensor:
    """Mean squares per channel, unequally weighed: a layer norm's are all alike in sum."""
    squares = [o.float().square().mean([i for i in range(o.ndim) if i != 1]) for o in outputs]
    return torch.stack([(s * torch.linspace(0.5, 1.5, len(s))).mean() for s in squares]).sum()


def dtypes(case: Case) -> list[str]:
    return list(dict.fromkeys(runner.dtype for runner in case.runners))


def check(case: Case, steps: dict[str, Step], dtype: str) -> dict[str, float]:
    """Relative difference of the loss and of all gradients; stops where it is no rounding."""
    x = batch(case, 2)
    found = {}
    for side, step in steps.items():
        with precision(dtype):
            loss = loss_of(step(x.requires_grad_()))
        found[side] = loss.item(), torch.autograd.grad(loss, x)[0]
    (ours, grad), (theirs, expected) = found["ours"], found["monai"]
    result = {
        "loss": abs(ours - theirs) / abs(theirs),
        "gradient": ((grad - expected).norm() / expected.norm()).item(),
    }
    most_loss, most_gradient = LARGEST_DIFFERENCE[dtype]
    if result["loss"] > most_loss or result["gradient"] > most_gradient:
        sys.exit(f"{case.name} in {dtype} is not MONAI's: {result}. Nothing was timed.")
    return result


def time_once(step: Step, x: Tensor, dtype: str) -> Timing:
    started, spent = time.perf_counter(), time.process_time()
    with precision(dtype):
        outputs = step(x)
    forward = time.perf_counter() - started
    loss = loss_of(outputs)
    del outputs
    loss.backward()
    both, processor = time.perf_counter() - started, time.process_time() - spent
    return Timing(forward / len(x), both / len(x), processor / len(x))


def precision(dtype: str) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")


def peak_mib(case: Case, place: int, *, kept: bool) -> int:
    """Peak memory of a process that takes two steps of one runner, MiB."""
    words = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
    words += ["--keep-memory"] if kept else []
    done = subprocess.run(
        [*words, "--peak-of", case.name, str(place)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def own_peak_mib(case: Case, runner: Runner) -> int:
    # what a first step loads and keeps, whatever the size of the network
    time_once(network(WARM_UP, runner.side), batch(WARM_UP, 2), runner.dtype)
    before = memory_mib("VmRSS")
    step, x = network(case, runner.side), batch(case, runner.crops)
    for _ in range(2):
        time_once(step, x, runner.dtype)
    return memory_mib("VmHWM") - before


def memory_mib(field: str) -> int:
    """Linux: getrusage would say what the process that started this one had."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) // 1024


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
