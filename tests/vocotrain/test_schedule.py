import itertools
import math

import pytest

from vocotrain.schedule import learning_rate

RELEASED = {"peak": 1e-4, "warmup_steps": 5000, "total_steps": 2_000_000, "starts_at_zero": True}
OURS = {**RELEASED, "starts_at_zero": False}


def test_the_released_first_update_runs_at_zero_and_ours_does_not():
    assert learning_rate(0, **RELEASED) == 0.0
    assert learning_rate(0, **OURS) == pytest.approx(1e-4 / 5000)


@pytest.mark.parametrize("step", [1, 2500, 4999])
def test_the_released_warm_up_is_linear(step):
    assert learning_rate(step, **RELEASED) == pytest.approx(1e-4 * step / 5000)


@pytest.mark.parametrize("step", [5000, 5001, 1_000_000, 1_999_999])
def test_the_released_cosine(step):
    share = (step - 5000) / (2_000_000 - 5000)
    expected = 1e-4 * 0.5 * (1 + math.cos(math.pi * share))
    assert learning_rate(step, **RELEASED) == pytest.approx(expected, rel=1e-12)


def test_the_rate_never_rises_after_the_peak_nor_past_the_end():
    settings = {"peak": 1.0, "warmup_steps": 5, "total_steps": 50, "starts_at_zero": False}
    rates = [learning_rate(step, **settings) for step in range(4, 120)]
    assert rates[0] == rates[1] == 1.0
    assert all(late <= early for early, late in itertools.pairwise(rates))
    assert set(rates[-60:]) == {0.0}


def test_no_warm_up_starts_at_the_peak():
    assert learning_rate(0, peak=2.0, warmup_steps=0, total_steps=10, starts_at_zero=True) == 2.0
