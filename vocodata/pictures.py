"""Slices as a radiologist expects them, as PNG bytes; and the three middle planes of a stored scan.

Axial slices are seen from the feet: the patient's right is on the image's left, the front is up.
Coronal slices are seen from the front, sagittal ones from the left with the front at the image's
left; the head is up in both. X, Y, Z voxels are RAS, so the three views are flips and transposes,
written once here.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

import numpy as np

from vocodata.geometry import Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.store.store import Store

T = TypeVar("T", bound=np.generic)
Plane = Literal["axial", "coronal", "sagittal"]
PLANES: Final[tuple[Plane, ...]] = ("axial", "coronal", "sagittal")


class Thumbnail(NamedTuple):
    """A plane of a scan.

    Attributes:
        plane: Which of the three.
        uri: The PNG as a `data:` address.
        aspect: Width by height in the patient.
    """

    plane: Plane
    uri: str
    aspect: float


def thumbnails(store: Store, scan_id: str, *, pixels: int = 96) -> list[Thumbnail]:
    """The three middle planes of a scan; only their chunks are read.

    Args:
        store: The store.
        scan_id: Which scan.
        pixels: Longest side of a picture.
    """
    row = store.brief_row(scan_id)
    size, (sx, sy, sz) = Size(*row.shape_xyz), row.spacing_mm
    width, depth, height = size.x * sx, size.y * sy, size.z * sz
    aspects = {"axial": width / depth, "coronal": width / height, "sagittal": depth / height}
    pictures = []
    for plane in PLANES:
        axis, at = across(plane), middle(size, plane)
        start, box = [0, 0, 0], list(size)
        start[axis], box[axis] = at, 1
        slab_XYZ = store.read(scan_id, (start[0], start[1], start[2]), (box[0], box[1], box[2]))
        shown = grey(shrunk(view(slab_XYZ, plane, 0), pixels), row.window_hu)
        pictures.append(Thumbnail(plane, data_uri(shown), aspects[plane]))
    return pictures


def view(volume_XYZ: NDArray[T], plane: Plane, index: int) -> NDArray[T]:
    """One slice with rows from top to bottom and columns from left to right of the picture.

    Args:
        volume_XYZ: Voxels in RAS: x grows to the patient's right, y to the front, z to the head.
        plane: Which of the three planes.
        index: Slice number along z, y or x.
    """
    if plane == "axial":
        return volume_XYZ[::-1, ::-1, index].T
    if plane == "coronal":
        return volume_XYZ[::-1, index, ::-1].T
    return volume_XYZ[index, ::-1, ::-1].T


def across(plane: Plane) -> int:
    """The axis that a plane is cut across: 0, 1 or 2 for x, y or z."""
    return {"axial": 2, "coronal": 1, "sagittal": 0}[plane]


def middle(shape_XYZ: tuple[int, int, int], plane: Plane) -> int:
    """Number of the middle slice."""
    return shape_XYZ[across(plane)] // 2


def shrunk(slice_: NDArray[np.int16], pixels: int) -> NDArray[np.int16]:
    """Every n-th row and column, so that the longest side is at most `pixels`."""
    rows, columns = (-(-count // pixels) for count in slice_.shape)
    return slice_[::rows, ::columns]


def grey(hu: NDArray[np.generic], window_hu: tuple[float, float]) -> NDArray[np.uint8]:
    """HU to grey: the window's low end black, its high end white."""
    low, high = window_hu
    share = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(share * 255), dtype=np.uint8)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """A picture as a `data:` address, so that a page needs no second file."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey (rows, columns) or RGB (rows, columns, 3) pixels.

    >>> png(np.zeros((2, 3), dtype=np.uint8))[1:4]
    b'PNG'
    """
    rows, columns = pixels.shape[:2]
    colour_type = 0 if pixels.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", columns, rows, 8, colour_type, 0, 0, 0)
    lines = np.ascontiguousarray(pixels).reshape(rows, -1)
    # Each line says how it was filtered; 2 is "difference from the line above".
    difference = np.diff(lines, axis=0, prepend=np.zeros_like(lines[:1]))
    marked = np.concatenate([np.full((rows, 1), 2, np.uint8), difference], axis=1)
    body = zlib.compress(marked.tobytes(), 9)
    parts = (_chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
