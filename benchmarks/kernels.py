"""Speed of the kernels against MONAI's and torch's: `voco bench kernels`, by another name.

    python benchmarks/kernels.py [--quick] [--json FILE] [words of `voco bench kernels`]

All that is measured lies in vocotrain/bench_kernels; this writes the document into a file, as the
other benchmarks do, and lets `OMP_NUM_THREADS=1` and the like stand before it. On a processor
read the `processor` rows where other work runs beside it.
"""

import argparse
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from vococli.main import main as voco


def table(document: dict[str, Any]) -> str:
    """Medians of processor time (of a GPU's, where that is what was timed), a line a case."""
    metric = "processor" if document["machine"]["device"] == "cpu" else "speed"
    cases: dict[tuple[str, ...], list[str]] = {}
    for row in document["rows"]:
        if row["metric_name"] == metric:
            case = (row["kernel_name"], row["x_value"], row["kernel_operation_mode"])
            cell = f"{row['kernel_provider']} {row['y_value_50']:.2f} ms"
            cases.setdefault(case, []).append(cell)
    return "\n".join(f"{', '.join(case):46} {', '.join(cells)}" for case, cells in cases.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write the document here")
    chosen, words = parser.parse_known_args()
    if chosen.json is None:
        return voco(["bench", "kernels", *words])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = voco(["bench", "kernels", *words, "--json"])
    chosen.json.write_text(printed.getvalue())
    if printed.getvalue():
        print(table(json.loads(printed.getvalue())))
    return code


if __name__ == "__main__":
    sys.exit(main())
