import io

import matplotlib.image
import numpy as np
import pytest

from vocodata.geometry import Spacing
from vocodata.pictures import grey, png, view
from vocotrain.figures import LABEL_RGB, middle, overlay_picture, slice_picture

SPACING = Spacing(1.0, 2.0, 3.0)
WINDOW = (0.0, 255.0)


def phantom_XYZ() -> np.ndarray:
    """Air, with one bright voxel at the patient's right, front and head: the corner of +x +y +z."""
    volume = np.zeros((4, 5, 6), dtype=np.int16)
    volume[3, 4, 5] = 255
    return volume


@pytest.mark.parametrize(
    ("plane", "index", "corner"),
    [
        ("axial", 5, (0, 0)),
        ("coronal", 4, (0, 0)),
        ("sagittal", 3, (0, 0)),
    ],
)
def test_right_front_and_head_are_at_the_top_left(plane, index, corner):
    picture = slice_picture(phantom_XYZ(), plane, index=index, spacing_mm=SPACING, window_hu=WINDOW)
    assert picture.pixels[corner] == 255
    assert int(picture.pixels.sum()) == 255


def test_each_plane_lies_along_its_own_axes():
    volume = phantom_XYZ()
    assert view(volume, "axial", 0).shape == (5, 4)
    assert view(volume, "coronal", 0).shape == (6, 4)
    assert view(volume, "sagittal", 0).shape == (6, 5)
    assert [middle((4, 5, 6), plane) for plane in ("axial", "coronal", "sagittal")] == [3, 2, 2]


def test_a_picture_has_the_size_of_the_patient_and_its_edges_are_named():
    sizes = {}
    for plane in ("axial", "coronal", "sagittal"):
        picture = slice_picture(phantom_XYZ(), plane, index=0, spacing_mm=SPACING, window_hu=WINDOW)
        sizes[plane] = (picture.width_mm, picture.height_mm, picture.edges)
    assert sizes == {
        "axial": (4.0, 10.0, ("R", "L")),
        "coronal": (4.0, 18.0, ("R", "L")),
        "sagittal": (10.0, 18.0, ("A", "P")),
    }


def test_the_window_maps_its_ends_to_black_and_white():
    hu = np.array([-1024, -175, 37, 250, 3000], dtype=np.int16)
    assert grey(hu, (-175.0, 250.0)).tolist() == [0, 0, 127, 255, 255]


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3)])
def test_a_png_reads_back_as_the_pixels_it_was_made_of(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = matplotlib.image.imread(io.BytesIO(png(pixels)), format="png")
    assert np.array_equal(np.rint(read * 255).astype(np.uint8), pixels)


def test_a_label_is_outlined_and_a_prediction_filled():
    picture = slice_picture(
        np.zeros((6, 6, 1), dtype=np.int16),
        "axial",
        index=0,
        spacing_mm=SPACING,
        window_hu=WINDOW,
    )
    labels = np.zeros((6, 6), dtype=np.uint8)
    labels[1:5, 1:5] = 2
    predicted = np.zeros_like(labels)
    predicted[0, 0] = 1
    shown = overlay_picture(picture, labels, filled=predicted, zoom=1).pixels
    assert shown[1, 1].tolist() == LABEL_RGB[1].tolist()
    assert shown[2, 2].tolist() == [0, 0, 0]
    assert shown[0, 0].tolist() == np.rint(0.45 * LABEL_RGB[0].astype(np.float32)).tolist()
    assert overlay_picture(picture, labels, zoom=4).pixels.shape == (24, 24, 3)
