"""What keeps a scan out: limits, and the functions that raise where a scan is beyond them.

Pure functions of what was read; each refusal carries its reason for `excluded.parquet` as `code`
and says what was expected, what came and what to do. Who calls them knows the scan's name.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import GeometryError, ImplausibleScanError, NotEnoughMemoryError
from vocodata.quality import CHECKS, policy_of
from vocodata.resampling import grid_after

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.census import Census
    from vocodata.discover import Scan
    from vocodata.geometry import Box, Header, Size, Volume
    from vocodata.presets import Preset

SPACING_LIMITS_MM = (0.05, 20.0)
"""A CT voxel's sides: below are micro-CT, above are broken headers."""
MIN_SIDE_VOX = 8
"""Fewer voxels than this along an axis of the stored grid are no volume to learn from."""
MAX_VOXELS = 2**31
"""Of the file and of the stored grid: 2048 x 2048 x 512."""
MIN_HU_RANGE = 100.0
"""Air, fat and soft tissue span more; a scan scaled to 0..1 spans less."""
MAX_CLIPPED_SHARE = 0.001
"""Share of voxels that int16 may clip (metal); more means that the values are not HU."""
_INT16 = np.iinfo(np.int16)
# Labels may be this share of a voxel away from the scan's grid; headers are rounded.
_GRID_TOLERANCE = 0.1


def refuse_implausible_grid(header: Header, preset: Preset) -> None:
    """Raise if the header tells of no CT, or of one too large or too small; nothing is read yet."""
    low, high = SPACING_LIMITS_MM
    for axis, length in zip("xyz", header.spacing_mm, strict=True):
        if not low <= length <= high:
            msg = (
                f"Spacing is {length:g} mm along {axis}; expected {low:g} to {high:g} mm. "
                "Repair the header, or leave the scan out."
            )
            raise GeometryError(msg, code="implausible_spacing")
    grid = grid_after(header.shape_XYZ, header.affine, preset.spacing_mm)
    for what, size in (("file", header.shape_XYZ), (f"grid of preset '{preset.name}'", grid)):
        if int(np.prod(size, dtype=np.int64)) > MAX_VOXELS:
            msg = f"The {what} has {tuple(size)} voxels; expected at most 2^31. Cut the scan first."
            raise ImplausibleScanError(msg, code="implausible_size")
    if min(grid) < MIN_SIDE_VOX:
        msg = (
            f"At the spacing of preset '{preset.name}' the scan has {tuple(grid)} voxels; expected "
            f"at least {MIN_SIDE_VOX} along each axis. Choose another preset, or leave it out."
        )
        raise ImplausibleScanError(msg, code="implausible_size")


def refuse_too_large(needed_bytes: int, room_bytes: int) -> None:
    """Raise if there is no room for a scan; the error says for how much (`needed_bytes`)."""
    if needed_bytes > room_bytes:
        msg = (
            f"Processing takes up to {needed_bytes / 1e9:.2f} GB of memory, as the header says; "
            f"there is room for {room_bytes / 1e9:.2f} GB. Use fewer --workers or a larger machine."
        )
        error = NotEnoughMemoryError(msg)
        error.needed_bytes = needed_bytes
        raise error


def refuse_by_policy(scan: Scan, failed: tuple[str, ...]) -> tuple[str, ...]:
    """The checks that become flags, if none of those failed keeps the scan out."""
    for check in failed:
        if policy_of(check, scan.quality) == "exclude":
            msg = f"{CHECKS[check][1]} The manifest's key quality can say '{check}: flag' instead."
            raise ImplausibleScanError(msg, code=check)
    return tuple(check for check in failed if policy_of(check, scan.quality) == "flag")


def refuse_implausible_values(source: Volume, census: Census) -> None:
    """Raise if the values cannot be HU at all."""
    low, high = census.lowest_hu, census.highest_hu
    if low == high:
        msg = f"All voxels are {low:g}; expected a CT. Fetch the scan again, or leave it out."
        raise ImplausibleScanError(msg, code="constant_volume")
    if high - low < MIN_HU_RANGE:
        msg = (
            f"Values run from {low:g} to {high:g}; expected HU, which span more than "
            f"{MIN_HU_RANGE:g}. Was the scan normalised? Use the original."
        )
        raise ImplausibleScanError(msg, code="implausible_hu")
    if _INT16.min <= low and high <= _INT16.max:
        return
    outside = np.count_nonzero((source.data_XYZ < _INT16.min) | (source.data_XYZ > _INT16.max))
    if outside > MAX_CLIPPED_SHARE * source.data_XYZ.size:
        msg = (
            f"{outside} of {source.data_XYZ.size} voxels lie outside -32768..32767 "
            f"(values run from {low:g} to {high:g}); expected HU. "
            "Repair the scan's scaling, or leave it out."
        )
        raise ImplausibleScanError(msg, code="implausible_hu")


def refuse_small_foreground(box: Box, above_hu: float) -> None:
    """Raise unless the box of the voxels above a threshold is a volume to learn from."""
    if min(box.size) < MIN_SIDE_VOX:
        msg = (
            f"The box above {above_hu:g} HU has {tuple(box.size)} voxels; "
            f"expected at least {MIN_SIDE_VOX} along each axis. Is there a patient in the scan?"
        )
        raise ImplausibleScanError(msg, code="empty_foreground")


def refuse_other_grid(labels: Volume, shape_XYZ: Size, affine: NDArray[np.float64]) -> None:
    """Raise unless labels lie on the grid of their scan, both in RAS."""
    if labels.shape_XYZ != shape_XYZ:
        msg = (
            f"Labels have {tuple(labels.shape_XYZ)} voxels, the scan {tuple(shape_XYZ)} (in RAS); "
            "expected the same grid. Resample the labels onto the scan, or leave them out."
        )
        raise GeometryError(msg, code="label_grid_mismatch")
    apart_mm = _corners_apart_mm(labels.affine, affine, shape_XYZ)
    limit_mm = _GRID_TOLERANCE * min(labels.spacing_mm)
    if apart_mm > limit_mm:
        msg = (
            f"Labels lie up to {apart_mm:.2f} mm from the scan's grid; expected at most "
            f"{limit_mm:.2f} mm. Repair the header of the labels, or leave them out."
        )
        raise GeometryError(msg, code="label_grid_mismatch")


def _corners_apart_mm(one: NDArray[Any], other: NDArray[Any], shape_XYZ: Size) -> float:
    """Largest distance between the corners of two grids of one size, mm."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape_XYZ], [1], indexing="ij")).reshape(
        4, 8
    )
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
