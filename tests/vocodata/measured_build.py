"""How far a process grows over a build; a program of its own, so that nothing else is in it.

    python measured_build.py GOOD.yaml ALL.yaml FOLDER

Builds the first manifest, and prints by how many bytes the highest resident size grows over the
second.
"""

import resource
import sys
from pathlib import Path

from vocodata.building import build


def highest_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    good, everything, folder = map(Path, sys.argv[1:])
    build(good, folder / "good.zarr", workers=0)
    before = highest_bytes()
    build(everything, folder / "all.zarr", workers=0)
    sys.stdout.write(f"{highest_bytes() - before}\n")
