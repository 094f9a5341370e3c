"""MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr), by SimpleITK.

SimpleITK speaks LPS; the affine here is RAS, so x and y change sign.

Shape letters: X Y Z voxels as stored.
"""

from __future__ import annotations

import math
import re
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
from vocodata.readers.hounsfield import as_hu, as_labels, hu_dtype_of, stored_ends
from vocodata.readers.inflate import MAX_REST_BYTES, native, refuse_too_short
from vocodata.readers.itk_header import (
    META_SUFFIXES,
    read_text_header,
    refuse_guessed_geometry,
    refuse_scaling,
)

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
    return Volume(as_hu(voxels, may_overwrite=True), affine)


def read_labels(path: Path) -> Volume:
    """Labels of an MHA, MHD or NRRD file, axes as stored."""
    voxels, affine = _read(path)
    return Volume(as_labels(voxels), affine)


def read_header(path: Path) -> Header:
    """Size and place of an MHA, MHD or NRRD file, no voxels read."""
    text = read_text_header(path)
    missing = next((name for name in text.data_names if not _is_file(path.parent / name)), None)
    if missing is not None:
        msg = (
            f"{path.name} says that its voxels lie in {missing}, which is not there; expected it "
            "beside the header. Fetch it."
        )
        raise UnreadableScanError(msg, code="file_missing")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    _guarded(reader.ReadImageInformation, path)
    if reader.GetDimension() < 3 or any(n != 1 for n in reader.GetSize()[3:]):
        msg = (
            f"{path.name} has axes {tuple(reader.GetSize())}; expected three (x, y, z). "
            "Choose one time point or channel."
        )
        raise UnreadableScanError(msg, code="not_three_dimensional")
    if min(reader.GetSize()) < 1:
        msg = f"{path.name} has axes {tuple(reader.GetSize())}; expected counts above 0."
        raise UnreadableScanError(msg, code="corrupt_header")
    if reader.GetPixelIDValue() not in _DTYPES:
        kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
        msg = f"{path.name} holds voxels of kind {kind}; expected one integer or float each."
        raise UnreadableScanError(msg, code="unsupported_dtype")
    # SimpleITK turns RAS and LAS into this one, and takes any other for it.
    if path.suffix.lower() not in META_SUFFIXES and (
        not reader.HasMetaDataKey("NRRD_space")
        or reader.GetMetaData("NRRD_space") != "left-posterior-superior"
    ):
        msg = (
            f"{path.name} has no field `space` that says LPS, RAS or LAS, so left and right are "
            "unknown. Write the orientation into its header, or leave the scan out."
        )
        raise GeometryError(msg, code="no_geometry")
    refuse_guessed_geometry(text, path)
    refuse_scaling(text, path)
    refuse_negative_spacing(reader.GetSpacing()[:3], path.name)
    dimension = reader.GetDimension()
    directions = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(reader.GetSpacing()[:3])
    affine[:3, 3] = reader.GetOrigin()[:3]
    dtype = np.dtype(_DTYPES[reader.GetPixelIDValue()])
    hu_dtype = hu_dtype_of(stored_ends(dtype), 1.0, 0.0)
    # SimpleITK's image and a copy of it; then HU, in the copy's place where they are no wider.
    beside = 2 if dtype.itemsize >= hu_dtype.itemsize else hu_dtype.itemsize
    return Header(
        Size(*reader.GetSize()[:3]),
        checked_affine(_LPS_TO_RAS @ affine),
        dtype,
        hu_dtype=hu_dtype,
        read_bytes=dtype.itemsize + max(dtype.itemsize, beside),
    )


def _read(path: Path) -> tuple[NDArray[Any], Affine]:
    header, text = read_header(path), read_text_header(path)
    needed = math.prod(header.shape_XYZ) * header.dtype.itemsize
    files = [path.parent / name for name in text.data_names]
    most = sum(file.stat().st_size for file in files) if files else path.stat().st_size - text.end
    refuse_too_short(path, needed, most=most, is_deflated=not text.is_raw)
    if text.is_zlib:
        start = 0 if files else text.end
        raw = _inflated(files or [path], start, needed)
        voxels_ZYX = native(np.frombuffer(raw, header.dtype.newbyteorder(text.byte_order)))
    else:
        voxels_ZYX = sitk.GetArrayFromImage(_guarded(lambda: sitk.ReadImage(str(path)), path))
    return voxels_ZYX.reshape(header.shape_XYZ[::-1]).transpose(2, 1, 0), header.affine


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name longer than any can be.
        return False


def _guarded(read: Any, path: Path) -> Any:  # noqa: ANN401 (SimpleITK is untyped)
    """Call SimpleITK; turn its RuntimeError into ours, with a code."""
    try:
        return read()
    except RuntimeError as error:
        whole = " ".join(str(error).split())
        # The last of a chain is where it began; in front is where in SimpleITK's own source.
        sentence = re.split(r"\[nrrd\]|(?i:error:)", whole)[-1].strip()[-300:]
        msg = f"{path.name} cannot be read: {sentence} Fetch or write the file again."
        code = "corrupt_header"
        if "_nrrdGzRead" in whole:
            code = "corrupt_gzip"
        if "expected" in whole and ("received" in whole or "got only" in whole):
            code = "truncated_file"
        raise UnreadableScanError(msg, code=code) from error


def _inflated(files: list[Path], start: int, needed: int) -> bytearray:
    """Voxels that zlib packed, each file's stream proved by its checksum.

    SimpleITK gives what lay in its memory, without a word, where a stream is damaged, too short, or
    of a length that the header does not say.

    Args:
        files: In order.
        start: Where the stream begins in each, bytes.
        needed: Bytes of the voxels.
    """
    voxels, filled = bytearray(needed), 0
    for path in files:
        inflater = zlib.decompressobj()
        with path.open("rb") as file:
            file.seek(start)
            try:
                while not inflater.eof and (
                    data := inflater.unconsumed_tail or file.read(_CHUNK_BYTES)
                ):
                    piece = inflater.decompress(data, _CHUNK_BYTES)
                    voxels[filled : filled + len(piece)] = piece[: max(0, needed - filled)]
                    filled += len(piece)
                    _refuse_overlong(path, filled - needed)
            except zlib.error as error:
                msg = f"The compressed voxels of {path.name} are damaged ({error}). Fetch it again."
                raise UnreadableScanError(msg, code="corrupt_gzip") from error
        if not inflater.eof:
            msg = f"The compressed voxels of {path.name} end too early. Fetch the file again."
            raise UnreadableScanError(msg, code="truncated_gzip")
    if filled < needed:
        msg = (
            f"{files[0].name} holds {filled} bytes of voxels; its header promises {needed}. "
            "Fetch the file again."
        )
        raise UnreadableScanError(msg, code="truncated_file")
    return voxels


def _refuse_overlong(path: Path, rest: int) -> None:
    if rest > MAX_REST_BYTES:
        msg = (
            f"The compressed voxels of {path.name} go on for more than {MAX_REST_BYTES} bytes "
            "after those of the header; expected their end. Leave the scan out."
        )
        raise UnreadableScanError(msg, code="overlong_gzip")
