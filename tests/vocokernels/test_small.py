import pytest

from vocokernels.window_attention.boxes import box_classes
from vocokernels.window_attention.small import FIXED_CLASSES, SCORES_A_CLASS, is_small


def test_a_batch_makes_a_small_map_large():
    one_map = ((8, 8, 8), (4, 4, 4), (2, 2, 2))
    assert [is_small(*one_map, heads=3 * maps) for maps in (1, 4, 8)] == [True, True, False]


@pytest.mark.parametrize(
    ("map_xyz", "window"), [((4, 4, 4), (7, 7, 7)), ((2, 2, 2), (7, 7, 7)), ((8, 8, 8), (4, 4, 4))]
)
def test_one_class_of_boxes_is_never_left(map_xyz, window):
    assert len(box_classes(map_xyz, window, (0, 0, 0))) == 1
    assert not is_small(map_xyz, window, (0, 0, 0), heads=1)


def test_classes_are_counted_as_boxes_are():
    # 9 = 4 + 4 + 1 along each axis, shifted 1 + 4 + 4: three windows of 4 each, 12 padded tokens
    kinds = len(box_classes((9, 9, 9), (4, 4, 4), (1, 1, 1)))
    heads = SCORES_A_CLASS * (kinds - FIXED_CLASSES) // (12**3 * 4**3)
    assert is_small((9, 9, 9), (4, 4, 4), (1, 1, 1), heads=heads)
    assert not is_small((9, 9, 9), (4, 4, 4), (1, 1, 1), heads=heads + 1)
