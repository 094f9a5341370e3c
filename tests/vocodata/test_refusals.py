"""Limits at their edges; what a whole scan beyond them meets is in test_ingest.py."""

import numpy as np
import pytest

from vocodata.errors import GeometryError, ImplausibleScanError, NotEnoughMemoryError
from vocodata.geometry import Box, Size, Volume
from vocodata.refusals import (
    MIN_SIDE_VOX,
    refuse_other_grid,
    refuse_small_foreground,
    refuse_too_large,
)

SHAPE = Size(12, 10, 8)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def labels(shift_mm=0.0):
    affine = AFFINE.copy()
    affine[0, 3] += shift_mm
    return Volume(np.zeros(SHAPE, np.uint8), affine)


def test_labels_may_lie_a_tenth_of_their_smallest_voxel_apart_and_no_more():
    refuse_other_grid(labels(shift_mm=0.199), SHAPE, AFFINE)
    with pytest.raises(GeometryError, match=r"0\.21 mm from .* at most 0\.20 mm"):
        refuse_other_grid(labels(shift_mm=0.21), SHAPE, AFFINE)


def test_the_far_corner_counts_where_only_the_spacing_is_another():
    affine = AFFINE.copy()
    affine[0, 0] = 2.1
    with pytest.raises(GeometryError, match=r"1\.10 mm from"):
        refuse_other_grid(Volume(np.zeros(SHAPE, np.uint8), affine), SHAPE, AFFINE)


def test_a_foreground_of_the_smallest_side_is_taken_and_one_voxel_less_is_not():
    side = MIN_SIDE_VOX
    refuse_small_foreground(Box(Size(0, 0, 0), Size(side, side, side)), -175)
    with pytest.raises(ImplausibleScanError, match=r"above -175 HU has .8, 7, 8. voxels"):
        refuse_small_foreground(Box(Size(0, 0, 0), Size(side, side - 1, side)), -175)


def test_a_scan_that_just_fits_the_memory_is_taken_and_one_byte_more_is_not():
    refuse_too_large(10**9, 10**9)
    with pytest.raises(NotEnoughMemoryError, match=r"takes up to 1\.00 GB") as caught:
        refuse_too_large(10**9 + 1, 10**9)
    assert caught.value.needed_bytes == 10**9 + 1
