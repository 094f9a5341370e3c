"""Dice from counts equals MONAI's Dice, and is None where there is nothing to score."""

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot

from vocotrain.dice import (
    ScanDice,
    by_scan,
    count_overlap,
    dice_scores,
    mean_by_class,
    mean_of,
    mean_over_scans,
)

NAMES = ["background", "liver", "spleen", "stomach"]


def test_scores_equal_those_of_monai():
    random = np.random.default_rng(0)
    predicted, truth = (random.integers(0, 4, (6, 7, 8)).astype(np.uint8) for _ in range(2))
    scores = dice_scores(count_overlap(predicted, truth, 4), NAMES)
    hot = [one_hot(torch.from_numpy(a)[None, None], 4) for a in (predicted, truth)]
    expected = compute_dice(*hot, include_background=False)[0]
    assert list(scores.values()) == pytest.approx(expected.tolist())


def test_counts_of_parts_add_up():
    random = np.random.default_rng(1)
    predicted, truth = (random.integers(0, 3, (9, 4, 4)).astype(np.uint8) for _ in range(2))
    parts = count_overlap(predicted[:5], truth[:5], 3) + count_overlap(predicted[5:], truth[5:], 3)
    np.testing.assert_array_equal(parts, count_overlap(predicted, truth, 3))
    assert parts.sum() == 9 * 16


def test_a_class_that_the_truth_lacks_has_no_score():
    truth = np.zeros((2, 2, 2), np.uint8)
    truth[0] = 1
    predicted = np.full_like(truth, 2)
    scores = dice_scores(count_overlap(predicted, truth, 4), NAMES)
    assert scores == {"liver": 0.0, "spleen": None, "stomach": None}


def test_means_are_over_what_there_is():
    scans = [
        ScanDice("a/1", {"liver": 1.0, "spleen": 0.5}),
        ScanDice("a/2", {"liver": 0.5, "spleen": None}),
        ScanDice("a/3", {"liver": None, "spleen": None}),
    ]
    assert mean_by_class(scans, NAMES[:3]) == {"liver": 0.75, "spleen": 0.5}
    assert mean_over_scans(scans) == pytest.approx((0.75 + 0.5) / 2)
    assert mean_of([]) is None
    assert by_scan(scans)["a/2"] == {"liver": 0.5, "spleen": None}
