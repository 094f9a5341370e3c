"""Pictures of volumes with their size in the patient, and labels drawn on them.

Which way a slice is seen, and its PNG bytes, are those of vocodata/pictures.py.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vocodata.geometry import Spacing
from vocodata.pictures import PLANES as PLANES
from vocodata.pictures import Plane, data_uri, grey, view
from vocodata.pictures import middle as middle

# Letters at the left and right edge of the picture: Right, Left, Anterior, Posterior.
EDGE_LETTERS: Final[dict[Plane, tuple[str, str]]] = {
    "axial": ("R", "L"),
    "coronal": ("R", "L"),
    "sagittal": ("A", "P"),
}
# Colours of organs: far apart for the colour-blind (Okabe and Ito 2008), on a grey picture.
LABEL_RGB: Final = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (204, 121, 167),
        (213, 94, 0),
        (0, 114, 178),
    ],
    dtype=np.uint8,
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice as it is shown, with the size that it has in the patient."""

    pixels: NDArray[np.uint8]
    width_mm: float
    height_mm: float
    edges: tuple[str, str]

    def data_uri(self) -> str:
        """The picture as a `data:` address, so that a page needs no second file."""
        return data_uri(self.pixels)


def slice_picture(
    volume_XYZ: NDArray[np.int16],
    plane: Plane,
    *,
    index: int,
    spacing_mm: Spacing,
    window_hu: tuple[float, float],
) -> Picture:
    """A grey slice in a HU window.

    Args:
        volume_XYZ: HU.
        plane: Which of the three planes.
        index: Slice number.
        spacing_mm: Voxel size, for the picture's shape.
        window_hu: HU shown black and HU shown white.
    """
    pixels = grey(view(volume_XYZ, plane, index), window_hu)
    return _picture(pixels, plane, spacing_mm)


def overlay_picture(
    picture: Picture,
    labels: NDArray[np.integer],
    *,
    filled: NDArray[np.integer] | None = None,
    zoom: int = 4,
    opacity: float = 0.45,
) -> Picture:
    """Outlines of one label map and, if given, the areas of another, on a grey slice.

    Args:
        picture: The grey slice.
        labels: Rows and columns as `view` gives them; 0 is nothing. Drawn as outlines.
        filled: A second map of the same shape, drawn as tinted areas.
        zoom: Pixels per voxel, so that an outline is thin beside a voxel.
        opacity: Of the tint, 0 to 1.
    """
    rgb = np.repeat(picture.pixels[..., None], 3, axis=-1).astype(np.float32)
    if filled is not None:
        inside = filled > 0
        rgb[inside] = (1 - opacity) * rgb[inside] + opacity * _colours(filled)[inside]
    large = np.rint(np.kron(rgb, np.ones((zoom, zoom, 1)))).astype(np.uint8)
    large_labels = np.kron(labels, np.ones((zoom, zoom), dtype=labels.dtype))
    edge = _outline(large_labels)
    large[edge] = _colours(large_labels)[edge]
    return Picture(large, picture.width_mm, picture.height_mm, picture.edges)


def _picture(pixels: NDArray[np.uint8], plane: Plane, spacing_mm: Spacing) -> Picture:
    across_mm = spacing_mm.y if plane == "sagittal" else spacing_mm.x
    down_mm = spacing_mm.y if plane == "axial" else spacing_mm.z
    rows, columns = pixels.shape
    return Picture(pixels, columns * across_mm, rows * down_mm, EDGE_LETTERS[plane])


def _colours(labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    colours: NDArray[np.uint8] = LABEL_RGB[(labels.astype(np.int64) - 1) % len(LABEL_RGB)]
    return colours


def _outline(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Label pixels with another label beside them."""
    padded = np.pad(labels, 1)
    here = padded[1:-1, 1:-1]
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    is_edge: NDArray[np.bool_] = np.logical_or.reduce([here != other for other in beside])
    return is_edge & (here > 0)
