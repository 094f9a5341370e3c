"""Which scans a task can use, by the names of their labels, and why not the others."""

import numpy as np
import pytest

from vocodata.store import open_store
from vocotrain.errors import ConfigError, LabelsError
from vocotrain.labelled_scans import label_classes, split_scans, to_classes
from vocotrain.tasks import changed, task

DEMO = task("demo-organs")
AIR = np.full((8, 8, 8), -1000, np.int16)


def ids(scans):
    return [scan.id for scan in scans]


def test_labels_are_matched_by_name_not_by_value():
    table = label_classes(
        {5: "Right Kidney", 2: "spleen"}, ["background", "spleen", "right_kidney"]
    )
    labels = np.array([[[0, 2, 5, 1, 9]]], np.uint16)
    assert to_classes(labels, table).tolist() == [[[0, 1, 2, 0, 0]]]


def test_several_values_of_one_name_are_one_class():
    """Both kidneys may be called kidney: none of them may turn into background."""
    table = label_classes({1: "kidney", 2: "Kidney", 3: "liver"}, ["background", "kidney"])
    assert table.tolist() == [0, 1, 1, 0]


def test_every_scan_is_trained_on_held_out_or_left_out_with_a_reason(build_labelled_store):
    other = {"hu": AIR, "labels": np.ones((8, 8, 8), np.uint8), "spacing_mm": DEMO.spacing_mm}
    store = open_store(
        build_labelled_store(
            6,
            extra=(
                {"scan_id": "x/no-spleen", **other, "names": {1: "liver"}},
                {"scan_id": "x/coarse", **other, "names": {1: "liver"}, "spacing_mm": (6, 6, 6)},
                {"scan_id": "x/bare", **other, "names": None, "labels": None},
            ),
        )
    )
    split = split_scans(store, DEMO)
    seen = [*ids(split.train), *ids(split.holdout), *split.left_out]
    assert sorted(seen) == store.ids()
    assert len(split.holdout) == 1
    assert split.left_out["x/no-spleen"] == "its labels do not name spleen"
    assert "its grid is 6 x 6 x 6 mm, the task asks for 5 x 5 x 5 mm" in split.left_out["x/coarse"]
    assert "no labels" in split.left_out["x/bare"]


def test_scans_are_chosen_by_id_or_pattern(build_labelled_store):
    store = open_store(build_labelled_store(4))
    split = split_scans(store, DEMO, holdout=["phantom/03"])
    assert ids(split.train) == ["phantom/00", "phantom/01", "phantom/02"]
    split = split_scans(store, DEMO, train=["phantom/0[01]"], holdout=[])
    assert (ids(split.train), ids(split.holdout)) == (["phantom/00", "phantom/01"], [])


def test_a_scan_in_both_lists_is_refused(build_labelled_store):
    store = open_store(build_labelled_store(3))
    with pytest.raises(ConfigError, match="phantom/01 would be trained on and held out"):
        split_scans(store, DEMO, train=["phantom/*"], holdout=["phantom/01"])


def test_a_pattern_that_matches_nothing_is_refused(build_labelled_store):
    store = open_store(build_labelled_store(2))
    with pytest.raises(ConfigError, match=r"data\.holdout 'fantom/01' matches no scan.*mean 'phan"):
        split_scans(store, DEMO, holdout=["fantom/01"])


def test_a_scan_asked_for_by_id_that_cannot_serve_is_refused(build_labelled_store):
    bare = {
        "scan_id": "x/bare",
        "hu": AIR,
        "labels": None,
        "names": None,
        "spacing_mm": DEMO.spacing_mm,
    }
    store = open_store(build_labelled_store(2, extra=(bare,)))
    with pytest.raises(LabelsError, match="Scan 'x/bare' was asked for, but it has no labels"):
        split_scans(store, DEMO, holdout=["x/bare"])


def test_a_store_without_the_classes_says_what_is_missing(build_labelled_store):
    store = open_store(build_labelled_store(3, names={1: "femur"}))
    words = r"0 held out, 3 left out: 3 because its labels do not name liver, spleen\. Expected"
    with pytest.raises(LabelsError, match=words):
        split_scans(store, DEMO)


def test_a_task_without_class_names_asks_for_those_of_the_store(build_labelled_store):
    store = open_store(build_labelled_store(1))
    words = r"'amos22' has 16 classes but its source does not name them.*Liver"
    with pytest.raises(ConfigError, match=words):
        split_scans(store, task("amos22"))


def test_named_classes_make_such_a_task_usable(build_labelled_store):
    store = open_store(build_labelled_store(2))
    row = changed(
        task("amos22"), {"classes": ("background", "stomach"), "spacing_mm": DEMO.spacing_mm}
    )
    assert len(split_scans(store, row, holdout=[]).train) == 2
