import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import vocotrain
from vocodata.geometry import Size
from vocotrain.config import VARIANTS, PretrainConfig, config_yaml, load_config, recipe_names
from vocotrain.errors import ConfigError
from vocotrain.settings import keys_of

GIVEN = ("data.store=ct.zarr", "out=run")


def test_every_recipe_is_complete_but_for_store_and_output():
    assert {"reference", "tiny", "voco"} <= set(recipe_names())
    for name in recipe_names():
        assert load_config(name, GIVEN).data.store == "ct.zarr"
        with pytest.raises(ConfigError, match=r"2 faults(.|\n)*data.store(.|\n)*out"):
            load_config(name)


def test_the_recipe_follows_from_the_model_size():
    tiny = load_config("tiny", GIVEN)
    assert load_config(None, (*GIVEN, "model.size=tiny")) == tiny
    assert load_config(None, GIVEN, values={"model.size": "tiny"}) == tiny
    large = load_config(None, (*GIVEN, "model.size=L"))
    assert large == load_config("voco", (*GIVEN, "model.size=L"))


def test_the_variant_decides_what_a_recipe_leaves_out_and_each_repair_can_be_switched():
    released = load_config("tiny", (*GIVEN, "objective.variant=reference")).objective
    assert (released.row_dropout, released.teacher_momentum) == (0.2, 0.9)
    assert (released.teacher_start, released.teacher_update) == ("random", "before_use")
    assert released.reach_last is False
    mixed = load_config(
        "tiny", (*GIVEN, "objective.variant=reference", "objective.row_dropout=0")
    ).objective
    assert (mixed.row_dropout, mixed.teacher_momentum) == (0.0, 0.9)
    assert VARIANTS["reference"].keys() == VARIANTS["voco"].keys()


def test_the_reference_recipe_repeats_the_released_script():
    config = load_config("reference", GIVEN)
    assert config.objective.variant == "reference"
    assert config.optim.amsgrad
    assert config.optim.warmup_from_zero
    assert config.optim.clip_norm is None
    assert (config.optim.lr, config.optim.warmup_steps, config.train.steps) == (1e-4, 5000, 2000000)


def test_a_set_wins_over_a_value_which_wins_over_the_recipe():
    values = {"train.seed": 1, "train.steps": 7, "data.store": "123", "out": "yes"}
    config = load_config("tiny", ("train.seed=2",), values=values)
    assert (config.train.seed, config.train.steps) == (2, 7)
    assert (config.data.store, config.out) == ("123", "yes")  # never read as YAML


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", "0.001", "1E-3", ".001"])
def test_a_small_number_may_be_written_as_people_write_it(text):
    assert load_config("tiny", (*GIVEN, f"optim.lr={text}")).optim.lr == 1e-3


def test_lists_can_be_set():
    config = load_config("tiny", (*GIVEN, "data.holdout=[a/b, 'c/*']", "objective.grid=[2, 2, 2]"))
    assert config.data.holdout == ("a/b", "c/*")
    assert config.objective.field_settings(Size(32, 32, 32)).field_vox == Size(64, 64, 64)


def test_the_crop_is_the_sizes_own_unless_set():
    own = Size(40, 40, 48)
    free = load_config("reference", GIVEN)
    assert free.objective.field_settings(own).crop_vox == own
    config = load_config("reference", (*GIVEN, "objective.crop_vox=[16, 16, 32]"))
    assert config.objective.field_settings(own).crop_vox == Size(16, 16, 32)


def test_turns_of_a_crop_that_is_not_square_are_refused():
    with pytest.raises(
        ConfigError, match=r"crop_turn is 0\.2, but objective\.crop_vox is \[16, 24"
    ):
        load_config("reference", (*GIVEN, "objective.crop_vox=[16, 24, 32]"))


def test_all_faults_are_told_at_once_with_their_keys():
    with pytest.raises(ConfigError) as caught:
        load_config(
            "voco",
            (
                "data.store=s",
                "model.sze=B",
                "steps=4",
                "train.steps=many",
                "optim.lr=-1",
                "objective.grid=[1, 1]",
                "train.batch_size=1",
            ),
        )
    message = str(caught.value)
    for expected in (
        "7 faults in recipe 'voco':",
        "model.sze: no such key. Did you mean 'model.size'?",
        "steps: no such key. Did you mean 'train.steps'?",
        'train.steps is "many"; expected a whole number.',
        "optim.lr is -1; expected more than 0.",
        "objective.grid.2: missing; expected one more value. Give --set",
        "train.batch_size is 1; expected 2 or more.",
        "out: missing; expected a folder for the run. Give --out RUN, or write it into a recipe.",
    ):
        assert expected in message, message


def test_a_group_that_is_missing_is_told_by_the_keys_that_it_needs(tmp_path):
    (tmp_path / "r.yaml").write_text("model: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "r.yaml")
    message = str(caught.value)
    assert "data.store: missing; expected a folder or URL of a store that" in message
    assert "Give --data STORE, or write it" in message
    assert "model is 3; expected keys and values." in message
    assert "train.steps: missing; expected" in message
    assert "Give --set train.steps=..., or write it" in message
    assert "data.holdout" not in message


def test_a_grid_of_one_cell_is_refused():
    with pytest.raises(ConfigError, match=r"objective.grid has one cell; expected at least two"):
        load_config("tiny", (*GIVEN, "objective.grid=[1, 1, 1]"))


@pytest.mark.parametrize("text", ["0.5", '"1"', "true", "null"])
def test_nothing_is_taken_for_a_whole_number_but_one(text):
    with pytest.raises(ConfigError, match=r"train\.steps"):
        load_config("tiny", (*GIVEN, f"train.steps={text}"))


def test_not_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        load_config("tiny", (*GIVEN, "optim.lr=.nan"))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("train.steps", "expected key=value"),
        ("=3", "expected key=value"),
        ("train..steps=3", "expected key=value"),
        ("train.steps=[", "not plain YAML"),
        ("train=&a [*a]", "not plain YAML"),
        ("data.holdout=!!binary aGVsbG8=", "not plain YAML"),
        ("data.holdout=!!set {a, b}", "not plain YAML"),
        ("train.steps.more=1", "'steps' is a value, not a group"),
    ],
)
def test_a_word_that_sets_nothing_is_refused(word, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config("tiny", (*GIVEN, word))


def test_an_unknown_recipe_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"No recipe is named 'vocco'.*Did you mean 'voco'"):
        load_config("vocco", GIVEN)


def test_a_recipe_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.yaml cannot be read: No such file"):
        load_config(tmp_path / "mine.yaml", GIVEN)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1\n", "holds list; expected keys"),
        ("a: [\n", "not readable YAML"),
        ("train:\n  steps: 1\n  steps: 2\n", "'steps' is there twice"),
        ("a: !!python/object/apply:os.system [ls]\n", "not readable YAML"),
        ("a: &a\n  b: *a\n", "not readable YAML"),
        ("a: !!binary aGVsbG8=\n", "not readable YAML"),
        ("a: " + "[" * 2000 + "]" * 2000 + "\n", "not readable YAML"),
        (b"\xac\xed", "mine.yaml is no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config(path, GIVEN)


def test_the_resolved_settings_are_read_back_as_they_were(tmp_path):
    config = load_config("reference", (*GIVEN, "data.holdout=[x]", "threads=2"))
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(config))
    assert load_config(path) == config


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_config("tiny", GIVEN).train.steps = 3


def test_no_setting_is_unused():
    """A setting that nothing reads is a promise that nothing keeps."""
    folder = Path(vocotrain.__file__).parent
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    for key in keys_of(PretrainConfig):
        part, _, name = f"config.{key}".rpartition(".")
        read = rf"\b({part.rsplit('.', 1)[-1]}|self|settings)\.{name}\b"
        assert re.search(read, text), f"{key} is read nowhere"
