"""Is this a CT that training should see: cheap measures of a file, limits, and flags.

Counts of HU are exact (from the census), shares of body, table and padding and the orientation
come from a sample of one voxel every 5 mm. A check that fails gives the scan a flag; the
manifest's policy may exclude the scan by it instead, or not care.

What the body tells of the orientation (vocodata/orientation.py) is given as evidence from -1 (the
other way) to 1; a flag is raised only well below 0, and where the body says nothing there is none.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from vocodata.geometry import Spacing
from vocodata.orientation import orientation
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vocodata.census import Census
    from vocodata.geometry import Volume

Policy = Literal["keep", "flag", "exclude"]
SAMPLE_MM = 5.0
_LOWEST = 32768
# Of a scan that is shifted, less than this is below -500 HU, padding apart, and more than this is
# where water would be then. Of three real scans it is 0 and 31 to 60 % if they are shifted, and 35
# to 42 % and 0.2 % at most if they are not.
_SCATTERED_AIR_SHARE, _DENSE_SHARE = 0.005, 0.02


@dataclass(frozen=True)
class QualityLimits:
    """What a scan of a preset must keep to; beyond is a flag.

    Attributes:
        min_field_mm: Smallest extent across the patient.
        max_field_mm: Largest extent across the patient.
        min_length_mm: Smallest extent along the patient.
        max_length_mm: Largest extent along the patient.
        min_slices: Fewest axial slices.
        max_spacing_mm: Coarsest voxel side.
        min_soft_share: Least share of voxels from -150 to 150 HU.
        min_bone_share: Least share of voxels above 150 HU.
        max_heaped_share: Most share of voxels at the very end of a range that ends inside the body.
        max_air_shift_hu: How far air may lie from -1000; lung alone is at -850.
        max_extreme_hu: Largest HU, metal included.
        min_extreme_hu: Smallest HU, padding included; that is rarely below -4096.
        max_flat_slices: Most share of slices that hold one value.
        max_repeated_slices: Most share of slices that repeat the one before.
        min_body_share: Least share of the file that is body.
        max_padding_share: Most share of the file that is filled with one value below -1100 HU.
        max_table_share: Most share of what is not air that hangs apart from the body.
        max_back_to_front: Most evidence that the front is at the back. Null: not judged.
        max_upside_down: Most evidence that the head is at the feet. Null: not judged.
        max_mirrored: Most evidence that left is on the right. Null: not judged.
    """

    min_field_mm: float = 100.0
    max_field_mm: float = 800.0
    min_length_mm: float = 40.0
    max_length_mm: float = 2200.0
    min_slices: int = 12
    max_spacing_mm: float = 7.5
    min_soft_share: float = 0.02
    min_bone_share: float = 0.0005
    max_heaped_share: float = 0.01
    max_air_shift_hu: float = 250.0
    max_extreme_hu: float = 16000.0
    min_extreme_hu: float = -5000.0
    max_flat_slices: float = 0.02
    max_repeated_slices: float = 0.02
    min_body_share: float = 0.03
    max_padding_share: float = 0.7
    max_table_share: float = 0.35
    max_back_to_front: float | None = 0.15
    max_upside_down: float | None = 0.2
    max_mirrored: float | None = 0.15


CHECKS: Final[Mapping[str, tuple[Policy, str]]] = {
    "small_field": ("flag", "The scan is narrower or shorter than a patient's part."),
    "large_field": ("flag", "The scan is wider or longer than a patient: is the spacing right?"),
    "few_slices": ("flag", "There are few axial slices."),
    "coarse_spacing": ("flag", "Voxels are coarse along an axis."),
    "screenshot": ("exclude", "Values run from 0 to 255: grey levels, not HU."),
    "shifted_hu": ("exclude", "Air is near 0 and water near 1000: 1024 was not subtracted."),
    "off_scale": ("flag", "The air around the patient is not near -1000 HU."),
    "no_air": ("flag", "Nothing is below -500 HU."),
    "no_soft_tissue": ("flag", "Hardly anything is between -150 and 150 HU."),
    "no_bone": ("flag", "Hardly anything is above 150 HU."),
    "truncated_range": ("flag", "Values are cut off inside the range of tissue."),
    "extreme_hu": ("flag", "There are values far beyond metal, or far below padding."),
    "flat_slices": ("flag", "There are slices that hold one value."),
    "repeated_slices": ("flag", "There are slices that repeat the one before."),
    "little_body": ("flag", "Little of the scan is body."),
    "much_padding": ("flag", "Most of the scan is padding."),
    "much_table": ("flag", "Much lies apart from the body: table, wires, other limbs."),
    "maybe_back_to_front": ("flag", "Bone lies towards the front: is the orientation right?"),
    "maybe_upside_down": (
        "flag",
        "Organs lie as if the head were below: is the orientation right?",
    ),
    "maybe_mirrored": ("flag", "Heart and liver are on the other side: is left on the left?"),
}
"""Each check: what is done where the manifest says nothing, and what its flag means."""


def measure(volume: Volume, census: Census) -> dict[str, float]:
    """What the checks look at, small numbers for the catalogue.

    Args:
        volume: HU in RAS, as the file has them.
        census: Of the same volume.
    """
    size, spacing = volume.shape_XYZ, volume.spacing_mm
    step = [max(1, round(SAMPLE_MM / side)) for side in spacing]
    sample_XYZ = np.ascontiguousarray(volume.data_XYZ[:: step[0], :: step[1], :: step[2]])
    sample_mm = Spacing(*(side * by for side, by in zip(spacing, step, strict=True)))
    measures = {
        "field_x_mm": size.x * spacing.x,
        "field_y_mm": size.y * spacing.y,
        "length_mm": size.z * spacing.z,
        "slices": size.z,
        "spacing_mm": max(spacing),
        "flat_slices": census.flat_slices / size.z,
        "repeated_slices": census.repeated_slices / size.z,
        "lowest_hu": census.lowest_hu,
        "highest_hu": census.highest_hu,
        **_of_counts(census.counts),
        **_of_sample(sample_XYZ, sample_mm),
    }
    return {name: round(float(value), 4) for name, value in measures.items()}


def failed_checks(measures: Mapping[str, float], limits: QualityLimits) -> tuple[str, ...]:
    """Names of the checks that a scan does not pass, in the order of `CHECKS`."""
    m, across = measures, (measures["field_x_mm"], measures["field_y_mm"])
    is_screenshot = m["lowest_hu"] >= 0 and m["highest_hu"] <= 255
    # Noise of shifted air goes below 0 and padding far below it, so the lowest value says nothing.
    is_shifted = (
        not is_screenshot
        and m["scattered_air_share"] < _SCATTERED_AIR_SHARE
        and m["dense_share"] > _DENSE_SHARE
        and 850 <= m["dense_peak_hu"] <= 1200
    )
    on_scale = not (is_screenshot or is_shifted)
    failed = {
        "small_field": min(across) < limits.min_field_mm or m["length_mm"] < limits.min_length_mm,
        "large_field": max(across) > limits.max_field_mm or m["length_mm"] > limits.max_length_mm,
        "few_slices": m["slices"] < limits.min_slices,
        "coarse_spacing": m["spacing_mm"] > limits.max_spacing_mm,
        "screenshot": is_screenshot,
        "shifted_hu": is_shifted,
        "off_scale": on_scale
        and m["air_share"] > 0.05
        and abs(m["air_peak_hu"] + 1000) > limits.max_air_shift_hu,
        "no_air": m["air_share"] == 0,
        "no_soft_tissue": m["soft_share"] < limits.min_soft_share,
        "no_bone": m["bone_share"] < limits.min_bone_share,
        "truncated_range": on_scale
        and max(m["heaped_low_share"], m["heaped_high_share"]) > limits.max_heaped_share,
        "extreme_hu": m["highest_hu"] > limits.max_extreme_hu
        or m["lowest_hu"] < limits.min_extreme_hu,
        "flat_slices": m["flat_slices"] > limits.max_flat_slices,
        "repeated_slices": m["repeated_slices"] > limits.max_repeated_slices,
        "little_body": m["body_share"] < limits.min_body_share,
        "much_padding": m["padding_share"] > limits.max_padding_share,
        "much_table": m["table_share"] > limits.max_table_share,
        "maybe_back_to_front": _is_beyond(-m["front_evidence"], limits.max_back_to_front),
        "maybe_upside_down": _is_beyond(-m["head_evidence"], limits.max_upside_down),
        "maybe_mirrored": _is_beyond(-m["left_evidence"], limits.max_mirrored),
    }
    return tuple(name for name in CHECKS if failed[name])


def _is_beyond(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def policy_of(check: str, policies: Mapping[str, Policy]) -> Policy:
    """What to do about a check, as the manifest says or as is usual."""
    return policies.get(check, CHECKS[check][0])


def _of_counts(counts: NDArray[np.int64]) -> dict[str, float]:
    voxels = int(counts.sum())
    present = np.flatnonzero(counts)
    low, high = int(present[0]) - _LOWEST, int(present[-1]) - _LOWEST

    def share(start: int, stop: int) -> float:
        return float(counts[start + _LOWEST : stop + _LOWEST].sum() / voxels)

    padding = counts[: -1100 + _LOWEST].max(initial=0) / voxels
    air = share(-32768, -500)
    return {
        "air_share": air,
        "scattered_air_share": air - float(counts[: -500 + _LOWEST].max() / voxels),
        "soft_share": share(-150, 150),
        "bone_share": share(151, 32767),
        "padding_share": float(padding),
        # Air is cut off at -1024 in most scans, and 3071 is where 12 bits end: no fault.
        "heaped_low_share": float(counts[low + _LOWEST] / voxels) if -900 < low < 0 else 0.0,
        "heaped_high_share": float(counts[high + _LOWEST] / voxels) if 0 < high < 1400 else 0.0,
        "air_peak_hu": _peak(counts, -1100, -500),
        "tissue_peak_hu": _peak(counts, -500, 2000),
        "dense_share": share(850, 1201),
        # Bone alone thins out from 300 HU on; a heap higher up is water that was not shifted.
        "dense_peak_hu": _peak(counts, 300, 2000),
    }


def _peak(counts: NDArray[np.int64], start: int, stop: int) -> float:
    """The HU that occurs most, counts smoothed over 15 HU."""
    part = np.convolve(counts[start + _LOWEST : stop + _LOWEST], np.ones(15), "same")
    return float(start + int(part.argmax()))


def _of_sample(sample_XYZ: NDArray[Any], spacing_mm: Spacing) -> dict[str, float]:
    solid = sample_XYZ > -300
    body = largest_part(solid)
    inside = int(body.sum())
    return {
        "body_share": inside / body.size,
        "table_share": 1 - inside / max(1, int(solid.sum())),
        **orientation(sample_XYZ, body, spacing_mm=spacing_mm),
    }


def largest_part(solid_XYZ: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a small volume."""
    parts = _label_parts(solid_XYZ)
    sizes = np.bincount(parts.ravel())
    if sizes.size < 2:
        return np.zeros_like(solid_XYZ)
    return np.asarray(parts == 1 + int(sizes[1:].argmax()))


@compiled
def _label_parts(solid_XYZ: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Connected parts, through faces, numbered from 1."""
    nx, ny, nz = solid_XYZ.shape
    parts = np.zeros((nx, ny, nz), np.int32)
    stack = np.empty((solid_XYZ.size, 3), np.int32)
    number = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not solid_XYZ[x, y, z] or parts[x, y, z] != 0:
                    continue
                number += 1
                parts[x, y, z] = number
                stack[0, 0], stack[0, 1], stack[0, 2] = x, y, z
                waiting = 1
                while waiting > 0:
                    waiting -= 1
                    at_x, at_y, at_z = stack[waiting, 0], stack[waiting, 1], stack[waiting, 2]
                    for axis in range(3):
                        for sign in (-1, 1):
                            i = at_x + (sign if axis == 0 else 0)
                            j = at_y + (sign if axis == 1 else 0)
                            k = at_z + (sign if axis == 2 else 0)
                            if not (0 <= i < nx and 0 <= j < ny and 0 <= k < nz):
                                continue
                            if solid_XYZ[i, j, k] and parts[i, j, k] == 0:
                                parts[i, j, k] = number
                                stack[waiting, 0], stack[waiting, 1] = i, j
                                stack[waiting, 2] = k
                                waiting += 1
    return parts
