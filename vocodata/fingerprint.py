"""Digests and fingerprints: the same scan twice, or nearly the same scan twice.

**Voxel digest.** SHA-256 of the kind, the shape, and of two weighted sums of every row along x, in
RAS order (z, then y). A scan that was flipped in memory, packed another way or moved from DICOM to
NIfTI keeps its digest; one HU changes it. Spacing and place are not in it, so a copy under a wrong
affine is found too. The sums make it as fast as memory; hashing the voxels themselves took an
eighth of a build. They find any accident (two rows that differ agree once in 2^62), not a forgery.

**Fingerprint.** Text `v2:CONTENT:MARKS:LANDMARKS`: the content digest as hex, and the slice marks
(vocodata/census.py) and landmarks (vocodata/landmarks.py) as base64. It is taken of the file's own
voxels, so it does not depend on the preset. About 1.3 kB.

Shape letters: X Y Z voxels in RAS.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vocodata.census import MARKS, take_census
from vocodata.compiling import compiled
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
    """Hex SHA-256 of the rows' sums in RAS order, with kind and shape; nothing is copied."""
    data_ZYX = orient_ras(volume).data_XYZ.transpose(2, 1, 0)
    kind = data_ZYX.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"rows {kind.str} {data_ZYX.shape}".encode())
    if kind.kind == "f":
        data_ZYX = data_ZYX.view(f"i{kind.itemsize}")
    weights_2X = _row_weights(data_ZYX.shape[2])
    # Forwards through memory, whatever way the patient lies: backwards takes eight times as long.
    z, y, x = (slice(None, None, -1 if stride < 0 else 1) for stride in data_ZYX.strides)
    sums_ZY2 = _row_sums(data_ZYX[z, y, x], *np.ascontiguousarray(weights_2X[:, x]))
    digest.update(np.ascontiguousarray(sums_ZY2[z, y], dtype="<i8").data)
    return digest.hexdigest()


def _row_weights(count: int) -> NDArray[np.int64]:
    """(2, count) odd numbers below 2^31, by splitmix64 from 0 on: no library's generator changes.

    >>> _row_weights(2).tolist()
    [[1896895517, 56766093], [926699317, 2084953173]]
    """
    z = np.arange(1, 2 * count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(33) | np.uint64(1)).astype(np.int64).reshape(count, 2).T


@compiled
def _row_sums(
    data_ZYX: NDArray[Any], first_X: NDArray[np.int64], second_X: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(Z, Y, 2) sums of value times weight along x, modulo 2^64."""
    nz, ny, nx = data_ZYX.shape
    sums_ZY2 = np.empty((nz, ny, 2), np.int64)
    for z in range(nz):
        for y in range(ny):
            row = data_ZYX[z, y]
            a, b = np.int64(0), np.int64(0)
            for x in range(nx):
                value = np.int64(row[x])
                a += value * first_X[x]
                b += value * second_X[x]
            sums_ZY2[z, y, 0], sums_ZY2[z, y, 1] = a, b
    return sums_ZY2


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
