import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import volumes
from tests.vocodata.bodies import body
from vocodata.census import take_census
from vocodata.geometry import Volume

TURNS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def turned(data_XYZ, turn):
    axes, signs = turn
    return data_XYZ.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]


@given(volumes(), st.sampled_from(TURNS))
def test_the_content_digest_does_not_see_turns_mirrors_spacing_or_float(volume, turn):
    data = volume.data_XYZ.astype(np.int16)
    other = Volume(turned(data, turn).astype(np.float32), np.diag([3, 2, 1, 1.0]))
    digests = {take_census(Volume(each, volume.affine)).content_digest for each in (data,)}
    assert digests == {take_census(other).content_digest}


def test_the_content_digest_sees_one_hu_and_two_voxels_changed_for_each_other():
    data = body(0).data_XYZ
    one, swapped = data.copy(), data.copy()
    one[3, 4, 5] += 1
    (i, j) = np.argwhere(data != data[0, 0, 0])[0], np.zeros(3, int)
    swapped[tuple(i)], swapped[tuple(j)] = data[tuple(j)], data[tuple(i)]
    digests = {take_census(Volume(d, np.eye(4))).content_digest for d in (data, one, swapped)}
    assert len(digests) == 3


def test_counts_are_those_of_numpy():
    volume = body(1)
    values, counts = np.unique(volume.data_XYZ, return_counts=True)
    assert np.array_equal(np.flatnonzero(take_census(volume).counts) - 32768, values)
    assert take_census(volume).counts.sum() == counts.sum() == volume.data_XYZ.size


def test_a_stretch_of_slices_shares_marks_though_clipped_and_under_another_spacing():
    whole, stranger = body(2), body(3)
    part = Volume(np.clip(whole.data_XYZ[:, :, 20:45], -175, 250), np.diag([1, 1, 1, 1.0]))
    marks = [set(take_census(each).marks.tolist()) - {0} for each in (whole, part, stranger)]
    assert len(marks[0] & marks[1]) >= 4
    assert marks[0] & marks[2] == set()


def test_flat_and_repeated_slices_are_counted():
    data = body(4).data_XYZ.copy()
    data[:, :, 3] = data[:, :, 10] = data[:, :, 11] = -1000
    data[:, :, 21] = data[:, :, 20]
    census = take_census(Volume(data, np.eye(4)))
    assert (census.flat_slices, census.repeated_slices) == (3, 1)


@given(volumes(), st.sampled_from(TURNS))
def test_a_census_does_not_see_the_layout_in_memory(volume, turn):
    axes, _ = turn
    data = np.clip(volume.data_XYZ, -40000, 40000)
    laid = np.ascontiguousarray(turned(data, turn))
    back = laid[tuple(slice(None, None, sign) for sign in turn[1])].transpose(np.argsort(axes))
    assert np.array_equal(back, data)
    one, other = (take_census(Volume(each, np.eye(4))) for each in (data, back))
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine, theirs)


def test_the_range_is_that_of_the_file_not_of_what_was_counted():
    volume = body(5)
    wide = volume.data_XYZ.astype(np.float32) + np.float32(0.25)
    wide[0, 0, 0], wide[1, 0, 0] = -40000.5, 40000.5
    census = take_census(Volume(wide, volume.affine))
    assert (census.lowest_hu, census.highest_hu) == (-40000.5, 40000.5)
    assert (census.counts[0], census.counts[-1]) == (1, 1)
    whole = take_census(volume)
    assert (whole.lowest_hu, whole.highest_hu) == (volume.data_XYZ.min(), volume.data_XYZ.max())


def test_values_that_round_alike_are_no_flat_slice():
    data = np.zeros((4, 4, 4), np.float32)
    data[0, 0, 0] = 0.25
    assert take_census(Volume(data, np.eye(4))).flat_slices == 3
