"""Digests and fingerprints: the same scan twice, or nearly the same scan twice.

**Voxel digest.** SHA-256 of the voxels in RAS order with their kind and shape. A scan that was
flipped in memory, packed another way or moved from DICOM to NIfTI keeps its digest; one HU changes
it. Spacing and place are not in it, so a copy under a wrong affine is found too.

**Fingerprint.** Text `v2:CONTENT:MARKS:LANDMARKS`: the content digest as hex, and the slice marks
(vocodata/census.py) and landmarks (vocodata/landmarks.py) as base64. It is taken of the file's own
voxels, so it does not depend on the preset. About 1.3 kB.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.census import MARKS, take_census
from vocodata.geometry import orient_ras
from vocodata.landmarks import RECORD, Landmarks, find_landmarks, pack, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.census import Census
    from vocodata.geometry import Volume


class Fingerprint(NamedTuple):
    """A fingerprint's parts as numbers.

    Attributes:
        content_digest: The same for the same voxels, however they are turned.
        marks: (72,) uint32, of slices; 0 where there is none.
        landmarks: Of the body.
    """

    content_digest: str
    marks: NDArray[np.uint32]
    landmarks: Landmarks


def voxel_digest(volume: Volume) -> str:
    """Hex SHA-256 of the voxels in RAS order, with kind and shape; slice by slice, no copy."""
    data_ZYX = orient_ras(volume).data_XYZ.transpose(2, 1, 0)
    kind = data_ZYX.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{kind.str} {data_ZYX.shape}".encode())
    for slice_YX in data_ZYX:
        digest.update(np.ascontiguousarray(slice_YX, dtype=kind).data)
    return digest.hexdigest()


def fingerprint(volume: Volume, census: Census | None = None) -> str:
    """The text fingerprint of a scan.

    Args:
        volume: HU in RAS, as the file has them.
        census: Of the same volume, where it was taken before.
    """
    census = take_census(volume) if census is None else census
    parts = (census.marks.astype("<u4").tobytes(), pack(find_landmarks(volume)))
    return ":".join(("v2", census.content_digest, *(base64.b64encode(p).decode() for p in parts)))


def parse_fingerprint(text: str) -> Fingerprint:
    """The numbers of a fingerprint.

    Raises:
        ValueError: A text of another version or size.
    """
    parts = text.split(":")
    if len(parts) == 4 and parts[0] == "v2":
        marks, landmarks = (base64.b64decode(part) for part in parts[2:])
        if len(marks) == 3 * MARKS * 4 and len(landmarks) % RECORD.itemsize == 0:
            return Fingerprint(parts[1], np.frombuffer(marks, "<u4"), unpack(landmarks))
    msg = f"Fingerprint starts with {text[:12]!r}; expected v2: and three parts after it."
    raise ValueError(msg)
