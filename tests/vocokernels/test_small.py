import pytest

from vocokernels.window_attention.boxes import box_classes
from vocokernels.window_attention.counts import window_pairs
from vocokernels.window_attention.small import FIXED_CLASSES, SCORES_A_CLASS, is_small


def test_a_batch_makes_a_small_map_large():
    one_map = ((8, 8, 8), (4, 4, 4), (2, 2, 2))
    assert [is_small(*one_map, heads=3 * maps) for maps in (1, 4, 8)] == [True, True, False]


@pytest.mark.parametrize(
    ("map_xyz", "window"), [((4, 4, 4), (7, 7, 7)), ((2, 2, 2), (7, 7, 7)), ((8, 8, 8), (4, 4, 4))]
)
def test_whole_windows_are_left_to_the_specification_up_to_a_batch(map_xyz, window):
    whole = (map_xyz, window, (0, 0, 0))
    assert len(box_classes(*whole)) == 1
    most = SCORES_A_CLASS * (1 + FIXED_CLASSES) // window_pairs(map_xyz, window)
    assert is_small(*whole, heads=most)
    assert not is_small(*whole, heads=most + 1)


def test_the_last_stage_of_one_crop_is_small_and_that_of_a_training_batch_is_not():
    last = ((4, 4, 4), (7, 7, 7), (3, 3, 3))
    assert [is_small(*last, heads=24 * crops) for crops in (1, 22)] == [True, False]


def test_classes_are_counted_as_boxes_are():
    # 9 = 4 + 4 + 1 along each axis, shifted 1 + 4 + 4: three windows of 4 each, 12 padded tokens
    kinds = len(box_classes((9, 9, 9), (4, 4, 4), (1, 1, 1)))
    heads = SCORES_A_CLASS * (kinds + FIXED_CLASSES) // (12**3 * 4**3)
    assert is_small((9, 9, 9), (4, 4, 4), (1, 1, 1), heads=heads)
    assert not is_small((9, 9, 9), (4, 4, 4), (1, 1, 1), heads=heads + 1)
