"""Compiled inner loops of resampling.py and straightening.py: one thread, without Python's lock.

    row[i]    = the four source rows around (k, j), blended by their weights     (read forwards)
    out[k,j,i] = row[lower_i] * (1 - w_i) + row[upper_i] * w_i, int16: floor(. + 0.5)

No fast-math: the same scan gives the same bytes on every machine.

Shape letters: K J I the volume's axes from slowest to fastest in the source's memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.compiling import compiled as compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def linear_int16(
    source_KJI: NDArray[np.int16],
    lower_k: NDArray[np.int64],
    upper_k: NDArray[np.int64],
    weight_k: NDArray[np.float32],
    lower_j: NDArray[np.int64],
    upper_j: NDArray[np.int64],
    weight_j: NDArray[np.float32],
    lower_i: NDArray[np.int64],
    upper_i: NDArray[np.int64],
    weight_i: NDArray[np.float32],
    out_KJI: NDArray[np.int16],
) -> None:
    """Trilinear, int16 to int16, rounded half up."""
    one, half = np.float32(1), np.float32(0.5)
    width = source_KJI.shape[2]
    row = np.empty(width, np.float32)
    for k in range(lower_k.size):
        below, above, w = source_KJI[lower_k[k]], source_KJI[upper_k[k]], weight_k[k]
        for j in range(lower_j.size):
            a, b, v = lower_j[j], upper_j[j], weight_j[j]
            row_0, row_1, row_2, row_3 = below[a], below[b], above[a], above[b]
            w_0, w_1, w_2, w_3 = (one - w) * (one - v), (one - w) * v, w * (one - v), w * v
            for i in range(width):
                row[i] = (
                    w_0 * np.float32(row_0[i])
                    + w_1 * np.float32(row_1[i])
                    + w_2 * np.float32(row_2[i])
                    + w_3 * np.float32(row_3[i])
                )
            line = out_KJI[k, j]
            for i in range(lower_i.size):
                u = weight_i[i]
                value = row[lower_i[i]] * (one - u) + row[upper_i[i]] * u
                line[i] = np.int16(np.floor(value + half))


@compiled
def linear_float32(
    source_KJI: NDArray[np.float32],
    lower_k: NDArray[np.int64],
    upper_k: NDArray[np.int64],
    weight_k: NDArray[np.float32],
    lower_j: NDArray[np.int64],
    upper_j: NDArray[np.int64],
    weight_j: NDArray[np.float32],
    lower_i: NDArray[np.int64],
    upper_i: NDArray[np.int64],
    weight_i: NDArray[np.float32],
    out_KJI: NDArray[np.float32],
) -> None:
    """Trilinear, float32 to float32."""
    one = np.float32(1)
    width = source_KJI.shape[2]
    row = np.empty(width, np.float32)
    for k in range(lower_k.size):
        below, above, w = source_KJI[lower_k[k]], source_KJI[upper_k[k]], weight_k[k]
        for j in range(lower_j.size):
            a, b, v = lower_j[j], upper_j[j], weight_j[j]
            row_0, row_1, row_2, row_3 = below[a], below[b], above[a], above[b]
            w_0, w_1, w_2, w_3 = (one - w) * (one - v), (one - w) * v, w * (one - v), w * v
            for i in range(width):
                row[i] = w_0 * row_0[i] + w_1 * row_1[i] + w_2 * row_2[i] + w_3 * row_3[i]
            line = out_KJI[k, j]
            for i in range(lower_i.size):
                u = weight_i[i]
                line[i] = row[lower_i[i]] * (one - u) + row[upper_i[i]] * u


@compiled
def nearest_any(
    source_KJI: NDArray[Any],
    index_k: NDArray[np.int64],
    index_j: NDArray[np.int64],
    index_i: NDArray[np.int64],
    out_KJI: NDArray[Any],
) -> None:
    """Copy the nearest voxel, any kind."""
    for k in range(index_k.size):
        for j in range(index_j.size):
            row, line = source_KJI[index_k[k], index_j[j]], out_KJI[k, j]
            for i in range(index_i.size):
                line[i] = row[index_i[i]]


@compiled
def filter_rows(
    source_NM: NDArray[np.float32],
    start: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Weighted sums of rows: out[o] = sum over t of weights[o, t] * source[start[o] + t]."""
    out = np.zeros((start.size, source_NM.shape[1]), np.float32)
    for o in range(start.size):
        for t in range(weights.shape[1]):
            weight = weights[o, t]
            if weight > 0:
                row = source_NM[start[o] + t]
                for m in range(row.size):
                    out[o, m] += weight * row[m]
    return out


@compiled
def shift_slices(
    source_KJI: NDArray[Any],
    shift_K2: NDArray[np.float64],
    is_whole: bool,  # noqa: FBT001 (compiled code takes no keywords)
    out_KJI: NDArray[Any],
) -> None:
    """Bilinear within each slice; a voxel without four neighbours in its slice is left as it is."""
    one, half = np.float32(1), np.float32(0.5)
    slices, rows, width = source_KJI.shape
    row = np.empty(width + 1, np.float32)
    for k in range(slices):
        down, right = np.floor(shift_K2[k, 0]), np.floor(shift_K2[k, 1])
        v, u = np.float32(shift_K2[k, 0] - down), np.float32(shift_K2[k, 1] - right)
        first_j, first_i = max(0, -int(down)), max(0, -int(right))
        # The last voxel is reached only without a part of the next one.
        stop_j = min(out_KJI.shape[1], rows - int(down) - (v > 0))
        stop_i = min(out_KJI.shape[2], width - int(right) - (u > 0))
        for j in range(first_j, stop_j):
            at = j + int(down)
            above, below = source_KJI[k, at], source_KJI[k, min(at + 1, rows - 1)]
            for i in range(width):
                row[i] = (one - v) * np.float32(above[i]) + v * np.float32(below[i])
            row[width] = row[width - 1]
            line = out_KJI[k, j]
            for i in range(first_i, stop_i):
                value = (one - u) * row[i + int(right)] + u * row[i + int(right) + 1]
                line[i] = np.floor(value + half) if is_whole else value
