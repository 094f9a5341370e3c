import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vocokernels.window_attention.boxes import axis_runs, box_classes, effective_window


@st.composite
def axes(draw):
    window = draw(st.integers(1, 8))
    return draw(st.integers(1, 40)), window, draw(st.integers(0, window - 1))


@given(axes())
def test_stretches_hold_each_token_once_and_in_order(axis):
    length, window, shift = axis
    tokens = [
        run.start + i * run.real + j
        for run in axis_runs(length, window, shift if length > window else 0)
        for i in range(run.repeats)
        for j in range(run.real)
    ]
    assert tokens == list(range(length))


@given(axes())
def test_a_stretch_with_its_pads_fits_its_window(axis):
    length, window, shift = axis
    for run in axis_runs(length, window, shift if length > window else 0):
        assert run.offset + run.real + run.pads <= window
        assert run.pads == 0 or run.repeats == 1


@settings(max_examples=30)
@given(st.tuples(axes(), axes(), axes()))
def test_boxes_hold_each_token_of_a_map_once(three_axes):
    map_xyz, window, shift = zip(*three_axes, strict=True)
    seen = torch.zeros(map_xyz, dtype=torch.int64)
    for kind in box_classes(map_xyz, window, shift):
        stop = [s + c * r for s, c, r in zip(kind.start, kind.count, kind.real, strict=True)]
        (x, y, z), (to_x, to_y, to_z) = kind.start, stop
        seen[x:to_x, y:to_y, z:to_z] += 1
        assert kind.tokens == kind.real[0] * kind.real[1] * kind.real[2]
    assert bool((seen == 1).all())


@settings(max_examples=30)
@given(st.tuples(axes(), axes(), axes()))
def test_rows_of_the_table_exist(three_axes):
    map_xyz, window, shift = zip(*three_axes, strict=True)
    rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
    for kind in box_classes(map_xyz, window, shift):
        for found in (kind.table_rows(), kind.pad_table_rows()):
            assert found.numel() == 0 or (found.min() >= 0 and found.max() < rows)


def test_a_plan_is_made_once():
    assert box_classes((9, 9, 9), (4, 4, 4), (2, 2, 2)) is box_classes(
        (9, 9, 9), (4, 4, 4), (2, 2, 2)
    )


def test_an_axis_that_fits_the_window_is_not_shifted():
    assert effective_window((4, 7, 8), (7, 7, 7), (3, 3, 3)) == ((4, 7, 7), (0, 0, 3))
