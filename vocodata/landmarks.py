"""Landmarks: the points of a scan that stay when it is packed, cut or windowed another way.

Soft tissue and bone edges (window -100..200 HU) are averaged over cells of 5 mm, smoothed to 8 and
to 12.8 mm, and subtracted; where the difference is an extremum among its neighbours there is a
blob: a vessel, a vertebra, a kidney's pole. Its place in mm does not depend on the spacing, on what
was cut away elsewhere, or on values beyond the window. Extrema are taken above a fixed contrast,
not as the best so many, so that cutting a scan does not bring up others in the part that is left.

Shape letters: X Y Z cells of 5 mm in RAS; N landmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Volume

WINDOW_HU = (-100.0, 200.0)
CELL_MM = 5.0
SMOOTH_MM = (8.0, 12.8)
FINE_SMOOTH_MM = (5.5, 8.8)
FEW_LANDMARKS = 64
"""A scan with fewer (a small field of view, a few slices) is given finer ones as well."""
MIN_CONTRAST = 0.02
"""Of the window's width, between the two smoothings."""
MAX_LANDMARKS = 96
_SAMPLE_MM = 1.5
_PLACE_UNIT_MM = 0.1
_CONTRAST_UNIT = 1 / 400
RECORD = np.dtype([("place", "<u2", 3), ("contrast", "i1"), ("level", "u1")])
"""A landmark as it is kept: 8 bytes."""


class Landmarks(NamedTuple):
    """Blobs of one scan, the clearest first.

    Attributes:
        place_N3: mm along x, y, z from the first voxel's corner.
        contrast_N: Of the window's width; positive where brighter than around.
        level_N: Brightness there, share of the window.
    """

    place_N3: NDArray[np.float32]  # noqa: N815 (shape letters)
    contrast_N: NDArray[np.float32]  # noqa: N815 (shape letters)
    level_N: NDArray[np.float32]  # noqa: N815 (shape letters)


def find_landmarks(volume: Volume) -> Landmarks:
    """The landmarks of a scan.

    Args:
        volume: HU in RAS, at the spacing of the file.
    """
    cells_XYZ = cell_means(volume)
    found = _at_scale(cells_XYZ, SMOOTH_MM)
    if found.contrast_N.size < FEW_LANDMARKS:
        fine = _at_scale(cells_XYZ, FINE_SMOOTH_MM)
        pairs = zip(found, fine, strict=True)
        found = Landmarks(*(np.concatenate(pair)[:MAX_LANDMARKS] for pair in pairs))
    return found


def _at_scale(cells_XYZ: NDArray[np.float32], smooth_mm: tuple[float, float]) -> Landmarks:
    fine, coarse = (_smooth(cells_XYZ, sigma / CELL_MM) for sigma in smooth_mm)
    difference = fine - coarse
    at_N3 = _extrema(difference)
    contrast_N = difference[tuple(at_N3.T)]
    order = np.lexsort((*at_N3.T, -np.abs(contrast_N)))[:MAX_LANDMARKS]
    at_N3, contrast_N = at_N3[order], contrast_N[order]
    place_N3 = (at_N3 + 0.5 + _peak_offset(difference, at_N3)) * CELL_MM
    return Landmarks(place_N3.astype(np.float32), contrast_N, fine[tuple(at_N3.T)])


def pack(landmarks: Landmarks) -> bytes:
    """Landmarks as bytes, 8 each."""
    records = np.zeros(len(landmarks.contrast_N), RECORD)
    records["place"] = np.clip(np.rint(landmarks.place_N3 / _PLACE_UNIT_MM), 0, 65535)
    records["contrast"] = np.clip(np.rint(landmarks.contrast_N / _CONTRAST_UNIT), -127, 127)
    records["level"] = np.rint(np.clip(landmarks.level_N, 0, 1) * 255)
    return records.tobytes()


def unpack(data: bytes) -> Landmarks:
    """Landmarks from bytes."""
    records = np.frombuffer(data, RECORD)
    return Landmarks(
        records["place"].astype(np.float32) * np.float32(_PLACE_UNIT_MM),
        records["contrast"].astype(np.float32) * np.float32(_CONTRAST_UNIT),
        records["level"].astype(np.float32) / np.float32(255),
    )


def cell_means(volume: Volume) -> NDArray[np.float32]:
    """Mean of the window, 0..1, over cells of 5 mm; voxels much finer than that are sampled."""
    step = [max(1, int(_SAMPLE_MM / spacing)) for spacing in volume.spacing_mm]
    data_XYZ = volume.data_XYZ[:: step[0], :: step[1], :: step[2]]
    spacing = [s * n for s, n in zip(volume.spacing_mm, step, strict=True)]
    for axis, length in enumerate(spacing):
        if length > CELL_MM:
            # Slices thicker than a cell fill several.
            parts = int(np.ceil(length / CELL_MM))
            data_XYZ, spacing[axis] = np.repeat(data_XYZ, parts, axis), length / parts
    tables = [_cells_of(n, s) for n, s in zip(data_XYZ.shape, spacing, strict=True)]
    (at_x, in_x), (at_y, in_y), (at_z, in_z) = tables
    means_ZYX: NDArray[np.float32] = _cell_means(
        data_XYZ.transpose(2, 1, 0), at_x, in_x, at_y, in_y, at_z, in_z
    )
    return means_ZYX.transpose(2, 1, 0)


def _cells_of(voxels: int, spacing_mm: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each voxel along an axis the cell where it begins, and the share of it that lies there.

    The last cell takes what is left, half a cell more or less.
    """
    cells = max(1, round(voxels * spacing_mm / CELL_MM))
    edges_mm = np.arange(voxels + 1) * spacing_mm
    first = np.minimum((edges_mm[:-1] / CELL_MM).astype(np.int64), cells - 1)
    inside_mm = np.minimum(edges_mm[1:], (first + 1) * CELL_MM) - edges_mm[:-1]
    share = np.clip(inside_mm / spacing_mm, 0, 1)
    share[first == cells - 1] = 1
    return first, share.astype(np.float32)


@compiled
def _cell_means(
    data_ZYX: NDArray[Any],
    at_x: NDArray[np.int64],
    in_x: NDArray[np.float32],
    at_y: NDArray[np.int64],
    in_y: NDArray[np.float32],
    at_z: NDArray[np.int64],
    in_z: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Mean of the window over cells; a voxel counts in up to two cells along each axis.

    Shares of the further cell are float64, as they come out of 1 - share: fingerprints depend on
    the last bit of these sums.
    """
    low, high = np.float32(WINDOW_HU[0]), np.float32(WINDOW_HU[1])
    shape = (at_z[-1] + 1, at_y[-1] + 1, at_x[-1] + 1)
    sums, weights = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    values_YX, row = np.empty((at_y.size, at_x.size), np.float32), np.empty(shape[2], np.float32)
    row_weight = np.empty(shape[2], np.float32)
    is_backwards = data_ZYX.strides[1] < 0
    _add_up_row(np.ones(at_x.size, np.float32), at_x, in_x, row_weight)
    for z in range(at_z.size):
        # Forwards through memory, whatever way the patient lies; added up in RAS order.
        for n in range(at_y.size):
            y = at_y.size - 1 - n if is_backwards else n
            line, values = data_ZYX[z, y], values_YX[y]
            for x in range(at_x.size):
                values[x] = min(max(np.float32(line[x]), low), high) - low
        for y in range(at_y.size):
            _add_up_row(values_YX[y], at_x, in_x, row)
            for dz in range(2):
                share_z = np.float64(in_z[z]) if dz == 0 else 1 - np.float64(in_z[z])
                for dy in range(2):
                    share_y = np.float64(in_y[y]) if dy == 0 else 1 - np.float64(in_y[y])
                    share = share_z * share_y
                    # What the last voxel leaves for a cell beyond the grid is dropped, as along x.
                    is_outside = at_z[z] + dz >= shape[0] or at_y[y] + dy >= shape[1]
                    if share <= 0 or is_outside:
                        continue
                    cells = sums[at_z[z] + dz, at_y[y] + dy]
                    cell_weights = weights[at_z[z] + dz, at_y[y] + dy]
                    for cell in range(row.size):
                        cells[cell] += share * row[cell]
                        cell_weights[cell] += share * row_weight[cell]
    means: NDArray[np.float32] = sums / (weights * (high - low) + np.float32(1e-12))
    return means


@compiled
def _add_up_row(
    values: NDArray[np.float32],
    at: NDArray[np.int64],
    inside: NDArray[np.float32],
    row: NDArray[np.float32],
) -> None:
    """Sums of a row of voxels over cells; only the last voxel of a cell reaches into the next."""
    row[:] = 0
    cell, total = at[0], np.float32(0)
    for x in range(at.size):
        if at[x] != cell:
            row[cell] = total
            cell = at[x]
            # What the voxel before left for this cell, which is the next one or there is no rest.
            total = row[cell]
        total += values[x] * inside[x]
        if inside[x] < 1 and cell + 1 < row.size:
            row[cell + 1] += values[x] * (1 - np.float64(inside[x]))
    row[cell] = total


def _smooth(cells_XYZ: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian smoothing that knows nothing beyond the border: weights there add up to 1 too."""
    reach = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma)).astype(np.float32)
    for axis in range(3):
        cells_XYZ = _smooth_axis(cells_XYZ, taps, axis)
    return cells_XYZ


def _smooth_axis(
    cells: NDArray[np.float32], taps: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Shifted sums rather than matrix products: threads of BLAS would fight over a busy machine."""
    cells = np.moveaxis(cells, axis, 0)
    count, reach = cells.shape[0], taps.size // 2
    smooth, weight = np.zeros_like(cells), np.zeros(count, np.float32)
    for tap, shift in zip(taps, range(-reach, reach + 1), strict=True):
        to = slice(max(0, -shift), min(count, count - shift))
        if to.start < to.stop:
            smooth[to] += tap * cells[to.start + shift : to.stop + shift]
            weight[to] += tap
    result: NDArray[np.float32] = np.moveaxis(smooth / weight[:, None, None], 0, axis)
    return result


def _extrema(difference: NDArray[np.float32]) -> NDArray[np.int64]:
    """Cells (N, 3) that are above, or below, all 26 neighbours by value and clear enough."""
    if min(difference.shape) < 3:
        return np.empty((0, 3), np.int64)
    inner = difference[1:-1, 1:-1, 1:-1]
    is_top = (inner >= _of_neighbours(difference, np.maximum)) & (inner > MIN_CONTRAST)
    is_bottom = (inner <= _of_neighbours(difference, np.minimum)) & (inner < -MIN_CONTRAST)
    return np.argwhere(is_top | is_bottom) + 1


def _of_neighbours(values: NDArray[np.float32], which: Any) -> NDArray[np.float32]:  # noqa: ANN401 (a ufunc)
    for axis in range(3):
        values = np.moveaxis(values, axis, 0)
        values = np.moveaxis(which(which(values[:-2], values[1:-1]), values[2:]), 0, axis)
    return values


def _peak_offset(difference: NDArray[np.float32], at_N3: NDArray[np.int64]) -> NDArray[np.float32]:
    """Where between the cells the extremum is, by a parabola along each axis: -0.5 to 0.5."""
    offset_N3 = np.zeros(at_N3.shape, np.float32)
    middle = difference[tuple(at_N3.T)]
    for axis in range(3):
        step = np.eye(3, dtype=np.int64)[axis]
        before, after = (difference[tuple((at_N3 + sign * step).T)] for sign in (-1, 1))
        curve = before - 2 * middle + after
        flat = curve == 0
        offset_N3[:, axis] = 0.5 * (before - after) / np.where(flat, 1, curve) * ~flat
    return np.clip(offset_N3, -0.5, 0.5)
