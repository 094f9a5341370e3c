"""NIfTI-1 and NIfTI-2, single file, plain or gzip.

The header's sform is taken if it is set, else the qform; a file with neither says nothing about
left and right, and is refused. Units of metres or microns are turned to mm, as the format says.

Shape letters: X Y Z voxels as stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from vocodata.errors import GeometryError, UnreadableScanError
from vocodata.geometry import (
    Affine,
    Header,
    Size,
    Volume,
    checked_affine,
    refuse_negative_spacing,
)
from vocodata.readers.hounsfield import as_hu, as_labels, hu_dtype_of, stored_ends
from vocodata.readers.inflate import is_gzip, read_array, read_start

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_MAGIC_AT = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}
# Extensions of the header come before the voxels; the largest seen have about a megabyte.
_MAX_OFFSET = 1 << 26
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


@dataclass(frozen=True)
class _NiftiHeader:
    header: Header
    offset: int
    slope: float
    intercept: float


def read_volume(path: Path) -> Volume:
    """HU of a NIfTI file, axes as stored."""
    nifti = _read_header(path)
    stored = _voxels(path, nifti)
    hu = as_hu(stored, slope=nifti.slope, intercept=nifti.intercept, may_overwrite=True)
    return Volume(hu, nifti.header.affine)


def read_labels(path: Path) -> Volume:
    """Labels of a NIfTI file, axes as stored."""
    nifti = _read_header(path)
    labels = as_labels(_voxels(path, nifti), slope=nifti.slope, intercept=nifti.intercept)
    return Volume(labels, nifti.header.affine)


def read_header(path: Path) -> Header:
    """Size and place of a NIfTI file; at most its first kilobytes are read."""
    return _read_header(path).header


def _voxels(path: Path, nifti: _NiftiHeader) -> NDArray[Any]:
    """Stored voxels (X, Y, Z), x fastest in memory as in the file."""
    shape = nifti.header.shape_XYZ
    flat = read_array(
        path,
        offset=nifti.offset,
        dtype=nifti.header.dtype,
        count=math.prod(shape),
        room_bytes=math.prod(shape) * nifti.header.hu_dtype.itemsize,
    )
    return flat.reshape(shape, order="F")


def _read_header(path: Path) -> _NiftiHeader:
    if path.name.lower().endswith(".gz") != is_gzip(path):
        is_not = "is not gzip though its name ends in .gz" if path.suffix == ".gz" else "is gzip"
        msg = f"{path.name} {is_not}; expected name and content to agree. Rename the file."
        raise UnreadableScanError(msg, code="wrong_magic")
    raw = _parsed(path)
    shape = _three_axes(raw, path)
    slope, intercept = _scaling(raw, path)
    dtype = _dtype(raw, path)
    hu_dtype = hu_dtype_of(stored_ends(dtype), slope, intercept)
    # int16 HU take the place of stored int16; else they lie beside it, floats then in its place.
    beside = 0 if dtype.itemsize == 2 == hu_dtype.itemsize and dtype.kind == "i" else 2
    header = Header(
        shape,
        checked_affine(_affine(raw, path)),
        dtype,
        hu_dtype=hu_dtype,
        read_bytes=max(dtype.itemsize + beside, hu_dtype.itemsize),
    )
    offset = _offset(raw, path)
    return _NiftiHeader(header, offset, slope, intercept)


def _offset(raw: Any, path: Path) -> int:  # noqa: ANN401 (nibabel is untyped)
    """Where the voxels begin; 0 means right behind the header."""
    offset, least = float(raw["vox_offset"]), int(raw.single_vox_offset)
    if offset == 0:
        return least
    if not least <= offset <= _MAX_OFFSET:
        msg = (
            f"{path.name} puts its voxels at byte {offset:g}; expected {least} to {_MAX_OFFSET}. "
            "The header is damaged."
        )
        raise UnreadableScanError(msg, code="corrupt_header")
    return int(offset)


def _parsed(path: Path) -> Any:  # noqa: ANN401 (nibabel is untyped)
    start = read_start(path, 540)
    kinds: Any = (nib.Nifti1Header, nib.Nifti2Header)
    for kind, order in product(kinds, "<>"):
        size = kind.sizeof_hdr
        at, magic = _MAGIC_AT[size]
        sizeof_hdr = int.from_bytes(start[:4], "little" if order == "<" else "big")
        if sizeof_hdr == size and len(start) >= size and start[at : at + len(magic)] == magic:
            return kind(start[:size], endianness=order, check=False)
    msg = (
        f"{path.name} does not start as a NIfTI file; expected the magic n+1 or n+2. "
        "Is it another format, or one half of a .hdr/.img pair?"
    )
    raise UnreadableScanError(msg, code="wrong_magic")


def _three_axes(raw: Any, path: Path) -> Size:  # noqa: ANN401 (nibabel is untyped)
    dim = [int(n) for n in raw["dim"]]
    if not 1 <= dim[0] <= 7 or any(n < 1 for n in dim[1 : dim[0] + 1]):
        msg = (
            f"{path.name} gives its axes as {dim}; expected counts above 0. The header is damaged."
        )
        raise UnreadableScanError(msg, code="corrupt_header")
    shape = tuple(dim[1 : dim[0] + 1])
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        msg = (
            f"{path.name} has {len(shape)} axes, {shape}; expected three (x, y, z), or more of "
            "length 1. Choose one time point or channel."
        )
        raise UnreadableScanError(msg, code="not_three_dimensional")
    return Size(*shape[:3])


def _dtype(raw: Any, path: Path) -> np.dtype[Any]:  # noqa: ANN401 (nibabel is untyped)
    try:
        dtype = np.dtype(raw.get_data_dtype())
    except (KeyError, nib.spatialimages.HeaderDataError) as error:
        msg = f"{path.name} has data type code {int(raw['datatype'])}, which NIfTI does not know."
        raise UnreadableScanError(msg, code="corrupt_header") from error
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        msg = (
            f"{path.name} holds voxels of kind {dtype}; expected integers or floats of at most "
            "64 bits. Is it an RGB or complex image?"
        )
        raise UnreadableScanError(msg, code="unsupported_dtype")
    in_file: np.dtype[Any] = dtype.newbyteorder(raw.endianness)
    return in_file


def _scaling(raw: Any, path: Path) -> tuple[float, float]:  # noqa: ANN401 (nibabel is untyped)
    """Slope and intercept; a slope of 0 means none, says the format."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or (np.isnan(slope) and np.isnan(intercept)):
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        msg = (
            f"{path.name}: scaling is slope {slope:g}, intercept {intercept:g}; expected finite "
            "numbers. The header is damaged."
        )
        raise UnreadableScanError(msg, code="corrupt_header")
    return slope, intercept


def _affine(raw: Any, path: Path) -> Affine:  # noqa: ANN401 (nibabel is untyped)
    if int(raw["sform_code"]) > 0:
        affine = raw.get_sform()
    elif int(raw["qform_code"]) > 0:
        affine = _qform(raw, path)
    else:
        msg = (
            f"{path.name} sets neither sform nor qform, so left and right are unknown. "
            "Write the orientation into its header, or leave the scan out."
        )
        raise GeometryError(msg, code="no_geometry")
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _MM_PER_UNIT.get(int(raw["xyzt_units"]) % 8, 1.0)
    return affine


def _qform(raw: Any, path: Path) -> Affine:  # noqa: ANN401 (nibabel is untyped)
    refuse_negative_spacing(raw["pixdim"][1:4].tolist(), path.name)
    for axis, length in zip("xyz", raw["pixdim"][1:4].tolist(), strict=True):
        if length == 0:
            msg = f"{path.name}: spacing is 0 mm along {axis}; expected more than 0."
            raise GeometryError(msg, code="zero_spacing")
    try:
        return np.asarray(raw.get_qform())
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        msg = f"{path.name}: the qform is not a rotation ({error}). Repair the header."
        raise GeometryError(msg, code="bad_affine") from error
