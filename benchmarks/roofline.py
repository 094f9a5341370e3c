"""What a GPU's datasheet allows for window attention, forward and backward: derived, not measured.

    python benchmarks/roofline.py [--quick] [--json FILE]

Prints the tables of docs/kernels.md. The model is described in vocotrain/bench_kernels/roofline.py;
no GPU is needed and nothing is timed.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from vocotrain.bench_kernels.cases import attention_cases
from vocotrain.bench_kernels.roofline import H100, Bound, stage_bound

HEADER = (
    "| network | crop x batch | direction | GB MONAI | SDPA | ours | ms MONAI | ours | ratio |\n"
    "|---|---|---|--:|--:|--:|--:|--:|--:|"
)
STAGE_HEADER = (
    "| stage | direction | bytes us | products us | exponentials us | arithmetic us |\n"
    "|---|---|--:|--:|--:|--:|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="size B at 64^3 only")
    parser.add_argument("--json", type=Path, help="write all stages here")
    chosen = parser.parse_args()
    sizes, crops_vox = (("B",), (64,)) if chosen.quick else (("B", "L", "H"), (64, 96))
    bounds = [
        stage_bound(case, mode)
        for case in attention_cases(sizes, crops_vox, (), maps=None)
        for mode in ("forward", "backward")
    ]
    print(f"{H100}\n\nBytes and least time, all stages, two blocks each\n\n{HEADER}")
    for key in dict.fromkeys(network(bound) for bound in bounds):
        print(network_line(key, [bound for bound in bounds if network(bound) == key]))
    print(f"\nLeast time of our attention alone, by what limits it\n\n{STAGE_HEADER}")
    for bound in bounds:
        times = " | ".join(f"{time_us:.0f}" for time_us in bound.attention_us.values())
        print(f"| {bound.case.name} | {bound.mode} | {times} |")
    if chosen.json:
        rows = [asdict(bound) | {"ratio": bound.ratio} for bound in bounds]
        chosen.json.write_text(json.dumps({"datasheet": asdict(H100), "bounds": rows}, indent=2))


def network(bound: Bound) -> tuple[str, int, int, str]:
    return bound.case.size, bound.case.crop_vox, bound.case.maps, bound.mode


def network_line(key: tuple[str, int, int, str], stages: list[Bound]) -> str:
    size, crop_vox, maps, mode = key
    gigabytes = [1e-9 * sum(b.bytes_of[name] for b in stages) for name in stages[0].bytes_of]
    monai_ms, ours_ms = (
        1e-3 * sum(times) for times in zip(*((b.monai_us, b.ours_us) for b in stages), strict=True)
    )
    cells = [
        *(f"{moved:.3g}" for moved in gigabytes),
        f"{monai_ms:.1f}",
        f"{ours_ms:.2f}",
        f"{monai_ms / ours_ms:.0f}",
    ]
    return f"| {size} | {crop_vox}^3 x {maps} | {mode} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
