import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import boxes, volumes
from vocodata.errors import ImplausibleScanError
from vocodata.foreground import crop, foreground_box
from vocodata.geometry import Box, Size, Volume


@given(volumes(), st.integers(-1000, 3000))
def test_the_box_is_numpys(volume, above):
    inside = volume.data_XYZ > above
    if not inside.any():
        with pytest.raises(ImplausibleScanError, match="No voxel is above"):
            foreground_box(volume, above)
        return
    where = np.argwhere(inside)
    box = foreground_box(volume, above)
    assert np.array_equal(box.start, where.min(axis=0))
    assert np.array_equal(box.size, np.ptp(where, axis=0) + 1)


def test_the_threshold_itself_is_background():
    data = np.full((3, 3, 3), -175, np.int16)
    data[1, 1, 1] = -174
    assert foreground_box(Volume(data, np.eye(4)), -175) == Box(Size(1, 1, 1), Size(1, 1, 1))


def test_air_alone_is_refused_with_its_code():
    air = Volume(np.full((3, 3, 3), -1000, np.int16), np.eye(4))
    with pytest.raises(ImplausibleScanError, match="the largest is -1000") as caught:
        foreground_box(air, -175)
    assert caught.value.code == "empty_foreground"


@given(st.data())
def test_a_crop_owns_its_voxels_and_keeps_their_place(data):
    volume = data.draw(volumes())
    box = data.draw(boxes(volume.shape_XYZ))
    part = crop(volume, box)
    assert np.array_equal(part.data_XYZ, volume.data_XYZ[box.slices])
    assert part.data_XYZ.transpose(2, 1, 0).flags.c_contiguous
    assert not np.shares_memory(part.data_XYZ, volume.data_XYZ)
    last = np.array(box.size) - 1
    assert part.affine @ [*last, 1] == pytest.approx(volume.affine @ [*(last + box.start), 1])
