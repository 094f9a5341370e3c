"""Onto the grid of the store: orient, and interpolate, in one pass over the voxels.

**Grid.** Output voxel 0 sits on input voxel 0 after reorientation to RAS, and an axis of n voxels
at s_in becomes round((n - 1) * s_in / s_out + 1) voxels at s_out: the grid of MONAI's Spacingd. A
position past the last voxel takes the last voxel's value (border clamp).

Interpolation along a voxel axis needs only, per output index, the two neighbours and a weight. So
each axis has a small table, flips are folded into the tables, and one kernel walks the source in
the order it lies in memory, writing int16 straight from int16: nothing of the size of the volume
is ever held in float. Sheared grids are interpolated along their own axes and stay sheared.

Shape letters: X Y Z voxels in RAS; K J I the same axes from slowest to fastest in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vocodata.geometry import (
    Size,
    Spacing,
    Volume,
    axis_order,
    orient_ras,
    oriented_affine,
    spacing_of,
)
from vocodata.resampling_kernels import filter_rows, linear_float32, linear_int16, nearest_any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Affine


class AxisTable(NamedTuple):
    """For each output index along one axis: the neighbours in the source, and the upper's weight.

    Attributes:
        lower: (n_out,) source index.
        upper: (n_out,) source index.
        weight: (n_out,) float32 in [0, 1], share of `upper`.
    """

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    weight: NDArray[np.float32]


class _Axis(NamedTuple):
    """One RAS axis of the output: positions in the source, in voxels, before any flip."""

    position: NDArray[np.float64]
    n_in: int
    flip: bool
    step: float


def resample(
    volume: Volume,
    spacing_mm: Spacing,
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    antialias: bool = False,
) -> Volume:
    """The volume in RAS at another spacing.

    Args:
        volume: Any orientation. int16 stays int16 (rounded half up); float32 stays float32;
            other kinds become float32, except with `nearest`, which keeps any kind.
        spacing_mm: Spacing wanted, mm.
        interpolation: `linear` (trilinear) for HU, `nearest` for labels.
        antialias: Average over the new voxel where an axis shrinks (triangle filter, as wide as
            the new spacing to each side). Off by default: the released weights were trained
            without. No effect with `nearest`.

    Returns:
        The volume, its data C-contiguous in (Z, Y, X) order seen as (X, Y, Z). Its affine is such
        that what was at a place in the patient is still there. Voxels that stay where they are
        may be the volume's own memory.

    >>> ramp = np.arange(5, dtype=np.int16).reshape(5, 1, 1) * 10
    >>> out = resample(Volume(ramp, np.eye(4)), Spacing(1.5, 1, 1))
    >>> out.data_XYZ.ravel()
    array([ 0, 15, 30, 40], dtype=int16)
    """
    order = axis_order(volume.affine)
    affine = oriented_affine(volume.affine, volume.shape_XYZ, order)
    spacing_in = spacing_of(affine)
    axes = []
    for target, source in enumerate(order.axes):
        n_in, step = volume.shape_XYZ[source], spacing_mm[target] / spacing_in[target]
        n_out = size_after(n_in, spacing_in[target], spacing_mm[target])
        position = np.minimum(np.arange(n_out) * step, n_in - 1.0)
        axes.append(_Axis(position, n_in, order.flips[target], step))
    if _is_on_grid(axes, volume.data_XYZ.dtype, interpolation):
        data = _lying_as_zyx(orient_ras(volume).data_XYZ)
    else:
        data = _onto(volume.data_XYZ, order.axes, axes, interpolation, antialias=antialias)
    return Volume(data, _scaled(affine, [axis.step for axis in axes]))


def resize(
    volume: Volume,
    size_vox: Size,
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    antialias: bool = False,
) -> Volume:
    """The volume in RAS with another number of voxels, first and last voxels staying in place.

    The squeeze of the presets: corners are aligned, as with `align_corners=True` elsewhere.

    Args:
        volume: Any orientation, see `resample`.
        size_vox: Voxels wanted along x, y, z.
        interpolation: See `resample`.
        antialias: See `resample`.
    """
    order = axis_order(volume.affine)
    affine = oriented_affine(volume.affine, volume.shape_XYZ, order)
    axes = []
    for target, source in enumerate(order.axes):
        n_in, n_out = volume.shape_XYZ[source], size_vox[target]
        step = (n_in - 1) / (n_out - 1) if n_out > 1 and n_in > 1 else 1.0
        position = np.minimum(np.arange(n_out) * step, n_in - 1.0)
        axes.append(_Axis(position, n_in, order.flips[target], step))
    data = _onto(volume.data_XYZ, order.axes, axes, interpolation, antialias=antialias)
    return Volume(data, _scaled(affine, [axis.step for axis in axes]))


def size_after(n_in: int, spacing_in_mm: float, spacing_out_mm: float) -> int:
    """Voxels along an axis after resampling: round((n - 1) * s_in / s_out + 1), ties to even.

    Spacings come from affines with rounding noise; a millionth of a voxel is taken for a tie.

    >>> size_after(512, 0.75, 1.5)
    256
    """
    return int(np.rint(round((n_in - 1) * spacing_in_mm / spacing_out_mm + 1, 6)))


def grid_after(shape_XYZ: Size, affine: Affine, spacing_mm: Spacing) -> Size:
    """Size that `resample` would give, in RAS, without a voxel read; for planning."""
    order = axis_order(affine)
    spacing_in = spacing_of(affine)
    x, y, z = (
        size_after(shape_XYZ[source], spacing_in[source], spacing_mm[target])
        for target, source in enumerate(order.axes)
    )
    return Size(x, y, z)


def linear_table(axis: _Axis) -> AxisTable:
    """Neighbours and weights for linear interpolation, flip folded in."""
    lower = np.floor(axis.position).astype(np.int64)
    upper = np.minimum(lower + 1, axis.n_in - 1)
    weight = (axis.position - lower).astype(np.float32)
    if axis.flip:
        lower, upper = axis.n_in - 1 - lower, axis.n_in - 1 - upper
    return AxisTable(lower, upper, weight)


def nearest_table(axis: _Axis) -> NDArray[np.int64]:
    """Nearest source index; a tie goes to the even one.

    MONAI means the same, but its ties are decided by the last bit of a float, and that by the
    processor (benchmarks/labels.py).
    """
    index = np.rint(axis.position.round(6)).astype(np.int64)
    return axis.n_in - 1 - index if axis.flip else index


def _onto(
    data_XYZ: NDArray[Any],
    source_axes: tuple[int, int, int],
    axes: list[_Axis],
    interpolation: Literal["linear", "nearest"],
    *,
    antialias: bool,
) -> NDArray[Any]:
    """Interpolate; `axes` are in RAS order, `source_axes` says which source axis each one reads."""
    if interpolation == "linear" and data_XYZ.dtype not in (np.int16, np.float32):
        data_XYZ = data_XYZ.astype(np.float32)
    memory = sorted(range(3), key=lambda axis: -abs(data_XYZ.strides[axis]))
    targets = [source_axes.index(source) for source in memory]
    source_KJI, tables = _forwards(data_XYZ.transpose(memory), [axes[t] for t in targets])
    if interpolation == "linear" and antialias and any(axis.step > 1 for axis in axes):
        return _filtered(source_KJI, tables, targets)
    out_KJI = np.empty([axis.position.size for axis in tables], data_XYZ.dtype)
    if interpolation == "nearest":
        index_k, index_j, index_i = (nearest_table(axis) for axis in tables)
        nearest_any(source_KJI, index_k, index_j, index_i, out_KJI)
    else:
        kernel = linear_int16 if data_XYZ.dtype == np.int16 else linear_float32
        k, j, i = (linear_table(axis) for axis in tables)
        kernel(source_KJI, *k, *j, *i, out_KJI)
    return _zyx_order(out_KJI, targets)


def _zyx_order(out_KJI: NDArray[Any], targets: list[int]) -> NDArray[Any]:
    """The output seen as (X, Y, Z), lying as (Z, Y, X); `targets` says which RAS axis each is."""
    return _lying_as_zyx(out_KJI.transpose([targets.index(axis) for axis in range(3)]))


def _lying_as_zyx(data_XYZ: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(data_XYZ.transpose(2, 1, 0)).transpose(2, 1, 0)


def _is_on_grid(
    axes: list[_Axis], dtype: np.dtype[Any], interpolation: Literal["linear", "nearest"]
) -> bool:
    """Whether each output voxel is an input voxel, but for rounding that its kind cannot show."""
    if interpolation == "nearest":
        tolerance_vox = 0.49
    elif dtype == np.int16:
        tolerance_vox = 0.49 / 2**16
    elif dtype == np.float32:
        tolerance_vox = 0.0
    else:
        return False
    return all(
        axis.position.size == axis.n_in
        and abs(axis.position - np.arange(axis.n_in)).max() <= tolerance_vox
        for axis in axes
    )


def _forwards(source_KJI: NDArray[Any], axes: list[_Axis]) -> tuple[NDArray[Any], list[_Axis]]:
    """Undo reversed views, so that the kernel reads forwards through memory."""
    backwards = [stride < 0 for stride in source_KJI.strides]
    index = tuple(slice(None, None, -1) if back else slice(None) for back in backwards)
    turned = [a._replace(flip=a.flip != b) for a, b in zip(axes, backwards, strict=True)]
    return source_KJI[index], turned


def _filtered(source_KJI: NDArray[Any], axes: list[_Axis], targets: list[int]) -> NDArray[Any]:
    """Three passes of a triangle filter, the strongest shrink first; float32 in between."""
    data: NDArray[Any] = source_KJI.astype(np.float32)
    for position in sorted(range(3), key=lambda p: -axes[p].step):
        start, weights = triangle_table(axes[position])
        rows = np.ascontiguousarray(np.moveaxis(data, position, 0))
        data = np.moveaxis(
            filter_rows(rows.reshape(rows.shape[0], -1), start, weights).reshape(
                start.size, *rows.shape[1:]
            ),
            0,
            position,
        )
    if source_KJI.dtype == np.int16:
        data = np.floor(data + np.float32(0.5)).astype(np.int16)
    return _zyx_order(data, targets)


def triangle_table(axis: _Axis) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Weighted window of the source for each output index.

    Returns:
        First source index of each window (n_out,), and weights (n_out, taps) that add up to 1.
        A window over the border keeps what is inside, with weights that still add up to 1.
    """
    reach = max(1.0, axis.step)
    taps = 2 * math.ceil(reach) + 1
    start = np.floor(axis.position).astype(np.int64) - taps // 2
    index = start[:, None] + np.arange(taps)
    weights = np.maximum(0.0, 1.0 - np.abs(index - axis.position[:, None]) / reach)
    weights[(index < 0) | (index > axis.n_in - 1)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    if axis.flip:
        start, weights = axis.n_in - start - taps, weights[:, ::-1]
    return start, np.ascontiguousarray(weights, dtype=np.float32)


def _scaled(affine: Affine, steps: list[float]) -> Affine:
    scaled = np.array(affine)
    scaled[:3, :3] *= np.array(steps)
    return scaled
