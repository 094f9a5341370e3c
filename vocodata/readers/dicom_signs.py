"""What makes a file a DICOM file, by its first bytes and by its name; no library is needed."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD_BYTES: Final = 640
"""Enough of a file to tell whether it is DICOM."""
_MAGIC_AT, _MAGIC = 128, b"DICM"
# Groups that a file begins with: file meta information, and identification.
_FIRST_GROUPS = (0x0002, 0x0008)
_SHORT_VRS = {b"AE", b"CS", b"DA", b"LO", b"PN", b"SH", b"TM", b"UI", b"UL"}
_SUFFIXES = (".dcm", ".dicom", ".ima")


class SliceMark(NamedTuple):
    """What the first bytes of a DICOM image say of the series it belongs to.

    Attributes:
        series: SeriesInstanceUID; "" if it cannot be told.
        owner: A number for the patient and the study, and for what no other folder's slices go
            with: a scout, or an object without a position.
        place: A number for the slice's position, or for the object where the frames have their own;
            0 if it cannot be told. Both numbers mean nothing outside this process.
    """

    series: str
    owner: int = 0
    place: int = 0


def is_dicom(start: bytes) -> bool:
    """Whether a file is DICOM, by its first `HEAD_BYTES`; also an old one without a preamble."""
    return start[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC or is_bare(start)


def is_bare(start: bytes) -> bool:
    r"""Whether a file begins with two data elements, in order and of low groups.

    >>> is_bare(b"\x08\0\x08\0\x02\0\0\0CT\x08\0\x16\0")
    True
    >>> is_bare(b"\x08\0 no DICOM")
    False
    """
    if len(start) < 12:
        return False
    group, element, vr, short = struct.unpack_from("<2H2sH", start)
    length = short if vr in _SHORT_VRS else int.from_bytes(start[4:8], "little")
    if group not in _FIRST_GROUPS or length % 2 or 8 + length + 4 > len(start):
        return False
    following = struct.unpack_from("<2H", start, 8 + length)
    return (group, element) < following and following[0] in _FIRST_GROUPS


def is_named_dicom(name: str) -> bool:
    """Whether a file's name says that it is DICOM."""
    return name.lower().endswith(_SUFFIXES)


def named_alike(names: Iterable[str], found: Iterable[str]) -> set[str]:
    """Those of `names` that are named as one of `found` is, numbers apart.

    >>> named_alike(["IM0023", "README", "IM0024.txt"], ["IM0001", "IM0002"])
    {'IM0023'}
    """
    forms = {_form(name) for name in found} - {None}
    return {name for name in names if _form(name) in forms}


def _form(name: str) -> str | None:
    form = re.sub(r"\d+(\.\d+)*", "#", name)
    return None if form == name else form
