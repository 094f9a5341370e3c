"""Laws of the resampler over any affine and shape, against an oracle that knows only the affines.

The oracle goes from an output voxel to its place in the patient and from there back into the
source, in float64, and blends the eight voxels around: no axis order, flip or table of ours.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import affines, orientations, sizes, spacings, volumes
from vocodata.geometry import Size, Volume, spacing_of
from vocodata.resampling import resample

ROUNDING_HU = 0.5
# Weights are float32: 2^-24 of a step of 65,535 HU, from three axes.
WEIGHTS_HU = 0.02
SAMPLED = 1500
int16 = st.integers(-32768, 32767)


def some_voxels(shape, seed=0):
    """Indices (N, 3) all over a volume, its corners among them."""
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in shape])))
    drawn = np.random.default_rng(seed).integers(0, shape, (SAMPLED, 3))
    return np.concatenate([corners, drawn])


def in_source(volume, got, at_N3):
    """Where output voxels lie among the source's, clamped at the border."""
    world_N3 = at_N3 @ got.affine[:3, :3].T + got.affine[:3, 3]
    inverse = np.linalg.inv(volume.affine)
    index_N3 = world_N3 @ inverse[:3, :3].T + inverse[:3, 3]
    return np.clip(index_N3, 0, np.array(volume.shape_XYZ) - 1)


def blended(volume, index_N3):
    """Trilinear, float64."""
    lower = np.floor(index_N3 + 1e-9).astype(int)
    share = index_N3 - lower
    total = np.zeros(len(index_N3))
    for corner in itertools.product((0, 1), repeat=3):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        at = np.minimum(lower + corner, np.array(volume.shape_XYZ) - 1)
        total += weight * volume.data_XYZ[tuple(at.T)].astype(np.float64)
    return total


@st.composite
def extreme_volumes(draw):
    """Voxels at the two ends of int16 only, axes of one voxel among them."""
    size, seed = draw(sizes), draw(st.integers(0, 2**31))
    ends = np.random.default_rng(seed).choice(np.array([-32768, 32767], np.int16), size)
    return Volume(ends, draw(affines))


@given(st.one_of(volumes(), extreme_volumes()), spacings)
def test_values_are_the_oracles_and_within_the_range_of_the_source(volume, spacing_mm):
    got = resample(volume, spacing_mm)
    at = some_voxels(got.shape_XYZ)
    expected = blended(volume, in_source(volume, got, at))
    assert np.abs(got.data_XYZ[tuple(at.T)] - expected).max() <= ROUNDING_HU + WEIGHTS_HU
    assert volume.data_XYZ.min() <= got.data_XYZ.min()
    assert got.data_XYZ.max() <= volume.data_XYZ.max()


@given(affines, sizes, spacings)
def test_voxel_zero_is_a_corner_of_the_source_and_the_last_one_is_no_further_than_half_a_voxel(
    affine, size, spacing_mm
):
    volume = Volume(np.zeros(size, np.int16), affine)
    got = resample(volume, spacing_mm)
    inverse, last = np.linalg.inv(affine), np.array(size) - 1
    first = (inverse @ got.affine[:, 3])[:3]
    assert np.minimum(np.abs(first), np.abs(first - last)) == pytest.approx(np.zeros(3), abs=1e-6)
    end = (inverse @ got.affine @ [*(np.array(got.shape_XYZ) - 1), 1])[:3]
    half = np.abs(inverse[:3, :3] @ got.affine[:3, :3]).max(1) / 2 + 1e-6
    opposite = np.where(np.abs(first) < 1e-6, last, 0)
    assert (np.abs(end - opposite) <= half).all()


@given(affines, sizes, spacings)
def test_sizes_follow_the_grid_law(affine, size, spacing_mm):
    got = resample(Volume(np.zeros(size, np.int16), affine), spacing_mm)
    # Which voxel axis became which is read off the affines: parallel axes belong together.
    source, out = affine[:3, :3] / spacing_of(affine), got.affine[:3, :3] / got.spacing_mm
    axis_of = np.abs(source.T @ out).argmax(0)
    assert sorted(axis_of) == [0, 1, 2]
    exact = (np.array(size)[axis_of] - 1) * np.array(spacing_of(affine))[axis_of] / spacing_mm + 1
    is_tie = np.abs(exact % 1 - 0.5) < 1e-5
    assert (np.abs(got.shape_XYZ - exact)[~is_tie] < 0.5).all()
    assert (np.abs(got.shape_XYZ - exact) <= 0.5 + 1e-5).all()
    assert got.spacing_mm == pytest.approx(spacing_mm)


@given(volumes(), spacings, orientations)
def test_turning_the_array_with_its_affine_changes_nothing(volume, spacing_mm, orientation):
    axes, signs = orientation
    turn, size = np.zeros((4, 4)), volume.shape_XYZ
    turn[3, 3] = 1
    for new, (old, sign) in enumerate(zip(axes, signs, strict=True)):
        turn[old, new] = sign
        turn[old, 3] += 0 if sign > 0 else size[old] - 1
    data = volume.data_XYZ.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    one, other = (
        resample(each, spacing_mm) for each in (volume, Volume(data, volume.affine @ turn))
    )
    assert one.shape_XYZ == other.shape_XYZ
    assert one.affine == pytest.approx(other.affine, abs=1e-6)
    # Sums in another order may fall on the other side of a half.
    assert np.abs(one.data_XYZ.astype(int) - other.data_XYZ).max() <= 1


@given(affines, sizes, spacings, int16)
def test_a_constant_stays_that_constant(affine, size, spacing_mm, value):
    got = resample(Volume(np.full(size, value, np.int16), affine), spacing_mm)
    assert np.unique(got.data_XYZ).tolist() == [value]


slopes = st.tuples(*[st.integers(-90, 90)] * 3)


@given(affines, sizes, spacings, slopes, st.integers(-1000, 1000))
def test_a_linear_function_comes_out_rounded_and_no_more(affine, size, spacing_mm, slope, offset):
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    volume = Volume((index @ slope + offset).astype(np.int16), affine)
    got = resample(volume, spacing_mm)
    at = some_voxels(got.shape_XYZ)
    expected = in_source(volume, got, at) @ slope + offset
    assert np.abs(got.data_XYZ[tuple(at.T)] - expected).max() <= ROUNDING_HU + 1e-3


@given(volumes(dtype=np.uint8), spacings)
def test_labels_are_of_the_nearest_voxel_and_none_is_new(volume, spacing_mm):
    got = resample(volume, spacing_mm, interpolation="nearest")
    assert set(np.unique(got.data_XYZ)) <= set(np.unique(volume.data_XYZ))
    at = some_voxels(got.shape_XYZ)
    index = in_source(volume, got, at)
    is_clear = (np.abs(index % 1 - 0.5) > 1e-5).all(1)
    nearest = np.rint(index[is_clear]).astype(int)
    assert np.array_equal(got.data_XYZ[tuple(at[is_clear].T)], volume.data_XYZ[tuple(nearest.T)])


@given(affines, st.permutations([1, 1, 9]), spacings)
def test_an_axis_of_one_voxel_stays_one_voxel(affine, size, spacing_mm):
    data = np.arange(9, dtype=np.int16).reshape(size)
    got = resample(Volume(data, affine), spacing_mm)
    assert sum(n == 1 for n in got.shape_XYZ) >= 2
    assert got.data_XYZ.ravel()[0] in (0, 8)
    assert Size(*got.data_XYZ.shape) == got.shape_XYZ
