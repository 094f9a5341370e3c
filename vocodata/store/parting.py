"""The voxels of a chunk as planes of their low and of their high bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vocodata.compiling import compiled
from vocodata.store.vectors import ROW_VOX, part_row

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def part_rows(chunk_ZYX: NDArray[np.uint16], planes_BPV: NDArray[np.uint8]) -> None:
    """Fill the planes, blocks along z.

    Args:
        chunk_ZYX: Rows of 32 voxels side by side, or mirrored so; 32 by 32 of them, or fewer, and
            then the rest of the planes is left as it is.
        planes_BPV: Block, plane (low bytes, high bytes), voxel.
    """
    depth = planes_BPV.shape[2] // (ROW_VOX * ROW_VOX)
    is_mirrored = chunk_ZYX.strides[2] < 0
    source, target = np.int64(chunk_ZYX.ctypes.data), np.int64(planes_BPV.ctypes.data)
    if is_mirrored:
        source += (ROW_VOX - 1) * chunk_ZYX.strides[2]
    for z in range(chunk_ZYX.shape[0]):
        for y in range(chunk_ZYX.shape[1]):
            row = source + z * chunk_ZYX.strides[0] + y * chunk_ZYX.strides[1]
            at = (z % depth * ROW_VOX + y) * ROW_VOX
            low = target + z // depth * planes_BPV.strides[0] + at
            part_row(row, is_mirrored, low, low + planes_BPV.strides[1])
