from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocodata.geometry import Size, Spacing
from vocotrain.fields import (
    MONITOR_STREAM,
    FieldSettings,
    batch_sample_indices,
    plan_field,
)
from vocotrain.scan_table import ScanRow, ScanTable

SPACING = Spacing(1.5, 1.5, 1.5)
PLAIN = FieldSettings(grid=Size(3, 3, 1), crop_vox=Size(8, 8, 8), crops=2)
RELEASED = replace(
    PLAIN,
    reach_last=False,
    shift_probability=0.5,
    shift_range=0.1,
    crop_flips=(0.2, 0.2, 0.2),
    crop_turn=0.2,
    row_dropout=0.2,
)
TABLE = ScanTable(
    (
        ScanRow("a/big", Size(40, 30, 9), SPACING, (-175.0, 250.0), weight=3.0),
        ScanRow("a/small", Size(10, 24, 5), SPACING, (-1000.0, 500.0), weight=1.0),
    )
)


def plans(count, settings=PLAIN, table=TABLE, **more):
    return [plan_field(table, settings, seed=7, sample_index=i, **more) for i in range(count)]


def as_bytes(plan):
    arrays = [v.tobytes() for v in vars(plan).values() if isinstance(v, np.ndarray)]
    return (plan.scan.id, plan.start_XYZ, *arrays)


def test_a_sample_depends_on_its_index_alone():
    forwards = plans(6, RELEASED)
    backwards = [plan_field(TABLE, RELEASED, seed=7, sample_index=i) for i in reversed(range(6))]
    assert [as_bytes(p) for p in forwards] == [as_bytes(p) for p in reversed(backwards)]


def test_index_seed_and_stream_each_change_the_sample():
    same = {"seed": 7, "sample_index": 3}
    reference = as_bytes(plan_field(TABLE, RELEASED, **same))
    for other in ({"seed": 8}, {"sample_index": 4}, {"stream": MONITOR_STREAM}):
        assert as_bytes(plan_field(TABLE, RELEASED, **{**same, **other})) != reference


@given(st.integers(0, 2**40), st.sampled_from([1, 2, 4, 8]))
def test_another_number_of_processes_makes_the_same_samples(step, world):
    together = list(batch_sample_indices(step, batch_size=8))
    apart = [
        index
        for rank in range(world)
        for index in batch_sample_indices(step, batch_size=8, rank=rank, world=world)
    ]
    assert apart == together
    assert next(iter(batch_sample_indices(step + 1, batch_size=8))) == together[-1] + 1


def test_scans_are_drawn_in_proportion_to_their_weights():
    names = [plan.scan.id for plan in plans(2000)]
    assert names.count("a/big") / 2000 == pytest.approx(0.75, abs=0.03)


def test_a_field_lies_inside_a_large_scan_and_reaches_both_ends():
    starts = [p.start_XYZ for p in plans(2000) if p.scan.id == "a/big"]
    assert {s.x for s in starts} == set(range(17))
    assert {s.y for s in starts} == set(range(7))
    assert {s.z for s in starts} == {0, 1}


def test_a_small_scan_lies_in_the_middle_of_its_field():
    start = next(p.start_XYZ for p in plans(50) if p.scan.id == "a/small")
    assert start == Size(-7, 0, -1)  # 14 missing along x: 7 and 7; 3 along z: 1 and 2


def test_nothing_is_changed_unless_asked_for():
    for plan in plans(20):
        assert not plan.shift_M.any()
        assert not plan.crop_flip_M3.any()
        assert not plan.turns_M.any()
        assert not plan.field_flip_3.any()
        assert plan.keep_M.all()


def test_the_released_changes_come_with_their_probabilities():
    drawn = plans(3000, RELEASED)
    shifts = np.concatenate([p.shift_M for p in drawn])
    turns = np.concatenate([p.turns_M for p in drawn])
    assert np.mean(shifts != 0) == pytest.approx(0.5, abs=0.01)
    assert np.abs(shifts).max() == pytest.approx(0.1, abs=0.001)
    assert shifts.mean() == pytest.approx(0, abs=0.002)
    assert np.mean([p.crop_flip_M3.mean(axis=0) for p in drawn], axis=0) == pytest.approx(
        [0.2] * 3, abs=0.01
    )
    for quarter in (1, 2, 3):
        assert np.mean(turns == quarter) == pytest.approx(0.2 / 3, abs=0.006)
    assert np.mean([p.keep_M.mean() for p in drawn]) == pytest.approx(0.8, abs=0.01)


def test_one_probability_leaves_every_other_draw_alone():
    for before, after in zip(plans(20), plans(20, RELEASED), strict=True):
        assert before.scan == after.scan
        assert before.start_XYZ == after.start_XYZ
    moved = replace(PLAIN, field_flips=(1.0, 0.0, 0.0))
    for before, after in zip(plans(20), plans(20, moved), strict=True):
        assert after.field_flip_3.tolist() == [True, False, False]
        np.testing.assert_array_equal(before.label_NK, after.label_NK)


def test_random_crops_come_first_and_base_cells_after():
    plan = plans(1)[0]
    assert plan.crop_start_M3.shape == (11, 3)
    assert plan.crop_start_M3[2:].tolist()[:4] == [[0, 0, 0], [0, 8, 0], [0, 16, 0], [8, 0, 0]]
    assert plan.label_NK.shape == (2, 9)


def test_a_deeper_grid_moves_crops_along_z_too():
    deep = replace(PLAIN, grid=Size(2, 2, 2))
    z = {int(p.crop_start_M3[0, 2]) for p in plans(300, deep)}
    assert z == set(range(9))
    assert plans(1, deep)[0].label_NK.shape == (2, 8)


def test_the_numbers_of_a_sample_stay_as_they_are():
    """A change here changes every run that is resumed with a newer version."""
    plan = plan_field(TABLE, RELEASED, seed=1, sample_index=123456789012)
    assert plan.scan.id == "a/big"
    assert plan.start_XYZ == Size(16, 0, 0)
    assert plan.crop_start_M3[:2].tolist() == [[1, 6, 0], [6, 6, 0]]
