"""Configurations of window attention on which the Triton kernels are held against the reference."""

from typing import NamedTuple

from tests.vocokernels.on_a_gpu import FLOAT32


class Case(NamedTuple):
    """One configuration; `tiles` are queries and keys of every kernel, None those shipped."""

    name: str
    map_xyz: tuple[int, int, int]
    window: tuple[int, int, int]
    shift: tuple[int, int, int]
    heads: int
    width: int
    maps: int
    dtype: str
    tiles: tuple[int, int] | None = (32, 32)
    pad: bool = True
    """Whether the linear layer has a bias."""
    strided: bool = False
    """Whether inputs and gradient come with odd strides."""
    mixed: bool = False
    """Whether table and pads are float32 whatever qkv is, as under autocast."""


# largest norm of a difference over the norm of what is right
TOLERANCES = {"float64": 1e-12, "float32": FLOAT32, "float16": 2e-3, "bfloat16": 1.5e-2}

W3, W7 = (3, 3, 3), (7, 7, 7)
NONE, ONE, THREE = (0, 0, 0), (1, 1, 1), (3, 3, 3)

CASES = [
    # float64 shows errors of the algorithm that rounding hides
    Case("shifted, pads on each axis", (4, 5, 4), W3, ONE, 1, 4, 1, "float64"),
    Case("unshifted, pads on each axis", (4, 5, 4), W3, NONE, 2, 4, 1, "float64"),
    Case("whole windows", (6, 3, 6), W3, NONE, 2, 4, 1, "float64"),
    Case("whole windows, shifted", (6, 3, 6), W3, ONE, 2, 4, 1, "float64"),
    Case("exactly the window", W3, W3, ONE, 3, 16, 2, "float64"),
    Case("smaller than the window", (2, 3, 2), (4, 4, 4), ONE, 2, 8, 3, "float64"),
    Case("smaller along x", (2, 5, 4), W3, ONE, 2, 4, 1, "float64"),
    Case("smaller along y", (5, 2, 4), W3, ONE, 2, 4, 1, "float64"),
    Case("smaller along z", (5, 4, 2), W3, ONE, 2, 4, 1, "float64"),
    Case("one token", (1, 1, 1), W3, ONE, 2, 16, 3, "float64"),
    Case("boxes of one token", (2, 3, 2), (1, 1, 1), NONE, 2, 4, 1, "float64", (16, 16)),
    Case("boxes of one token beside others", (4, 2, 4), W3, (1, 0, 1), 2, 4, 1, "float64"),
    Case("window of three sizes", (5, 4, 3), (4, 2, 3), (2, 1, 0), 1, 4, 2, "float64"),
    Case("more pads than tokens", (5, 5, 5), (4, 4, 4), NONE, 1, 4, 1, "float64", (64, 64)),
    Case("odd shifts", (5, 6, 3), (4, 5, 2), (3, 1, 1), 1, 4, 1, "float64", (64, 64)),
    Case("no bias in the linear layer", (4, 5, 4), W3, ONE, 1, 4, 1, "float64", pad=False),
    Case("no bias and no pads", (6, 3, 3), W3, ONE, 1, 4, 2, "float64", pad=False),
    Case("odd strides", (4, 3, 5), W3, ONE, 1, 4, 2, "float64", strided=True),
    Case("more tiles than one", (5, 4, 4), (5, 4, 4), NONE, 1, 24, 1, "float64", (16, 32)),
    Case("tiles wider than high", (5, 4, 4), (4, 4, 4), (1, 2, 0), 1, 4, 1, "float64", (16, 32)),
    Case("tiles higher than wide", (5, 4, 4), (4, 4, 4), (2, 1, 0), 1, 4, 1, "float64", (32, 16)),
    Case("forty small maps", (1, 2, 1), (2, 2, 2), NONE, 1, 4, 40, "float64", (16, 16)),
    # each type, with the widths that models have
    Case("float32 d16", (4, 5, 4), W3, ONE, 1, 16, 1, "float32"),
    Case("float32 d24", (5, 3, 4), W3, (0, 1, 1), 2, 24, 1, "float32"),
    Case("float32 d32", (4, 4, 3), W3, ONE, 1, 32, 2, "float32"),
    Case("float32 d48", (3, 4, 4), (2, 4, 3), (1, 0, 1), 1, 48, 1, "float32"),
    Case("float32 d64", (4, 4, 4), W3, NONE, 1, 64, 1, "float32"),
    Case("float32, eight heads", (3, 2, 4), W3, ONE, 8, 16, 1, "float32"),
    Case("float32, odd strides", (4, 3, 5), W3, ONE, 2, 8, 1, "float32", strided=True),
    Case("float32, window of 7", (7, 7, 9), W7, NONE, 1, 16, 1, "float32", (512, 512)),
    Case("float16 d16", (4, 5, 4), W3, ONE, 1, 16, 1, "float16"),
    Case("float16 d24", (5, 3, 4), W3, (0, 1, 1), 2, 24, 1, "float16"),
    Case("float16 d32", (4, 4, 3), W3, ONE, 1, 32, 2, "float16"),
    Case("float16 d48", (3, 4, 4), (2, 4, 3), (1, 0, 1), 1, 48, 1, "float16"),
    Case("float16 d64", (4, 4, 4), W3, NONE, 1, 64, 1, "float16", mixed=True),
    Case("float16, smaller than the window", (4, 4, 4), W7, THREE, 3, 16, 2, "float16", (64, 64)),
    Case("bfloat16 d16", (4, 5, 4), W3, ONE, 1, 16, 1, "bfloat16"),
    Case("bfloat16 d24", (5, 3, 4), W3, (0, 1, 1), 2, 24, 1, "bfloat16", mixed=True),
    Case("bfloat16 d32", (4, 4, 3), W3, ONE, 1, 32, 2, "bfloat16", pad=False),
    Case("bfloat16 d48", (3, 4, 4), (2, 4, 3), (1, 0, 1), 1, 48, 1, "bfloat16"),
    Case("bfloat16 d64", (4, 4, 4), W3, NONE, 1, 64, 1, "bfloat16"),
    Case("bfloat16, odd strides", (4, 3, 5), W3, ONE, 2, 8, 1, "bfloat16", strided=True),
    # as launched on a GPU
    Case("shipped, float32 d16", (6, 5, 5), (5, 5, 5), (2, 2, 0), 1, 16, 1, "float32", None),
    Case("shipped, float32 d64", (5, 5, 4), (5, 5, 5), NONE, 1, 64, 1, "float32", None),
    Case("shipped, float16 d32", (5, 5, 6), (5, 5, 5), NONE, 1, 32, 1, "float16", None),
    Case("shipped, bfloat16 d16", (5, 6, 5), (5, 5, 5), (0, 2, 0), 2, 16, 1, "bfloat16", None),
    Case("shipped, bfloat16 d64", (5, 6, 5), (5, 5, 5), (0, 2, 0), 1, 64, 1, "bfloat16", None),
]

SLOW_CASES = [
    Case(
        f"{dtype}, map of {side}, shift {shift[0]}, d{width}",
        (side, side, side),
        W7,
        shift,
        heads,
        width,
        1,
        dtype,
        None,
    )
    for dtype in ("float32", "float16", "bfloat16")
    for side, heads in ((8, 1), (4, 3))
    for shift in (NONE, THREE)
    for width in (16, 32, 64)
] + [
    Case("float32, map of 16, shift 0", (16, 16, 16), W7, NONE, 1, 16, 1, "float32", (128, 128)),
    Case("float32, map of 16, shift 3", (16, 16, 16), W7, THREE, 1, 16, 1, "float32", (128, 128)),
    Case("float64, shipped", (8, 9, 8), W7, THREE, 1, 16, 1, "float64", None),
    Case("two thousand maps", (1, 2, 1), (2, 2, 2), NONE, 1, 4, 2000, "float64", (16, 16)),
]
