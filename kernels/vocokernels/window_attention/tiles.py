"""Tiles, warps and stages of the GPU kernels: a table, not a search.

Each row was chosen by what the compiler makes of it for sm_80, sm_90 and gfx942
(`python benchmarks/static_gpu.py --only window_attention`): no spills first, then matrix
instructions as wide as the GPU has them, then warps on a multiprocessor. None was timed: a row
that is slower than another on a real GPU is a row to change.
"""

from typing import Literal, NamedTuple

import torch

Kernel = Literal["forward", "query", "key", "bias"]

# Channels of a head. Wider ones do not fit the registers with these tiles.
WIDEST_HEAD = 64
NARROWEST_TILE = 16


class Tile(NamedTuple):
    """How one kernel is launched."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 2


# For each kernel and bytes of a number: tiles of heads of up to 16, 32 and 64 channels. Half types
# go to the matrix units; float32 does not on NVIDIA, and takes twice the registers.
_WIDTHS = (16, 32, 64)
TILES: dict[tuple[Kernel, int], tuple[Tile, Tile, Tile]] = {
    ("forward", 2): (Tile(64, 32), Tile(64, 32), Tile(64, 32)),
    ("query", 2): (Tile(64, 32), Tile(64, 32), Tile(64, 32)),
    ("key", 2): (Tile(16, 64), Tile(16, 64), Tile(16, 32)),
    ("bias", 2): (Tile(64, 16), Tile(64, 16), Tile(64, 16)),
    ("forward", 4): (Tile(32, 32), Tile(32, 32), Tile(32, 32)),
    ("query", 4): (Tile(32, 32), Tile(32, 32), Tile(32, 32)),
    ("key", 4): (Tile(16, 32), Tile(16, 32), Tile(16, 32)),
    ("bias", 4): (Tile(32, 16), Tile(32, 16), Tile(32, 16)),
}
# float64 is there to check the others by.
DOUBLE_TILE = Tile(16, 16)

# Kernels without products: rows of a class, and rows of the table or pads.
SMALL_TILE = Tile(16, 32)


def padded_width(channels: int) -> int:
    """Channels of a head in a tile: a power of two, at least what a product takes.

    >>> [padded_width(channels) for channels in (4, 16, 24, 48, 64)]
    [16, 16, 32, 64, 64]
    """
    return max(NARROWEST_TILE, 1 << (channels - 1).bit_length())


def tile_of(kernel: Kernel, itemsize: int, channels: int) -> Tile:
    """The tile with which a kernel is launched.

    Args:
        kernel: Which one.
        itemsize: Bytes of a number of `qkv`.
        channels: Channels of a head, at most WIDEST_HEAD.
    """
    if itemsize == torch.float64.itemsize:
        return DOUBLE_TILE
    return TILES[kernel, itemsize][_WIDTHS.index(padded_width(channels))]
