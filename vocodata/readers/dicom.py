"""A folder with one DICOM CT series, or with files of which one series is named.

Slices are put in order by their position along the slice normal. Positions are the truth:
SliceThickness and SpacingBetweenSlices are not looked at, file names and instance numbers neither.
What does not add up to one regular grid is refused with its own reason; nothing is guessed, filled
in or averaged. A stack that leans as a whole (a tilted gantry) keeps its leaning affine here; the
door of this package puts it straight. Files that are no DICOM image (a DICOMDIR, contours, reports,
text) are passed over. The frames of an enhanced (multi-frame) CT are slices like others.

Shape letters: X Y Z voxels; x along a row, y down a column, z along the slice normal.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.errors import GeometryError, UnreadableScanError
from vocodata.geometry import Header, Size, Volume, checked_affine, refuse_negative_spacing
from vocodata.readers.dicom_headers import Slice, read_slices
from vocodata.readers.dicom_pixels import Pixels
from vocodata.readers.dicom_signs import HEAD_BYTES, is_dicom, is_named_dicom, named_alike
from vocodata.readers.hounsfield import as_hu
from vocodata.straightening import MAX_TILT_DEGREES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from vocodata.geometry import Affine

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
TILT_TAG_TOLERANCE_DEGREES = 1.5
"""Between what a header says of the gantry and what its positions do; tags are whole degrees."""
# A slice may lie this many pixels beside the line of the others.
_BESIDE_LIMIT_VOX = 0.25
_ORIENTATION_TOLERANCE = 1e-4
# A slice may be this share of a gap away from its place on an even grid (positions are rounded).
_UNEVEN_LIMIT = 0.05
_SAME_PLACE_MM = 1e-3


def read_volume(folder: Path, *, files: tuple[str, ...] = ()) -> Volume:
    """HU of the one CT series in a folder, slices ordered by position.

    Args:
        folder: With the series' files, or with the folders that these lie in.
        files: Those to take, by their paths below it; all DICOM images in it if empty.

    Raises:
        UnreadableScanError: No DICOM image, damaged files, more than one series.
        ImplausibleScanError: Not CT, or a localizer.
        GeometryError: Slices that do not form one regular grid.
    """
    slices = _ordered(_headers(folder, files), folder)
    affine = _affine(slices)
    first = slices[0]
    # int16 HU lie at its start, and are widened there at the first slice that int16 cannot hold.
    room_ZYX = np.empty((len(slices), first.rows, first.columns), _hu_dtype(slices))
    hu_ZYX: NDArray[Any] = room_ZYX.reshape(-1).view(np.int16)[: room_ZYX.size]
    hu_ZYX = hu_ZYX.reshape(room_ZYX.shape)
    pixels = Pixels()
    for z, part in enumerate(slices):
        stored_YX = pixels.of(part)
        slice_XY1 = as_hu(stored_YX.T[:, :, None], slope=part.slope, intercept=part.intercept)
        if slice_XY1.dtype != hu_ZYX.dtype and hu_ZYX.dtype == np.int16:
            if room_ZYX.dtype == np.int16:
                # Pixels hold more bits than the header says.
                room_ZYX = np.empty(room_ZYX.shape, np.float32)
            for k in reversed(range(z)):
                room_ZYX[k] = hu_ZYX[k]
            hu_ZYX = room_ZYX
        hu_ZYX[z] = slice_XY1[:, :, 0].T
    return Volume(hu_ZYX.transpose(2, 1, 0), affine)


def read_header(folder: Path, *, files: tuple[str, ...] = ()) -> Header:
    """Size and place of the one CT series in a folder; no pixels are decoded."""
    slices = _ordered(_headers(folder, files), folder)
    size = Size(slices[0].columns, slices[0].rows, len(slices))
    hu_dtype = _hu_dtype(slices)
    # A file of many frames is held as a whole.
    file_bytes = 0 if slices[0].frame is None else 2
    return Header(
        size,
        checked_affine(_affine(slices)),
        np.dtype(np.int16),
        hu_dtype=hu_dtype,
        read_bytes=file_bytes + hu_dtype.itemsize,
    )


def _hu_dtype(slices: list[Slice]) -> np.dtype[Any]:
    """Kind that HU may come to, as the headers have it."""
    may_be_float = any(part.may_be_float for part in slices)
    return np.dtype(np.float32 if may_be_float else np.int16)


def dicom_files(folder: Path) -> list[Path]:
    """Files of a folder that are DICOM or are named so, by name; subfolders are not entered.

    A file that is named as the DICOM files beside it are (numbers apart) was cut short or never
    arrived; passed over, the series would be shorter without a word.
    """
    shown = {p.name: p for p in folder.iterdir() if not p.name.startswith(".") and not p.is_dir()}
    found = {name for name, path in shown.items() if _is_dicom(path) or is_named_dicom(name)}
    return [shown[name] for name in sorted(found | named_alike(shown, found))]


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(HEAD_BYTES))
    except FileNotFoundError:
        # A link that leads nowhere.
        return False


def _headers(folder: Path, files: tuple[str, ...]) -> list[Slice]:
    """One entry an image plane; other DICOM objects are passed over."""
    paths = [folder / name for name in files] if files else dicom_files(folder)
    slices = [part for path in paths for part in read_slices(path)]
    if not slices:
        msg = f"Folder {folder.name} holds no DICOM image; expected the slices of one CT series."
        raise UnreadableScanError(msg, code="no_dicom")
    return slices


def _ordered(slices: list[Slice], folder: Path) -> list[Slice]:
    """Slices in order along their normal, if they form one regular grid."""
    series = {part.series for part in slices}
    if len(series) > 1:
        msg = (
            f"Folder {folder.name} holds {len(series)} series; expected one. "
            "Give each series its own folder."
        )
        raise UnreadableScanError(msg, code="mixed_series")
    if len({part.patient for part in slices}) > 1:
        msg = (
            f"Series in {folder.name} holds slices of more than one patient; expected one. "
            "Leave it out."
        )
        raise UnreadableScanError(msg, code="mixed_patients")
    _refuse_mixed_geometry(slices, folder)
    refuse_negative_spacing(slices[0].spacing_mm[::-1], folder.name)
    if len(slices) == 1:
        msg = f"Folder {folder.name} holds one slice, so no spacing along z; expected a volume."
        raise GeometryError(msg, code="single_slice")
    normal = _normal(slices[0])
    ordered = sorted(slices, key=lambda part: float(part.position_mm @ normal))
    _refuse_irregular([float(part.position_mm @ normal) for part in ordered], folder)
    _refuse_shifted(ordered, folder)
    _refuse_mixed_kernels(ordered, folder)
    _refuse_tilt(ordered, normal, folder)
    return ordered


def _refuse_mixed_geometry(slices: list[Slice], folder: Path) -> None:
    wanted: dict[str, Callable[[Slice], tuple[float, ...]]] = {
        "size": lambda part: (part.columns, part.rows),
        "spacing": lambda part: part.spacing_mm,
        "orientation": lambda part: part.orientation,
    }
    for what, of in wanted.items():
        first = of(slices[0])
        for part in slices:
            if not np.allclose(of(part), first, rtol=0, atol=_ORIENTATION_TOLERANCE):
                msg = (
                    f"Slices in {folder.name} differ in {what}: {first} in {slices[0].path.name}, "
                    f"{of(part)} in {part.path.name}; expected one for all."
                )
                raise GeometryError(msg, code="mixed_geometry")


def _refuse_irregular(along_mm: list[float], folder: Path) -> None:
    gaps = np.diff(along_mm)
    usual = float(np.median(gaps))
    at = f"between {along_mm[int(gaps.argmin())]:g} and {along_mm[int(gaps.argmin()) + 1]:g} mm"
    if gaps.min() < _SAME_PLACE_MM:
        msg = (
            f"Two slices in {folder.name} lie at {along_mm[int(gaps.argmin())]:g} mm; expected one "
            "each. Are there several phases or reconstructions? Give each its own folder."
        )
        raise GeometryError(msg, code="duplicate_slices")
    steps = np.rint(gaps / usual)
    if (steps > 1).any() and np.abs(gaps / usual - steps).max() < 0.1:
        widest = int(gaps.argmax())
        msg = (
            f"{folder.name} lacks {int((steps - 1).sum())} slices, the first between "
            f"{along_mm[widest]:g} and {along_mm[widest + 1]:g} mm; expected one each {usual:g} mm."
        )
        raise GeometryError(msg, code="missing_slices")
    even = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    if np.abs(even - along_mm).max() > _UNEVEN_LIMIT * usual:
        msg = (
            f"Distances between slices in {folder.name} run from {gaps.min():g} ({at}) to "
            f"{gaps.max():g} mm; expected them equal. Resample the series, or leave it out."
        )
        raise GeometryError(msg, code="uneven_slices")


def _refuse_mixed_kernels(ordered: list[Slice], folder: Path) -> None:
    """Two reconstructions may lie half a gap apart: an even stack that is sharp and soft by turns.

    A stack put together from regions has each kernel in one piece.
    """
    kernels = [part.kernel for part in ordered if part.kernel]
    pieces = [kernel for kernel, _ in groupby(kernels)]
    if len(pieces) > len(set(pieces)):
        # What a kernel is called is free text, so it is not told.
        msg = (
            f"Slices in {folder.name} are of {len(set(pieces))} reconstructions by turns, as their "
            "ConvolutionKernel says; expected one. Give each its own folder."
        )
        raise UnreadableScanError(msg, code="mixed_series")


def _refuse_shifted(ordered: list[Slice], folder: Path) -> None:
    """Slices lie in one line, which may lean; a slice beside it has another place than it says."""
    first, last = ordered[0].position_mm, ordered[-1].position_mm
    along = (last - first) / np.linalg.norm(last - first)
    from_first = np.array([part.position_mm for part in ordered]) - first
    beside_mm = np.linalg.norm(from_first - (from_first @ along)[:, None] * along, axis=1)
    limit_mm = _BESIDE_LIMIT_VOX * max(ordered[0].spacing_mm)
    if beside_mm.max() > limit_mm:
        msg = (
            f"{ordered[int(beside_mm.argmax())].path.name} in {folder.name} lies "
            f"{beside_mm.max():.2f} mm beside the line of the other slices; expected at most "
            f"{limit_mm:.2f} mm. Is it of another series? Repair the series, or leave it out."
        )
        raise GeometryError(msg, code="shifted_slices")


def _refuse_tilt(ordered: list[Slice], normal: NDArray[np.float64], folder: Path) -> None:
    """A stack that leans is put straight later; not one that no gantry made, or a contradiction."""
    stack = ordered[-1].position_mm - ordered[0].position_mm
    lean_degrees = float(_degrees(stack / np.linalg.norm(stack), normal))
    if lean_degrees > MAX_TILT_DEGREES:
        msg = (
            f"Slices in {folder.name} are stacked at {lean_degrees:.2f} degrees to their normal; "
            f"expected at most {MAX_TILT_DEGREES:g} (tilted gantry). Repair the positions, or "
            "leave the series out."
        )
        raise GeometryError(msg, code="gantry_tilt")
    # A tilted slice is seen in the positions, or in slices that are oblique and stacked straight.
    seen = (lean_degrees, _degrees(normal, np.array([0.0, 0.0, 1.0])))
    for part in ordered:
        said = abs(part.tilt_degrees or 0.0)
        if said > TILT_TAG_TOLERANCE_DEGREES and not any(
            abs(said - each) <= TILT_TAG_TOLERANCE_DEGREES for each in seen
        ):
            msg = (
                f"{part.path.name} says that the gantry was tilted by {said:g} degrees; slices in "
                f"{folder.name} are stacked at {lean_degrees:.2f} degrees to their normal. Which "
                "is true cannot be told; leave the series out."
            )
            raise GeometryError(msg, code="gantry_tilt")


def _degrees(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Angle between two lines, whichever way they run."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(one @ other))))))


def _normal(part: Slice) -> NDArray[np.float64]:
    """Unit normal of the slice plane, LPS."""
    row, column = np.array(part.orientation[:3]), np.array(part.orientation[3:])
    normal = np.cross(row, column)
    lengths = (np.linalg.norm(row), np.linalg.norm(column), np.linalg.norm(normal))
    if not np.allclose(lengths, 1, atol=1e-2):
        msg = (
            f"{part.path.name}: ImageOrientationPatient is {part.orientation}; expected two unit "
            "vectors at right angles. Repair the series, or leave it out."
        )
        raise GeometryError(msg, code="bad_affine")
    return np.asarray(normal / lengths[2])


def _affine(ordered: list[Slice]) -> Affine:
    first, last = ordered[0], ordered[-1]
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing_mm[1]
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing_mm[0]
    affine[:3, 2] = (last.position_mm - first.position_mm) / (len(ordered) - 1)
    affine[:3, 3] = first.position_mm
    affine[:3] *= _LPS_TO_RAS[:, None]
    return affine
