"""What a body says of its orientation, on trunks made up in 4 x 4 x 5 mm."""

import numpy as np
import pytest

from tests.vocodata.bodies import body, trunk
from vocodata.geometry import Spacing
from vocodata.orientation import orientation
from vocodata.quality import QualityLimits, largest_part

LIMITS = QualityLimits()
FRONT, HEAD, LEFT = "front_evidence", "head_evidence", "left_evidence"
MOST = {
    FRONT: LIMITS.max_back_to_front,
    HEAD: LIMITS.max_upside_down,
    LEFT: LIMITS.max_mirrored,
}
TURNS = {LEFT: np.s_[::-1], FRONT: np.s_[:, ::-1], HEAD: np.s_[:, :, ::-1]}


def evidence(data, spacing_mm=(4, 4, 5)):
    return orientation(data, largest_part(data > -300), spacing_mm=Spacing(*spacing_mm))


def belly_and_pelvis():
    """No lung: a liver on the right above, muscles on both sides below."""
    data = body(1, organs=0).data_XYZ.copy()
    data[40:50, 8:20] = np.random.default_rng(0).choice([100, 400], (10, 12, 60))
    data[50:76, 20:50, 40:58] = 60
    data[22:38, 10:40, :20], data[52:68, 10:40, :20] = 50, 50
    return data


WHOLE = {"chest and belly": trunk, "belly and pelvis": belly_and_pelvis}


@pytest.mark.parametrize("name", WHOLE)
def test_a_trunk_says_how_it_lies(name):
    found = evidence(WHOLE[name]())
    assert all(found[kind] > most for kind, most in MOST.items())


@pytest.mark.parametrize("turned", TURNS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_turned_trunk_says_the_opposite_of_one_axis(name, turned):
    data = WHOLE[name]()
    straight, found = evidence(data), evidence(np.ascontiguousarray(data[TURNS[turned]]))
    for kind, value in straight.items():
        assert found[kind] == pytest.approx(-value if kind == turned else value, abs=0.02)


def test_heart_and_liver_each_tell_left_from_right():
    for part in (np.s_[:, :, 34:], np.s_[:, :, :33]):
        data = np.ascontiguousarray(trunk()[part])
        assert evidence(data)[LEFT] > LIMITS.max_mirrored
        assert evidence(np.ascontiguousarray(data[::-1]))[LEFT] < -LIMITS.max_mirrored


def test_the_heart_tells_the_head_where_no_belly_does():
    chest = np.ascontiguousarray(trunk()[:, :, 34:])
    assert evidence(chest)[HEAD] > LIMITS.max_upside_down


SILENT = {
    "a body without organs": lambda: body(1, organs=0).data_XYZ,
    "air": lambda: np.full((40, 40, 40), -1000, np.int16),
    "water everywhere": lambda: np.zeros((40, 40, 40), np.int16),
    "half a chest": lambda: trunk()[46:, :, 34:],
    "a field cut on the left": lambda: trunk()[20:],
    "one slice": lambda: trunk()[:, :, 8:9],
    "a column": lambda: trunk()[40:42, 10:12],
}


@pytest.mark.parametrize("name", SILENT)
def test_what_decides_nothing_says_nothing(name):
    """Left and right above all, and the head where there is no lung."""
    data = np.ascontiguousarray(SILENT[name]())
    assert abs(evidence(data)[LEFT]) < 0.05
    if not (data[:, :, -1] == -850).any():
        assert abs(evidence(data)[HEAD]) < 0.05


def head():
    """A skull of 16 x 20 cm around a brain, a jaw in front, lopsided as a tilted head is."""
    x, y, z = np.meshgrid(*[np.arange(-25, 26) * 4.0] * 3, indexing="ij")
    shape = ((x - z / 10) / 80) ** 2 + (y / 100) ** 2 + (z / 100) ** 2
    data = np.where(shape < 1, 900, -1000)
    data[shape < 0.8] = 35
    return data.astype(np.int16)


def test_a_head_says_nothing():
    found = evidence(head(), (4, 4, 4))
    assert abs(found[LEFT]) < 0.05
    assert abs(found[HEAD]) < 0.05


def test_blood_with_contrast_is_no_bone():
    """A bright heart in front of the spine outweighs it, if it counts."""
    data = trunk()
    data[28:52, 26:48, 34:46] = 400
    assert evidence(data)[FRONT] > LIMITS.max_back_to_front


def test_noise_and_fat_in_the_liver_change_little():
    data = trunk().astype(np.int16)
    data[(data > 20) & (data < 100)] -= 40
    noisy = data + np.random.default_rng(3).normal(0, 30, data.shape)
    assert evidence(noisy.astype(np.int16))[LEFT] > LIMITS.max_mirrored
