"""One scan in, one processed result out: read, orient, resample, crop, measure.

No store, no ledger, no scheduler: a pure function of the files and the preset. Whatever is wrong
with a scan leaves as a `VocoDataError` whose `code` is its reason for `excluded.parquet`; the
limits are in vocodata/refusals.py.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

import contextlib
import errno
import math
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import TYPE_CHECKING

import numpy as np

from vocodata.archives import unpacked
from vocodata.census import take_census
from vocodata.errors import (
    DiskFullError,
    GeometryError,
    StoreError,
    UnreadableScanError,
    VocoDataError,
)
from vocodata.fingerprint import fingerprint, voxel_digest
from vocodata.foreground import crop, foreground_box
from vocodata.geometry import Box, Size, Spacing, Volume, orient_ras
from vocodata.hu_statistics import ScanStats as ScanStats
from vocodata.hu_statistics import statistics_of, value_counts
from vocodata.hu_steps import in_steps
from vocodata.memory import peak_bytes
from vocodata.quality import failed_checks, measure
from vocodata.readers import read_header, read_labels, read_volume
from vocodata.refusals import (
    refuse_by_policy,
    refuse_implausible_grid,
    refuse_implausible_values,
    refuse_other_grid,
    refuse_small_foreground,
    refuse_too_large,
)
from vocodata.resampling import grid_after, resample, resize
from vocodata.resampling_kernels import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vocodata.discover import Scan
    from vocodata.geometry import Header
    from vocodata.presets import Preset

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, eq=False)
class ProcessedScan:
    """A scan ready to be stored.

    Attributes:
        hu: int16 HU in RAS, resampled to the preset's spacing, cropped to the foreground.
        labels: uint8 or uint16 on the same grid, or None.
        field: int16 HU, the crop squeezed to the preset's `squeeze_vox`, or None.
        stats: Of `hu`.
        fingerprint: Small text that stays alike for near-duplicates (vocodata/fingerprint.py).
        source_shape_XYZ: Voxels of the file, put straight, along its RAS-ordered axes.
        source_spacing_mm: Spacing of the file along its RAS-ordered axes, mm.
        source_digest: Of the file's voxels in RAS order, whatever file held them (`voxel_digest`).
        flags: Short words on what a reader should know: `straightened` (slices leaned, as from a
            tilted gantry), `rounded_hu` (HU were not whole), `clipped_hu` (some did not fit
            int16), and the checks of vocodata/quality.py that the file does not pass.
        quality: What those checks measured, and `tilt_degrees` of a straightened scan.
        step_hu: HU are multiples of this (vocodata/hu_steps.py); 1 if none is lost.
    """

    hu: Volume
    labels: Volume | None
    field: Volume | None
    stats: ScanStats
    fingerprint: str
    source_shape_XYZ: Size  # noqa: N815 (shape letters)
    source_spacing_mm: Spacing
    source_digest: str
    flags: tuple[str, ...] = ()
    quality: Mapping[str, float] = with_default(default_factory=dict)
    step_hu: int = 1


def process_scan(
    scan: Scan,
    preset: Preset,
    *,
    scratch: Path | None = None,
    room_bytes: int | None = None,
    step_hu: int = 1,
) -> ProcessedScan:
    """Read one scan and bring it onto its preset's grid.

    Args:
        scan: Where the files are.
        preset: The grid and the foreground threshold.
        scratch: Folder to make, unpack a scan of an archive in, and remove; None chooses one.
        room_bytes: Memory that the scan may take, or None if that is of no concern.
        step_hu: HU and field become multiples of this; one of `hu_steps.STEPS_HU`.

    Returns:
        HU, labels and field in RAS, with what the catalogue records of them.

    Raises:
        VocoDataError: Anything that keeps the scan out, its `code` the reason, its sentence
            starting with the scan's id.
        DiskFullError: No room for what is written beside it; no fault of the scan.
    """
    try:
        with unpacked(scan, scratch=scratch) as files:
            return _process(files, preset, room_bytes, step_hu)
    except StoreError:
        raise
    except VocoDataError as error:
        raise error.named(scan.id) from error
    except FileNotFoundError as error:
        # Where an archive was unpacked to is nobody's business; below, too.
        where = scan.image if scan.packed else error.filename
        msg = f"{scan.id}: {where} is not there any more."
        raise UnreadableScanError(msg, code="file_missing") from error
    except OSError as error:
        if error.errno in _FULL:
            # No fault of the scan: something beside it is written, such as what is unpacked.
            msg = f"No room to process {scan.id}: {error.strerror}. Make room, and resume."
            raise DiskFullError(msg) from error
        where = scan.image if scan.packed else error.filename or scan.image
        msg = f"{scan.id}: {where} cannot be read ({error.strerror or error})."
        raise UnreadableScanError(msg, code="unreadable") from error


def _process(scan: Scan, preset: Preset, room_bytes: int | None, step_hu: int) -> ProcessedScan:
    header = read_header(scan.image, files=scan.files)
    refuse_implausible_grid(header, preset)
    if room_bytes is not None:
        refuse_too_large(predicted_bytes(scan, header, preset), room_bytes)
    source = orient_ras(read_volume(scan.image, files=scan.files))
    census = take_census(source)
    refuse_implausible_values(source, census)
    quality = measure(source, census)
    failed = refuse_by_policy(scan, failed_checks(quality, preset.quality))
    fingerprint_text = fingerprint(source, census)
    digest, source_shape, source_spacing = voxel_digest(source), source.shape_XYZ, source.spacing_mm
    source_affine, is_whole = source.affine, source.data_XYZ.dtype == np.int16
    on_grid = resample(source, preset.spacing_mm)
    # What is not needed any more goes first: of floats, rounded ones lie beside it.
    del source
    hu, clipped = _as_int16(on_grid)
    del on_grid
    box = _foreground(hu, preset)
    hu = crop(hu, box)
    labels = None
    if scan.labels is not None:
        on_grid = _labels_on(scan, source_shape, source_affine)
        labels = crop(resample(on_grid, preset.spacing_mm, interpolation="nearest"), box)
    # Box and field come from all HU: a field is as near to what it would be as the scan is.
    field = None if preset.squeeze_vox is None else resize(hu, preset.squeeze_vox)
    hu = in_steps(hu, step_hu)
    changed = {
        "straightened": header.tilt_degrees > 0,
        "rounded_hu": not is_whole,
        "clipped_hu": clipped > 0,
    }
    if header.tilt_degrees:
        quality |= {"tilt_degrees": round(header.tilt_degrees, 2)}
    return ProcessedScan(
        hu=hu,
        labels=labels,
        field=None if field is None else in_steps(field, step_hu),
        stats=scan_stats(hu),
        fingerprint=fingerprint_text,
        source_shape_XYZ=source_shape,
        source_spacing_mm=source_spacing,
        source_digest=digest,
        flags=(*(flag for flag, is_so in changed.items() if is_so), *failed),
        quality=quality,
        step_hu=step_hu,
    )


def scan_stats(hu: Volume) -> ScanStats:
    """Statistics of int16 HU, exact, from one histogram."""
    return statistics_of(value_counts(hu.data_XYZ.transpose(2, 1, 0)))


def predicted_bytes(scan: Scan, header: Header, preset: Preset) -> int:
    """Most memory that a scan takes at once, from its header and that of its labels."""
    grid = grid_after(header.shape_XYZ, header.affine, preset.spacing_mm)
    squeeze = 0 if preset.squeeze_vox is None else math.prod(preset.squeeze_vox)
    labels = None
    if scan.labels is not None:
        # Labels that cannot be read are told later, by their own reason.
        with contextlib.suppress(VocoDataError):
            labels = read_header(scan.labels)
    return peak_bytes(header, math.prod(grid), labels=labels, field_voxels=squeeze)


def _as_int16(volume: Volume) -> tuple[Volume, int]:
    """Rounded half up and clipped to int16, and how many voxels were clipped."""
    if volume.data_XYZ.dtype == np.int16:
        return volume, 0
    data_ZYX = volume.data_XYZ.transpose(2, 1, 0)
    whole_ZYX = np.empty(data_ZYX.shape, np.int16)
    clipped = _round(data_ZYX, whole_ZYX)
    return Volume(whole_ZYX.transpose(2, 1, 0), volume.affine), int(clipped)


def _foreground(hu: Volume, preset: Preset) -> Box:
    if preset.foreground_above_hu is None:
        return Box(Size(0, 0, 0), hu.shape_XYZ)
    box = foreground_box(hu, preset.foreground_above_hu)
    refuse_small_foreground(box, preset.foreground_above_hu)
    return box


def _labels_on(scan: Scan, shape_XYZ: Size, affine: NDArray[np.float64]) -> Volume:
    """The scan's labels in RAS, if they lie on its grid; they take the scan's affine."""
    assert scan.labels is not None
    try:
        labels = orient_ras(read_labels(scan.labels))
    except (UnreadableScanError, GeometryError) as error:
        codes = {"file_missing": "labels_missing", "labels_not_integers": "labels_not_integers"}
        msg = f"Labels cannot be read: {error.detail}"
        raise UnreadableScanError(msg, code=codes.get(error.code, "labels_unreadable")) from error
    refuse_other_grid(labels, shape_XYZ, affine)
    return Volume(labels.data_XYZ, affine)


@compiled
def _round(data_ZYX: NDArray[np.float32], whole_ZYX: NDArray[np.int16]) -> int:
    """Fill `whole_ZYX`; how many values did not fit."""
    clipped = 0
    low, high, half = np.float32(-32768), np.float32(32767), np.float32(0.5)
    for z in range(data_ZYX.shape[0]):
        for y in range(data_ZYX.shape[1]):
            for x in range(data_ZYX.shape[2]):
                value = data_ZYX[z, y, x]
                clipped += (value < low) | (value > high)
                whole_ZYX[z, y, x] = np.int16(min(max(np.floor(value + half), low), high))
    return clipped
