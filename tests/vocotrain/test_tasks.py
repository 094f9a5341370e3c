"""The table of downstream tasks: every row resolves, and what is wrong is said."""

import pytest

from vocodata.presets import preset
from vocotrain.errors import ConfigError
from vocotrain.sizes import model_size
from vocotrain.tasks import changed, load_tasks, parse_tasks, task

ROW = """
- {name: one, title: t, kind: segmentation, sided: false, preset: null, spacing_mm: [1.5, 1.5, 1.5],
   window_hu: [-175.0, 250.0], roi_vox: [96, 96, 96], crops_per_volume: 4,
   pos_neg: [1, 1], overlap: 0.75, lr: 0.0003, weight_decay: 0.00001,
   epochs: 5, warmup_epochs: 1, train_scans: 2, out_channels: 2,
   classes: [background, liver], source: here}
"""


@pytest.mark.parametrize("name", list(load_tasks()))
def test_every_cross_reference_of_a_row_resolves(name):
    row = task(name)
    if row.preset is not None:
        assert preset(row.preset).spacing_mm == row.spacing_mm
    step = model_size("tiny" if name.startswith("demo-") else "B").step_vox
    assert all(side % step == 0 for side in row.roi_vox)
    assert row.source


def test_the_figures_are_those_of_the_source():
    btcv, vessel = task("btcv"), task("msd-vessel")
    assert (btcv.epochs, btcv.warmup_epochs, btcv.pos_neg, btcv.lr) == (1000, 20, (9, 1), 3e-4)
    assert (vessel.roi_vox, vessel.spacing_mm) == ((192, 192, 32), (1.0, 1.0, 5.0))
    assert task("amos22").weight_decay == 0.005
    assert task("abdomenatlas").lr == 1e-3


def test_a_task_misspelled_gets_the_nearest_name_and_the_list():
    words = r"Task 'btvc' is not in tasks\.yaml; expected one of .*, .*\. Did you mean 'btcv'\?"
    with pytest.raises(ConfigError, match=words):
        task("btvc")


def test_a_task_like_no_other_gets_the_list():
    with pytest.raises(ConfigError, match="expected one of demo-liver, demo-organs, btcv"):
        task("zzzzzzzzzz")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("overlap: 0.75", "overlap: 1.5", r"0\.overlap: Input should be less than 1"),
        ("source: here", "source: here, colour: red", r"0\.colour: Extra inputs"),
        ("lr: 0.0003", "lr: '3e-4'", r"0\.lr: Input should be a valid number"),
        ("[-175.0, 250.0]", "[250.0, -175.0]", "expected the lower end first"),
        ("pos_neg: [1, 1]", "pos_neg: [0, 0]", "expected at least one of them above 0"),
        ("epochs: 5", "epochs: null", "expected exactly one of them"),
        ("[background, liver]", "[liver, background]", "expected 'background' first"),
        ("[background, liver]", "[background, Liver, liver]", "expected each name once"),
        ("out_channels: 2", "out_channels: 3", "2 classes for 3 output channels"),
    ],
)
def test_a_wrong_row_is_refused_with_its_key(old, new, words):
    assert old in ROW
    with pytest.raises(ConfigError, match=words):
        parse_tasks(ROW.replace(old, new))


def test_a_name_that_comes_twice_is_refused():
    with pytest.raises(ConfigError, match="one comes more than once"):
        parse_tasks(ROW + ROW)


def test_new_class_names_bring_their_number_of_channels():
    row = changed(task("amos22"), {"classes": ("background", "spleen", "liver")})
    assert row.out_channels == 3


def test_a_change_that_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="Task 'btcv': window_hu is"):
        changed(task("btcv"), {"window_hu": (10.0, -10.0)})
