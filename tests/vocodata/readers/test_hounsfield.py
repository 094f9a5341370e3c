import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests import strategies  # noqa: F401 - sets the hypothesis profile
from vocodata.errors import ImplausibleScanError, UnreadableScanError
from vocodata.readers.hounsfield import as_hu, as_labels


@given(
    arrays(np.int16, (2, 3, 2)),
    st.sampled_from([1.0, 0.5, 2.0, 0.1]),
    st.sampled_from([0.0, -1024.0, 0.25]),
)
def test_hu_are_the_stored_values_scaled_and_int16_only_if_that_is_exact(raw, slope, intercept):
    exact = raw.astype(np.float64) * slope + intercept
    hu = as_hu(raw, slope=slope, intercept=intercept)
    fits = np.all(exact == np.floor(exact)) and exact.min() >= -32768 and exact.max() <= 32767
    assert hu.dtype == (np.int16 if fits else np.float32)
    assert hu == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("dtype", [bool, "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", "<u4"])
@pytest.mark.parametrize("may_overwrite", [False, True])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (-3, 7), (0.5, 0), (1e20, 0)])
def test_whole_numbers_of_any_kind_are_scaled(dtype, may_overwrite, slope, intercept):
    dtype = np.dtype(dtype)
    ends = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for stored in ([0, 0, 0, 0], [0, 1, 1, 0], [ends[0], 0, 1, ends[1]]):
        raw = np.array(stored, dtype).reshape(1, 2, 2)
        kept = raw.copy()
        exact = raw.astype(np.float64) * slope + intercept
        fits = np.all(exact == np.floor(exact)) and abs(exact + 0.5).max() <= 32767.5
        hu = as_hu(raw, slope=slope, intercept=intercept, may_overwrite=may_overwrite)
        assert hu.dtype == (np.int16 if fits else np.float32)
        assert np.array_equal(hu, exact.astype(hu.dtype))
        assert may_overwrite or np.array_equal(raw, kept)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("room_bytes", [2, 4])
def test_floats_may_take_the_memory_of_the_stored_values_where_it_is_enough(dtype, room_bytes):
    dtype = np.dtype(dtype)
    owner = np.zeros(24 * max(dtype.itemsize, room_bytes), np.uint8)
    raw = owner[: 24 * dtype.itemsize].view(dtype).reshape((2, 3, 4), order="F")
    raw[:] = np.random.default_rng(0).integers(0, 100, raw.shape)
    raw[0, 0, 0] = 3
    expected = (raw.astype(np.float64) * 0.7 - 3.25).astype(np.float32)
    assert np.array_equal(as_hu(raw, slope=0.7, intercept=-3.25), expected)
    hu = as_hu(raw, slope=0.7, intercept=-3.25, may_overwrite=True)
    assert np.array_equal(hu, expected)
    assert np.shares_memory(hu, owner) == (owner.nbytes >= 4 * raw.size)


def test_scaled_labels_are_those_of_the_whole():
    raw = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    labels = as_labels(raw, slope=2.0, intercept=300.0)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, raw * 2 + 300)
    with pytest.raises(UnreadableScanError, match=r"values from 0 to 11\.5"):
        as_labels(raw, slope=0.5)


def test_int16_as_it_is_is_not_copied():
    raw = np.zeros((2, 2, 2), np.int16)
    assert as_hu(raw) is raw


def test_unknown_kinds_and_scalings_are_refused():
    with pytest.raises(UnreadableScanError, match="expected integers or floats"):
        as_hu(np.zeros((1, 1, 1), np.complex64))
    with pytest.raises(ImplausibleScanError, match="expected finite numbers"):
        as_hu(np.zeros((1, 1, 1), np.int16), slope=np.nan)


def test_masks_of_true_and_false_are_labels():
    mask = np.array([True, False]).reshape(2, 1, 1)
    assert as_labels(mask).tolist() == [[[1]], [[0]]]
    assert as_hu(mask).ravel().tolist() == [1, 0]


def test_labels_of_no_number_are_refused():
    with pytest.raises(UnreadableScanError, match="kind complex64"):
        as_labels(np.zeros((1, 1, 1), np.complex64))
