import pytest

from vocodata.errors import PresetError
from vocodata.geometry import Size, Spacing
from vocodata.presets import load_presets, parse_presets, preset

ROW = "x: {region: a, spacing_mm: [1, 1, 1], window_hu: [%s], foreground_above_hu: 0, %s}"


def test_the_rows_are_those_of_the_release_and_a_demo():
    assert list(load_presets()) == ["abdomen", "abdomen-squeezed", "chest", "headneck", "demo"]
    assert preset("abdomen").spacing_mm == Spacing(1.5, 1.5, 1.5)
    assert preset("chest").window_hu == (-1000, 500)
    assert preset("headneck").squeeze_vox == Size(192, 192, 64)
    assert preset("abdomen").squeeze_vox is None


def test_the_crop_threshold_is_the_lower_end_of_the_window():
    for row in load_presets().values():
        assert row.foreground_above_hu == row.window_hu[0]


def test_a_misspelt_preset_is_asked_back():
    with pytest.raises(PresetError, match="did you mean 'abdomen'"):
        preset("abdomn")
    with pytest.raises(PresetError, match="expected one of abdomen"):
        preset("knee")


def test_a_wrong_row_is_told_with_its_key():
    with pytest.raises(PresetError, match=r"x\.squeeze: Extra inputs"):
        parse_presets(ROW % ("-1, 1", "squeeze_vox: null, squeeze: 1"))
    with pytest.raises(PresetError, match=r"x\.squeeze_vox\.0"):
        parse_presets(ROW % ("-1, 1", "squeeze_vox: [0, 1, 1]"))
    with pytest.raises(PresetError, match="expected the lower end first"):
        parse_presets(ROW % ("1, -1", "squeeze_vox: null"))
