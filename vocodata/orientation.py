"""Which way a scan lies, by the body: evidence from -1 (the other way) to 1, 0 if it is silent.

- **front**: bone lies towards the back, and lungs reach further back than what is between them.
  Bright voxels that are even over 15 mm are blood with contrast, and do not count as bone.
- **head**: what is between the lungs gets wider towards the feet (vessels, heart, dome of the
  liver); solid organs lie below lungs; without lungs, the lopsided part of the belly (the liver)
  lies above the even one (the pelvis).
- **left**: the heart takes more room on the left of the middle, the liver on the right.

The middle is that of each slice's outline. A body that the field cuts on one side says nothing of
left and right, nor does half a chest, where lung and not the mediastinum is in the middle; nor do a
head, legs, a pelvis, or much less than 0.2 litres of organs. A heart on the right, a lung that is
gone or drowned, and a spleen as large as the liver are told as what they look like.

Shape letters: X Y Z voxels in RAS, one every 5 mm or so; only slices (Z) leave the compiled pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Spacing

LUNG_HU: Final = (-950, -600)
SOLID_ABOVE_HU: Final = -50
"""Fat is below, a fatty liver with noise above."""
SOLID_REACH_MM: Final = 25.0
"""A voxel is deep in a solid organ if nine tenths of the square around it are solid."""
BONE_ABOVE_HU, BLOOD_ABOVE_HU = 250, 150
_HEAD_MM = 200.0
"""A slice of the belly is wider; a small child's is not, and says nothing where no lung tells."""
_CUT_SHARE = 0.2
"""Of the rows of body, so many more end at one side of the field than at the other."""
_FEW_ML = 200.0


class _Slices(NamedTuple):
    """Sums over each axial slice, voxels; right counts 1 and left -1 where it says lopsided.

    Attributes:
        body: Body.
        width: From the first to the last voxel of body.
        lung: Dark, with body on both sides in its row.
        middle: Voxels of rows of body within 15 % of the half width from the middle.
        middle_lung: Lung among them.
        row: Voxels of rows of body.
        between: Body with lung on both sides in its row.
        between_lopsided: The same, right less left.
        deep: Deep in a solid organ, within 70 % of the half width from the middle.
        deep_lopsided: The same, right less left.
        bone: Bone, blood with contrast left out.
        bone_y: Sum of y of the same.
        lung_y: Sum of y of `lung`.
        between_y: Sum of y of `between`.
    """

    body: NDArray[np.int64]
    width: NDArray[np.int64]
    lung: NDArray[np.int64]
    middle: NDArray[np.int64]
    middle_lung: NDArray[np.int64]
    row: NDArray[np.int64]
    between: NDArray[np.int64]
    between_lopsided: NDArray[np.int64]
    deep: NDArray[np.int64]
    deep_lopsided: NDArray[np.int64]
    bone: NDArray[np.int64]
    bone_y: NDArray[np.int64]
    lung_y: NDArray[np.int64]
    between_y: NDArray[np.int64]


def orientation(
    sample_XYZ: NDArray[Any], body_XYZ: NDArray[np.bool_], *, spacing_mm: Spacing
) -> dict[str, float]:
    """Evidence that the front is in front, the head up, and left on the left.

    Args:
        sample_XYZ: HU of a voxel every 5 mm or so.
        body_XYZ: Which of them are body.
        spacing_mm: Of the sample.

    Returns:
        `front_evidence`, `head_evidence` and `left_evidence`, each from -1 to 1.
    """
    reach_x, reach_y = (round(SOLID_REACH_MM / side) for side in spacing_mm[:2])
    # One type of voxels, so that there is one compiled pass.
    whole_XYZ = np.clip(sample_XYZ, -32768, 32767) if sample_XYZ.dtype != np.int16 else sample_XYZ
    sums = _sums(
        np.ascontiguousarray(whole_XYZ.transpose(2, 1, 0), np.int16),
        np.ascontiguousarray(body_XYZ.transpose(2, 1, 0)),
        reach_x,
        reach_y,
    )
    slices = _Slices(*sums.T)
    voxel_ml = spacing_mm.x * spacing_mm.y * spacing_mm.z / 1000
    lung_share = slices.lung / np.maximum(1, slices.body)
    middle_share = slices.middle_lung / np.maximum(1, slices.middle)
    side_share = (slices.lung - slices.middle_lung) / np.maximum(1, slices.row - slices.middle)
    chest = (lung_share > 0.2) & (middle_share < 0.8 * side_share)
    # The head above the lungs is narrower than the trunk.
    belly = (lung_share < 0.1) & (slices.width > 0.6 * slices.width.max())
    wide = belly & (slices.width * spacing_mm.x > _HEAD_MM)
    found = {
        "front_evidence": _front(slices, chest, np.flatnonzero(body_XYZ.any((0, 2)))),
        "head_evidence": (
            _lungs_above(slices, chest, belly, voxel_ml)
            if slices.lung.max() >= 0.15 * slices.body.max()
            else _liver_above(slices, wide, spacing_mm.z)
        ),
        "left_evidence": 0.0 if _is_cut(body_XYZ) else _left(slices, chest, wide, voxel_ml),
    }
    return {name: float(np.clip(value, -1, 1)) for name, value in found.items()}


def _front(slices: _Slices, chest: NDArray[np.bool_], rows: NDArray[np.intp]) -> float:
    """How far bone lies behind the middle, and lungs behind what is between them; half depths."""
    if rows.size == 0:
        return 0.0
    middle, half = (rows[0] + rows[-1]) / 2, max(1.0, (rows[-1] - rows[0]) / 2)
    front, bone = 0.0, slices.bone.sum()
    if bone >= max(1.0, 0.002 * slices.body.sum()):
        front = (middle - slices.bone_y.sum() / bone) / half
    lung, between = slices.lung[chest].sum(), slices.between[chest].sum()
    if min(lung, between) > 0:
        behind = slices.between_y[chest].sum() / between - slices.lung_y[chest].sum() / lung
        front += behind / half
    return float(front)


def _lungs_above(
    slices: _Slices, chest: NDArray[np.bool_], belly: NDArray[np.bool_], voxel_ml: float
) -> float:
    """How far lungs lie above what is between them (in their spread) and above solid organs."""
    lung, between, solid = slices.lung * chest, slices.between * chest, slices.deep * belly
    evidence = 0.0
    if between.any():
        spread = np.square(np.arange(chest.size) - _centre(lung)) * lung
        spread_slices = max(1.0, np.sqrt(spread.sum() / lung.sum()))
        enough = min(1.0, between.sum() * voxel_ml / _FEW_ML)
        evidence += (_centre(lung) - _centre(between)) / spread_slices * enough
    # Muscles of the shoulders are solid too, but less.
    enough = np.clip(solid.sum() * voxel_ml / _FEW_ML - 0.5, 0, 1)
    enough *= min(1.0, slices.lung.sum() * voxel_ml / (2 * _FEW_ML))
    below = (_centre(slices.lung) - _centre(solid)) / (chest.size / 2)
    return float(evidence + below * enough)


def _liver_above(slices: _Slices, wide: NDArray[np.bool_], slice_mm: float) -> float:
    """How far the lopsided part of a long belly lies above all of it, in half lengths."""
    lopsided = np.abs(slices.deep_lopsided) / np.maximum(1, slices.body)
    lopsided = np.maximum(0, lopsided - 0.05) * wide
    enough = np.clip((wide.size * slice_mm - 100) / 150, 0, 1) * min(1.0, lopsided.max() / 0.1)
    return float((_centre(lopsided) - _centre(slices.deep * wide)) / (wide.size / 2) * enough)


def _left(
    slices: _Slices, chest: NDArray[np.bool_], wide: NDArray[np.bool_], voxel_ml: float
) -> float:
    """How much further the heart reaches to the left, and solid organs of the belly to the right.

    A share of all that was looked at, less if that is little.
    """
    lopsided = slices.deep_lopsided[wide].sum() - slices.between_lopsided[chest].sum()
    looked_at = slices.deep[wide].sum() + slices.between[chest].sum()
    return float(lopsided / (looked_at + _FEW_ML / voxel_ml))


def _is_cut(body_XYZ: NDArray[np.bool_]) -> bool:
    """Whether the field ends inside the body on one side, and not as much on the other."""
    more = abs(int(body_XYZ[0].sum()) - int(body_XYZ[-1].sum()))
    return bool(more > _CUT_SHARE * body_XYZ.any(0).sum())


def _centre(weight_Z: NDArray[Any]) -> float:
    total = weight_Z.sum()
    return float((weight_Z * np.arange(weight_Z.size)).sum() / total) if total > 0 else 0.0


@compiled
def _sums(
    hu_ZYX: NDArray[np.int16], body_ZYX: NDArray[np.bool_], reach_x: int, reach_y: int
) -> NDArray[np.int64]:
    """(Z, 14) sums of `_Slices`, in its order."""
    nz, ny, nx = hu_ZYX.shape
    sums = np.zeros((nz, 14), np.int64)
    deep_YX, thin_YX = np.empty((ny, nx), np.bool_), np.empty((ny, nx), np.bool_)
    for z in range(nz):
        hu_YX, body_YX = hu_ZYX[z], body_ZYX[z]
        first, last = nx, -1
        for y in range(ny):
            for x in range(nx):
                if body_YX[y, x]:
                    first, last = min(first, x), max(last, x)
        if last < 0:
            continue
        _mark_deep(hu_YX, reach_x, reach_y, deep_YX)
        _mark_thin(hu_YX, thin_YX)
        # Twice the place from the middle, so that it is whole; the half width is width / 2.
        width = last - first + 1
        sums[z, 1] = width
        for y in range(ny):
            _add_row(hu_YX[y], body_YX[y], deep_YX[y], thin_YX[y], first + last, width, y, sums[z])
    return sums


@compiled
def _add_row(
    hu_X: NDArray[np.int16],
    body_X: NDArray[np.bool_],
    deep_X: NDArray[np.bool_],
    thin_X: NDArray[np.bool_],
    twice_middle: int,
    width: int,
    y: int,
    sums: NDArray[np.int64],
) -> None:
    start, stop = 0, hu_X.size
    while start < stop and not body_X[start]:
        start += 1
    while stop > start and not body_X[stop - 1]:
        stop -= 1
    first_lung, last_lung = stop, start
    for x in range(start, stop):
        if LUNG_HU[0] < hu_X[x] < LUNG_HU[1]:
            first_lung, last_lung = min(first_lung, x), x
    for x in range(start, stop):
        twice_off = 2 * x - twice_middle
        side = np.sign(twice_off)
        is_lung = LUNG_HU[0] < hu_X[x] < LUNG_HU[1]
        is_middle = abs(twice_off) < 0.15 * width
        sums[2] += is_lung
        sums[3] += is_middle
        sums[4] += is_middle and is_lung
        sums[5] += 1
        sums[12] += y * is_lung
        if not body_X[x]:
            continue
        sums[0] += 1
        if first_lung < x < last_lung:
            sums[6] += 1
            sums[7] += side
            sums[13] += y
        if deep_X[x] and abs(twice_off) < 0.7 * width:
            sums[8] += 1
            sums[9] += side
        if thin_X[x] and hu_X[x] > BONE_ABOVE_HU:
            sums[10] += 1
            sums[11] += y


@compiled
def _mark_deep(
    hu_YX: NDArray[np.int16], reach_x: int, reach_y: int, deep_YX: NDArray[np.bool_]
) -> None:
    """Voxels around which nine tenths of a square are solid; beyond the border nothing is."""
    ny, nx = hu_YX.shape
    enough = 0.9 * (2 * reach_x + 1) * (2 * reach_y + 1)
    columns = np.zeros(nx, np.int64)
    for y in range(-reach_y, ny):
        if y + reach_y < ny:
            for x in range(nx):
                columns[x] += hu_YX[y + reach_y, x] > SOLID_ABOVE_HU
        if y - reach_y > 0:
            for x in range(nx):
                columns[x] -= hu_YX[y - reach_y - 1, x] > SOLID_ABOVE_HU
        if y < 0:
            continue
        inside = columns[: min(nx, reach_x)].sum()
        for x in range(nx):
            if x + reach_x < nx:
                inside += columns[x + reach_x]
            if x - reach_x > 0:
                inside -= columns[x - reach_x - 1]
            deep_YX[y, x] = inside >= enough


@compiled
def _mark_thin(hu_YX: NDArray[np.int16], thin_YX: NDArray[np.bool_]) -> None:
    """Voxels that lie in no square of 3 x 3 bright ones."""
    ny, nx = hu_YX.shape
    thin_YX[:] = True
    for y in range(1, ny - 1):
        run = 0
        for x in range(nx):
            column = min(hu_YX[y - 1, x], hu_YX[y, x], hu_YX[y + 1, x])
            run = run + 1 if column > BLOOD_ABOVE_HU else 0
            if run >= 3:
                thin_YX[y - 1 : y + 2, x - 2 : x + 1] = False
