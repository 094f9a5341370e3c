"""DICOM headers as slices: one entry an image plane, whether it has its own file or is a frame.

Nothing that names a patient is kept: of a header, only geometry, scaling, the series' UID, which
tells series apart and goes no further than that, and whether two slices are of one patient, as a
number that means nothing outside this process.
"""

from __future__ import annotations

import secrets
import struct
import warnings
import zlib
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from vocodata.errors import ImplausibleScanError, UnreadableScanError, VocoDataError
from vocodata.readers.dicom_signs import HEAD_BYTES, is_bare, is_dicom
from vocodata.readers.dicom_values import holder_of, number_or_none, numbers, stored_ends
from vocodata.readers.hounsfield import hu_dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

# pydicom warns with the values of headers, which may name a patient, and a log may be kept.
warnings.filterwarnings("ignore", module=r"pydicom\.")
_PATIENT_KEY = secrets.token_bytes(32)
_TAGS = [
    "SOPClassUID", "PatientName", "PatientID", "SeriesInstanceUID", "Modality", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PixelSpacing",
    "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "GantryDetectorTilt", "ConvolutionKernel", "CTAcquisitionDetailsSequence",
    "CTReconstructionSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_HU_TYPES = {"", "HU", "US", "HU_MOD"}
DAMAGE = (
    InvalidDicomError, BytesLengthException, EOFError, OSError, ValueError, KeyError, TypeError,
    AttributeError, NotImplementedError, struct.error, zlib.error, RecursionError, OverflowError,
    IndexError,
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Header of one image plane; positions in LPS mm as DICOM has them.

    Attributes:
        path: Its file.
        frame: Its number in the file, or None for a file of one plane.
        series: SeriesInstanceUID.
        rows: Pixels down a column.
        columns: Pixels along a row.
        spacing_mm: Between rows, between columns.
        orientation: Direction of a row, then of a column.
        position_mm: Centre of the first pixel.
        slope: HU per stored step.
        intercept: HU of a stored 0.
        patient: A number for the patient: hashed with a key that is drawn anew in each process.
        tilt_degrees: What the header says of the gantry; None if it says nothing.
        kernel: What it was reconstructed with; "" if the header says nothing.
        may_be_float: Whether HU may not be whole, or not fit int16.
    """

    path: Path
    frame: int | None
    series: str
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    orientation: tuple[float, ...]
    position_mm: NDArray[np.float64]
    slope: float
    intercept: float
    patient: int
    tilt_degrees: float | None = None
    kernel: str = ""
    may_be_float: bool = False


def _kind(dataset: Any) -> str:  # noqa: ANN401 (pydicom's fields are dynamic)
    """What the file says it is: a SOP class."""
    return str(dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID") or "")


def is_image(dataset: Any) -> bool:  # noqa: ANN401 (pydicom's fields are dynamic)
    """Whether it may be an image; doses and segmentations have rows and columns, too."""
    kind = _kind(dataset)
    return not kind or UID(kind).name == kind or "Image Storage" in UID(kind).name


def read_dataset(path: Path, **options: Any) -> Any:  # noqa: ANN401 (handed on to pydicom)
    """A DICOM file, as pydicom reads it.

    Raises:
        UnreadableScanError: `corrupt_dicom`.
    """
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
        if not is_dicom(start):
            msg = (
                f"{path.name} does not start as a DICOM file; expected a slice of the series, as "
                "its name says. Fetch it again, or move it elsewhere."
            )
            raise UnreadableScanError(msg, code="corrupt_dicom")
        file.seek(0)
        try:
            dataset = pydicom.dcmread(file, force=is_bare(start), **options)
        except PermissionError:
            raise
        except DAMAGE as error:
            msg = f"{path.name} is a damaged DICOM file ({error}). Fetch it again."
            raise UnreadableScanError(msg, code="corrupt_dicom") from error
    if is_bare(start) and "TransferSyntaxUID" not in dataset.file_meta:
        # Only uncompressed files were ever written without saying how.
        is_implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def read_slices(path: Path) -> list[Slice]:
    """The image planes of one DICOM file; none if it is no image.

    Raises:
        UnreadableScanError: Damaged, or without an attribute that is needed (`corrupt_dicom`), or
            of a kind that is not read (`unsupported_dicom`).
        ImplausibleScanError: `not_ct`, `localizer` or `not_hu`.
    """
    dataset = read_dataset(path, specific_tags=_TAGS, stop_before_pixels=True)
    # Values are parsed when they are asked for.
    try:
        if not is_image(dataset):
            return []
        if "Rows" in dataset:
            return list(_slices(path, dataset))
        is_cut = _kind(dataset) == CTImageStorage
    except VocoDataError:
        raise
    except DAMAGE as error:
        msg = f"{path.name}: {error}; a CT slice needs it. Repair the series, or leave it out."
        raise UnreadableScanError(msg, code="corrupt_dicom") from error
    if is_cut:
        msg = f"{path.name} is a CT slice that ends before its pixels. Fetch it again."
        raise UnreadableScanError(msg, code="corrupt_dicom")
    return []


def _slices(path: Path, dataset: Any) -> Iterator[Slice]:  # noqa: ANN401 (pydicom's fields are dynamic)
    _refuse_not_ct(path, dataset)
    _refuse_shifted_bits(path, dataset)
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if samples != 1 or (frames != 1 and groups is None):
        msg = (
            f"{path.name} has {frames} frames of {samples} samples a pixel; expected slices of "
            "one, or an enhanced CT. Convert the scan to NIfTI with a tool that knows its kind."
        )
        raise UnreadableScanError(msg, code="unsupported_dicom")
    if groups is None:
        yield _slice(path, None, dataset, lambda _: dataset)
        return
    if len(groups) != frames:
        msg = (
            f"{path.name} describes {len(groups)} of {frames} frames; expected all. Fetch it again."
        )
        raise UnreadableScanError(msg, code="corrupt_dicom")
    shared = dataset.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    for frame, group in enumerate(groups):
        yield _slice(path, frame, dataset, holder_of(dataset, group, shared[0]))


def _slice(path: Path, frame: int | None, dataset: Any, holder: Callable[[str], Any]) -> Slice:  # noqa: ANN401 (pydicom)
    kind = str(holder("RescaleType").get("RescaleType") or "")
    if kind.upper() not in _HU_TYPES:
        msg = f"{path.name} is scaled to {kind}; expected HU. Leave the series out."
        raise ImplausibleScanError(msg, code="not_hu")
    spacing = numbers(holder, "PixelSpacing", 2)
    (slope,), (intercept,) = (
        numbers(holder, f"Rescale{which}", 1) for which in ("Slope", "Intercept")
    )
    hu_dtype = hu_dtype_of(stored_ends(dataset), slope, intercept)
    return Slice(
        path=path,
        frame=frame,
        series=str(dataset.SeriesInstanceUID),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        spacing_mm=(spacing[0], spacing[1]),
        orientation=numbers(holder, "ImageOrientationPatient", 6),
        position_mm=np.array(numbers(holder, "ImagePositionPatient", 3)),
        slope=slope,
        intercept=intercept,
        patient=_patient_number(dataset),
        tilt_degrees=number_or_none(holder, "GantryDetectorTilt"),
        kernel=str(holder("ConvolutionKernel").get("ConvolutionKernel") or ""),
        may_be_float=hu_dtype == np.float32,
    )


def _refuse_not_ct(path: Path, dataset: Any) -> None:  # noqa: ANN401 (pydicom)
    modality = str(dataset.get("Modality", "missing"))
    if modality != "CT":
        msg = f"{path.name} has modality {modality[:16]}; expected CT. Leave the series out."
        raise ImplausibleScanError(msg, code="not_ct")
    words = dataset.get("ImageType") or []
    words = [words] if isinstance(words, str) else words
    if "LOCALIZER" in [str(word).upper() for word in words]:
        msg = f"{path.name} is a localizer (scout) image; expected axial slices. Leave it out."
        raise ImplausibleScanError(msg, code="localizer")


def _refuse_shifted_bits(path: Path, dataset: Any) -> None:  # noqa: ANN401 (pydicom's fields are dynamic)
    """DICOM once let values begin above the lowest bit; decoders differ on what that means."""
    stored, high = dataset.get("BitsStored"), dataset.get("HighBit")
    if stored is not None and high is not None and int(high) != int(stored) - 1:
        msg = (
            f"{path.name} stores {stored} bits up to bit {high}; expected them to end at bit "
            f"{int(stored) - 1}. Repair the series, or leave it out."
        )
        raise UnreadableScanError(msg, code="unsupported_dicom")


def _patient_number(dataset: Any) -> int:  # noqa: ANN401 (pydicom)
    words = str(dataset.get("PatientID") or dataset.get("PatientName") or "").strip()
    return int.from_bytes(blake2b(words.encode(), digest_size=8, key=_PATIENT_KEY).digest(), "big")
