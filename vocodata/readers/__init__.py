"""Files to volumes: the only place that knows formats.

The libraries of a format are imported when the first file of that format is read. Whatever the
format, slices that a tilted gantry stacked at an angle are put straight here, at the one door, so
that nobody behind it sees a grid without right angles (vocodata/straightening.py), but for whoever
calls `read_leaning_volume`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from vocodata.errors import UnreadableScanError
from vocodata.readers.dicom_signs import HEAD_BYTES, SliceMark, is_dicom, is_named_dicom
from vocodata.straightening import straight_header, straightened

if TYPE_CHECKING:
    from os import PathLike

    from vocodata.geometry import Header, Volume

SUFFIXES: Final = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mha": "itk",
    ".mhd": "itk",
    ".nrrd": "itk",
    ".nhdr": "itk",
}
"""File name endings and the module that reads them; a folder is a DICOM series."""


def read_volume(path: str | PathLike[str], *, files: tuple[str, ...] = ()) -> Volume:
    """One CT scan as HU.

    Args:
        path: NIfTI (.nii, .nii.gz), MHA, MHD or NRRD file, or a folder with one DICOM CT series.
        files: Of a folder, the series' files, below it; all DICOM images in it if empty.

    Returns:
        Axes as the file has them (see `orient_ras`), at right angles; int16 where HU are whole and
        fit, else float32.

    Raises:
        UnreadableScanError: The bytes cannot be read as one volume; `code` says why.
        GeometryError: The voxels have no usable place in the patient.
        ImplausibleScanError: Not CT, a localizer, or voxels that are NaN.
    """
    return straightened(read_leaning_volume(path, files=files))


def read_leaning_volume(path: str | PathLike[str], *, files: tuple[str, ...] = ()) -> Volume:
    """As `read_volume`, but slices that a tilted gantry stacked at an angle still lean.

    For what must end on the file's own grid, voxel for voxel.
    """
    volume: Volume = _reader(Path(path)).read_volume(Path(path), **_only(files))
    return volume


def read_labels(path: str | PathLike[str]) -> Volume:
    """Labels of one scan, uint8 where they fit, else uint16.

    Args:
        path: NIfTI, MHA, MHD or NRRD file.

    Raises:
        UnreadableScanError: As `read_volume`, or values that are not labels
            (`labels_not_integers`), or a DICOM folder (`labels_unreadable`).
        GeometryError: As `read_volume`.
    """
    if Path(path).is_dir() and not is_file_name(Path(path)):
        msg = f"{Path(path).name} is a folder; expected labels as a NIfTI, MHA, MHD or NRRD file."
        raise UnreadableScanError(msg, code="labels_unreadable")
    labels: Volume = _reader(Path(path)).read_labels(Path(path))
    return straightened(labels, is_labels=True)


def read_header(path: str | PathLike[str], *, files: tuple[str, ...] = ()) -> Header:
    """Size and place of the volume that `read_volume` gives, no voxels read; for planning.

    Args:
        path: As for `read_volume`.
        files: As for `read_volume`.

    Raises:
        UnreadableScanError: As `read_volume`.
        GeometryError: As `read_volume`.
        ImplausibleScanError: As `read_volume`.
    """
    header: Header = _reader(Path(path)).read_header(Path(path), **_only(files))
    return straight_header(header)


def slice_mark(start: IO[bytes] | bytes, name: str = "") -> SliceMark | None:
    """What a file says of the DICOM series that it belongs to.

    Args:
        start: The file, open at its start, or its first bytes.
        name: Of the file, if it is known.

    Returns:
        An empty mark if nothing can be told of a file that is DICOM, or is named so; None if it is
        no DICOM image.
    """
    if isinstance(start, bytes):
        head = start
    else:
        head = start.read(HEAD_BYTES)
        start.seek(0)
    if not is_dicom(head):
        return SliceMark("") if is_named_dicom(name) else None
    mark: SliceMark | None = import_module("vocodata.readers.dicom_marks").mark_of(start)
    return mark


def _only(files: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The argument that the DICOM reader alone takes."""
    return {"files": files} if files else {}


def suffix_of(path: Path) -> str | None:
    """The ending of a file name that a reader knows, or None."""
    name = path.name.lower()
    return max((s for s in SUFFIXES if name.endswith(s)), key=len, default=None)


def is_file_name(path: Path) -> bool:
    """Whether a name is that of a scan file, whatever lies there."""
    return suffix_of(path) is not None


def _reader(path: Path) -> Any:  # noqa: ANN401 (a module of this package)
    if not path.exists():
        msg = f"{path} is not there; expected a scan. Correct the path."
        raise UnreadableScanError(msg, code="file_missing")
    suffix = suffix_of(path)
    if path.is_dir():
        if suffix is not None:
            msg = (
                f"{path.name} is a folder with the name of a file; expected a file. "
                "It may be a half-unpacked archive."
            )
            raise UnreadableScanError(msg, code="folder_with_file_name")
        return import_module("vocodata.readers.dicom")
    if path.stat().st_size == 0:
        msg = f"{path.name} has no bytes. Fetch the file again."
        raise UnreadableScanError(msg, code="empty_file")
    if suffix is None:
        msg = (
            f"{path.name} is of no format that is read; expected {', '.join(SUFFIXES)}, "
            "or a folder with a DICOM series."
        )
        raise UnreadableScanError(msg, code="unknown_format")
    return import_module(f"vocodata.readers.{SUFFIXES[suffix]}")
