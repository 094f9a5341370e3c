"""Small grey pictures of a stored scan: its three middle planes as PNG bytes.

As a radiologist views them: axial from the feet with the front up, coronal from the front and
sagittal from the left with the head up; the patient's right is at the left of the first two.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vocodata.geometry import Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.store.store import Store


class Thumbnail(NamedTuple):
    """A plane of a scan.

    Attributes:
        plane: `axial`, `coronal` or `sagittal`.
        uri: The PNG as a `data:` address.
        aspect: Width by height in the patient.
    """

    plane: str
    uri: str
    aspect: float


def thumbnails(store: Store, scan_id: str, *, pixels: int = 96) -> list[Thumbnail]:
    """The three middle planes of a scan; only their chunks are read.

    Args:
        store: The store.
        scan_id: Which scan.
        pixels: Longest side of a picture.
    """
    row = store.row(scan_id)
    size, (sx, sy, sz) = Size(*row.shape_xyz), row.spacing_mm
    axial = store.read(scan_id, (0, 0, size.z // 2), (size.x, size.y, 1))[::-1, ::-1, 0].T
    coronal = store.read(scan_id, (0, size.y // 2, 0), (size.x, 1, size.z))[::-1, 0, ::-1].T
    sagittal = store.read(scan_id, (size.x // 2, 0, 0), (1, size.y, size.z))[0, ::-1, ::-1].T
    width, depth, height = size.x * sx, size.y * sy, size.z * sz
    planes = [
        ("axial", axial, width / depth),
        ("coronal", coronal, width / height),
        ("sagittal", sagittal, depth / height),
    ]
    return [
        Thumbnail(plane, data_uri(grey(shrunk(slice_, pixels), row.window_hu)), aspect)
        for plane, slice_, aspect in planes
    ]


def shrunk(slice_: NDArray[np.int16], pixels: int) -> NDArray[np.int16]:
    """Every n-th row and column, so that the longest side is at most `pixels`."""
    rows, columns = (-(-count // pixels) for count in slice_.shape)
    return slice_[::rows, ::columns]


def grey(hu: NDArray[np.int16], window_hu: tuple[float, float]) -> NDArray[np.uint8]:
    """HU to grey: the window's low end black, its high end white."""
    low, high = window_hu
    share = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    return np.asarray(np.rint(share * 255), dtype=np.uint8)


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """A grey picture as a `data:` address, so that a page needs no second file."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of grey (rows, columns) pixels.

    >>> png(np.zeros((2, 3), dtype=np.uint8))[1:4]
    b'PNG'
    """
    rows, columns = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    # Each line says how it was filtered; 2 is "difference from the line above".
    difference = np.diff(pixels, axis=0, prepend=np.zeros_like(pixels[:1]))
    marked = np.concatenate([np.full((rows, 1), 2, np.uint8), difference], axis=1)
    parts = (
        _chunk(b"IHDR", header),
        _chunk(b"IDAT", zlib.compress(marked.tobytes(), 9)),
        _chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
