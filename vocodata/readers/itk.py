"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), by SimpleITK.

SimpleITK speaks LPS; the affine here is RAS, so x and y change sign.

Shape letters: X Y Z voxels as stored.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK

from vocodata.errors import GeometryError, UnreadableScanError
from vocodata.geometry import (
    Affine,
    Header,
    Size,
    Volume,
    checked_affine,
    refuse_negative_spacing,
)
from vocodata.readers.hounsfield import as_hu, as_labels
from vocodata.readers.inflate import refuse_too_short

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

sitk: Any = SimpleITK  # its classes carry no types
_DTYPES = {
    sitk.sitkUInt8: "u1", sitk.sitkInt8: "i1", sitk.sitkUInt16: "u2", sitk.sitkInt16: "i2",
    sitk.sitkUInt32: "u4", sitk.sitkInt32: "i4", sitk.sitkUInt64: "u8", sitk.sitkInt64: "i8",
    sitk.sitkFloat32: "f4", sitk.sitkFloat64: "f8",
}  # fmt: skip
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CHUNK_BYTES = 1 << 20


def read_volume(path: Path) -> Volume:
    """HU of an MHA, MHD or NRRD file, axes as stored."""
    voxels, affine = _read(path)
    return Volume(as_hu(voxels), affine)


def read_labels(path: Path) -> Volume:
    """Labels of an MHA, MHD or NRRD file, axes as stored."""
    voxels, affine = _read(path)
    return Volume(as_labels(voxels), affine)


def read_header(path: Path) -> Header:
    """Size and place of an MHA, MHD or NRRD file, no voxels read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _guarded(reader.ReadImageInformation, path)
    if reader.GetDimension() < 3 or any(n != 1 for n in reader.GetSize()[3:]):
        msg = (
            f"{path.name} has axes {tuple(reader.GetSize())}; expected three (x, y, z). "
            "Choose one time point or channel."
        )
        raise UnreadableScanError(msg, code="not_three_dimensional")
    if reader.GetPixelIDValue() not in _DTYPES:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
        msg = f"{path.name} holds voxels of kind {kind}; expected one integer or float each."
        raise UnreadableScanError(msg, code="unsupported_dtype")
    if path.suffix.lower() in {".nrrd", ".nhdr"} and not reader.HasMetaDataKey("NRRD_space"):
        msg = (
            f"{path.name} has no `space` field, so left and right are unknown. "
            "Write the orientation into its header, or leave the scan out."
        )
        raise GeometryError(msg, code="no_geometry")
    refuse_negative_spacing(reader.GetSpacing()[:3], path.name)
    dimension = reader.GetDimension()
    directions = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    dtype = np.dtype(_DTYPES[reader.GetPixelIDValue()])
    return Header(Size(*reader.GetSize()[:3]), checked_affine(_LPS_TO_RAS @ affine), dtype)


def _read(path: Path) -> tuple[NDArray[Any], Affine]:
    header = read_header(path)
    files = [file for file in path.parent.iterdir() if file.stem == path.stem]
    on_disk = sum(file.stat().st_size for file in files if file.is_file())
    needed = math.prod(header.shape_XYZ) * header.dtype.itemsize
    refuse_too_short(path, needed, most=on_disk, is_deflated=True)
    _prove_voxels(path, needed)
    image = _guarded(lambda: sitk.ReadImage(str(path)), path)
    voxels_ZYX = sitk.GetArrayFromImage(image).reshape(header.shape_XYZ[::-1])
    return voxels_ZYX.transpose(2, 1, 0), header.affine


def _guarded(read: Any, path: Path) -> Any:  # noqa: ANN401 (SimpleITK is untyped)
    """Call SimpleITK; turn its RuntimeError into ours, with a code."""
    try:
        return read()
    except RuntimeError as error:
        sentence = " ".join(str(error).split("Error:")[-1].split())[-300:]
        short = "expected" in sentence and ("received" in sentence or "got only" in sentence)
        msg = f"{path.name} cannot be read: {sentence} Fetch or write the file again."
        code = "truncated_file" if short else "corrupt_header"
        raise UnreadableScanError(msg, code=code) from error


def _prove_voxels(path: Path, needed: int) -> None:
    """Check length, or checksum if compressed, of a MetaImage, which SimpleITK does not."""
    if path.suffix.lower() != ".mha":
        return
    with path.open("rb") as file:
        compressed = False
        for line in file:
            key, _, value = line.partition(b"=")
            if key.strip() == b"CompressedData":
                compressed = value.strip().lower() == b"true"
            if key.strip() == b"ElementDataFile":
                break
        if not compressed:
            left = path.stat().st_size - file.tell()
            refuse_too_short(path, needed, most=left, is_deflated=False)
            return
        inflater = zlib.decompressobj()
        try:
            while data := file.read(_CHUNK_BYTES):
                inflater.decompress(data)
        except zlib.error as error:
            msg = f"The compressed voxels of {path.name} are damaged ({error})."
            raise UnreadableScanError(msg, code="corrupt_gzip") from error
    if not inflater.eof:
        msg = f"The compressed voxels of {path.name} end too early. Fetch the file again."
        raise UnreadableScanError(msg, code="truncated_gzip")
