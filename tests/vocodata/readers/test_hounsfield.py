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
