"""Which series a DICOM file belongs to, and where in it, from the file's first bytes."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, cast

from pydicom.filereader import read_partial

from vocodata.readers.dicom_headers import DAMAGE, is_image
from vocodata.readers.dicom_signs import SliceMark

if TYPE_CHECKING:
    from pydicom.tag import BaseTag

_IMAGE_TYPE: Final = 0x00080008
_OBJECT: Final = 0x00080018
_PATIENT: Final = 0x00100020
_STUDY: Final = 0x0020000D
_SERIES: Final = 0x0020000E
_POSITION: Final = 0x00200032
# Copies that passed through other programs have other texts for the same number.
_DIGITS_OF_MM = 3


def mark_of(file: IO[bytes] | bytes) -> SliceMark | None:
    """What a DICOM image says of its series.

    Args:
        file: Open at its start, or its first bytes.

    Returns:
        None if it is no DICOM image (other files, contours, reports, plans).
    """
    file = io.BytesIO(file) if isinstance(file, bytes) else file
    # Where what follows the series is damaged, the series still stands.
    for last in (_POSITION, _SERIES):
        try:
            return _read(file, last)
        except DAMAGE:
            file.seek(0)
    return SliceMark("")


def _read(file: IO[bytes], last: int) -> SliceMark | None:
    """The mark, from all elements up to one; what is cut short is not believed."""
    begun = 0

    def is_behind(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal begun
        begun = int(tag)
        return begun > last

    dataset = read_partial(cast("BinaryIO", file), stop_when=is_behind, force=True)
    if not is_image(dataset):
        return None
    if begun <= _SERIES:
        return SliceMark("")
    is_scout = b"LOCALIZER" in _raw(dataset, _IMAGE_TYPE).upper()
    # Without a position, as objects with many frames and pictures of a screen are, it stands alone.
    is_alone = begun > _POSITION and not _raw(dataset, _POSITION)
    alone = _raw(dataset, _OBJECT) if is_alone else b""
    owner = hash((_raw(dataset, _PATIENT), _raw(dataset, _STUDY), is_scout, alone))
    place = _place(dataset) if begun > _POSITION else 0
    return SliceMark(str(dataset.get("SeriesInstanceUID", "")), owner, place)


def _place(dataset: Any) -> int:  # noqa: ANN401 (pydicom's fields are dynamic)
    position = _raw(dataset, _POSITION)
    if position:
        millimetres = [round(float(text), _DIGITS_OF_MM) + 0.0 for text in position.split(b"\\")]
        # As a text: -1.0 and -2.0 have one hash in Python.
        return hash(str(millimetres))
    name = _raw(dataset, _OBJECT)
    return hash(name) if name else 0


def _raw(dataset: Any, tag: int) -> bytes:  # noqa: ANN401 (pydicom's fields are dynamic)
    """A value as the file has it: to be compared, not to be understood."""
    value = dataset.get_item(tag).value if tag in dataset else b""
    return value.strip(b" \0") if isinstance(value, bytes) else b""
