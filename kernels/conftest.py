"""Doctests are looked for in every file, but where triton is missing, not in those that want it."""

from importlib.util import find_spec
from pathlib import Path

ROOM = Path(__file__).parent / "vocokernels"
# files of an operation that import its kernels when they are imported themselves
WANT_TRITON = ("kernel.py", "launch.py", "op.py", "shipped.py")

collect_ignore = (
    [] if find_spec("triton") else [str(p) for p in ROOM.rglob("*.py") if p.name in WANT_TRITON]
)
