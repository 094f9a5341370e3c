"""The text at the head of a MetaImage or NRRD file: what SimpleITK guesses, or does not say.

SimpleITK takes 1 mm where no spacing is given, the patient's axes where no direction is, and any
path on the disk for the voxels of a detached header. None of that is guessed or followed here.

Sources: MetaIO's documentation, "MetaImage tags"; the NRRD format, sections 4 and 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from vocodata.errors import GeometryError, UnreadableScanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

META_SUFFIXES: Final = (".mha", ".mhd")
_MAX_BYTES, _MAX_FILES, _MAX_AXES = 1 << 20, 10_000, 10
_DATA_KEYS = {"elementdatafile", "data file", "datafile"}
_BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
_META_GEOMETRY = (
    ("TransformMatrix", "Rotation", "Orientation"),
    ("ElementSpacing", "ElementSize"),
)
_MILLIMETRES = {"mm", "millimeter", "millimeters", "millimetre", "millimetres", ""}


@dataclass(frozen=True)
class TextHeader:
    """What a header's text says.

    Attributes:
        fields: Key and value; the keys of NRRD in lower case.
        data_names: Files of the voxels, seen from the header's folder; none if they follow it.
        end: Where the text ends, bytes.
        is_zlib: A MetaImage whose voxels are compressed.
        is_raw: Voxels lie there as they are in memory.
        byte_order: Of a MetaImage, as numpy writes it.
    """

    fields: Mapping[str, str]
    data_names: tuple[str, ...]
    end: int
    is_zlib: bool
    is_raw: bool
    byte_order: Literal["<", ">"]


def read_text_header(path: Path) -> TextHeader:
    """The text header of a MetaImage or NRRD file.

    Raises:
        UnreadableScanError: The voxels are said to lie outside the header's folder, or in files
            that cannot be counted, or a MetaImage has more axes than any (`corrupt_header`).
    """
    is_meta = path.suffix.lower() in META_SUFFIXES
    fields: dict[str, str] = {}
    listed: list[str] = []
    end, where = 0, ""
    with path.open("rb") as file:
        while end < _MAX_BYTES and (line := file.readline(_MAX_BYTES)):
            end += len(line)
            text = line.decode("utf-8", "replace").strip()
            if _is_list(where):
                listed += [text] if text else []
                continue
            # MetaImage may have either sign.
            key, value = (*(part.strip() for part in re.split("[=:]", text, maxsplit=1)), "")[:2]
            fields[key if is_meta else key.lower()] = value
            if key == "NDims":
                _refuse_many_axes(value, path)
            if key.lower() in _DATA_KEYS:
                where = value
            if (is_meta and where and not _is_list(where)) or not (is_meta or text):
                break
    if where and where.upper() != "LOCAL" and not _is_list(where):
        listed = _numbered(where, path)
    _refuse_outside(listed, path)
    is_zlib = is_meta and _is_true(fields.get("CompressedData", "False"))
    is_text = is_meta and not _is_true(fields.get("BinaryData", "True"))
    is_big = any(_is_true(fields.get(key, "False")) for key in _BIG_ENDIAN)
    return TextHeader(
        fields,
        tuple(listed),
        end,
        is_zlib=is_zlib,
        is_raw=not (is_zlib or is_text) and fields.get("encoding", "raw").lower() == "raw",
        byte_order=">" if is_big else "<",
    )


def _is_true(value: str) -> bool:
    return value[:1] in {"T", "t", "1"}


def refuse_scaling(header: TextHeader, path: Path) -> None:
    """Raise if a MetaImage scales its values, which SimpleITK passes over and others do not.

    Raises:
        UnreadableScanError: `corrupt_header`.
    """
    for key, plain in (("Slope", 1.0), ("Offset", 0.0)):
        key = f"ElementToIntensityFunction{key}"  # noqa: PLW2901 (its whole name)
        try:
            is_plain = float(header.fields.get(key, plain)) == plain
        except ValueError:
            is_plain = False
        if not is_plain:
            msg = (
                f"{path.name} has {key} {header.fields[key][:20]!r}, which one reader applies and "
                f"another does not; expected {plain:g}. Write the scan again in HU."
            )
            raise UnreadableScanError(msg, code="corrupt_header")


def refuse_guessed_geometry(header: TextHeader, path: Path) -> None:
    """Raise if the header does not say where its voxels lie, in mm.

    Raises:
        GeometryError: `no_geometry`.
        UnreadableScanError: `corrupt_header`.
    """
    is_meta = path.suffix.lower() in META_SUFFIXES
    needed = _META_GEOMETRY if is_meta else (("space directions",),)
    lacking = [names[0] for names in needed if not header.fields.keys() & set(names)]
    if not is_meta and len(re.findall(r"\([^()]*\)", header.fields.get(needed[0][0], ""))) < 3:
        lacking = ["space directions of three axes"]
    if is_meta:
        _refuse_other_counts(header, path)
    units = re.findall(r'"([^"]*)"', header.fields.get("space units", ""))
    if not {unit.strip().lower() for unit in units} <= _MILLIMETRES:
        msg = (
            f"{path.name} is measured in {', '.join(sorted(set(units)))}; expected mm. "
            "Write the scan again in mm, or leave it out."
        )
        raise GeometryError(msg, code="no_geometry")
    if lacking:
        msg = (
            f"{path.name} has no field {' and no '.join(lacking)}, so how its voxels lie is "
            "unknown. Write it into the header, or leave the scan out."
        )
        raise GeometryError(msg, code="no_geometry")


def _refuse_many_axes(value: str, path: Path) -> None:
    """SimpleITK writes beyond its memory for more."""
    number = re.match(r"\d{1,9}(?!\S)", value)
    if number is None or not 1 <= int(number.group()) <= _MAX_AXES:
        msg = (
            f"{path.name} has {value[:20]!r} axes (NDims); expected 3, at most {_MAX_AXES}. The "
            "header is damaged."
        )
        raise UnreadableScanError(msg, code="corrupt_header")


def _refuse_other_counts(header: TextHeader, path: Path) -> None:
    """SimpleITK reads on in the next line for what a value lacks, and then lacks that line."""
    axes = int(header.fields.get("NDims", "3").split()[0])
    counts = dict.fromkeys(("DimSize", "Offset", "Position", "Origin", *_META_GEOMETRY[1]), axes)
    counts |= dict.fromkeys(_META_GEOMETRY[0], axes**2)
    for key, count in counts.items():
        value = header.fields.get(key)
        if value is not None and len(value.split()) != count:
            msg = (
                f"{path.name} has {key} = {value[:60]}; expected {count} numbers. The header is "
                "damaged."
            )
            raise UnreadableScanError(msg, code="corrupt_header")


def _is_list(where: str) -> bool:
    """Whether the files are named in the lines that follow."""
    return re.fullmatch(r"LIST(\s+\d+)?", where, re.IGNORECASE) is not None


def _numbered(where: str, path: Path) -> list[str]:
    """Files of a value: one name, or `slice%03d.raw 1 90 1`."""
    pattern = re.fullmatch(
        r"([^\s%]*%0?\d?d[^\s%]*)\s+(\d{1,9})\s+(\d{1,9})(?:\s+(\d{1,9}))?(?:\s+\d+)?", where
    )
    if pattern is None:
        return [where]
    name, first, last, step = pattern.groups()
    numbers = range(int(first), int(last) + 1, max(1, int(step or 1)))
    if len(numbers) > _MAX_FILES:
        msg = f"{path.name} names {len(numbers)} files of voxels; the header is damaged."
        raise UnreadableScanError(msg, code="corrupt_header")
    return [name % number for number in numbers]


def _refuse_outside(names: Iterable[str], path: Path) -> None:
    for name in names:
        parts = re.split(r"[/\\]", name)
        if parts[0] == "" or ".." in parts or re.fullmatch(r"[A-Za-z]:", parts[0]):
            msg = (
                f"{path.name} says that its voxels lie in {name}; expected a file beside it. "
                "Put it there, and write its name into the header."
            )
            raise UnreadableScanError(msg, code="corrupt_header")
