"""Speed of the kernels against MONAI's and torch's: `voco bench kernels`, by another name.

    python benchmarks/kernels.py [--quick] [--json FILE] [words of `voco bench kernels`]

All that is measured lies in vocotrain/bench_kernels; this writes the document into a file, as the
other benchmarks do, and lets `OMP_NUM_THREADS=1` and the like stand before it. On a processor
read the `processor` rows where other work runs beside it.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path

from vococli.main import main as voco


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--json", type=Path, help="write the document here, print no table")
    chosen, words = parser.parse_known_args()
    if chosen.json is None:
        return voco(["bench", "kernels", *words])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = voco(["bench", "kernels", *words, "--json"])
    chosen.json.write_text(printed.getvalue())
    return code


if __name__ == "__main__":
    sys.exit(main())
