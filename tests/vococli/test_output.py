import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vococli.output import print_facts, print_json, print_table


@dataclass(frozen=True)
class Thing:
    place: Path
    size: np.int64


def test_dataclasses_paths_and_numpy_numbers_become_plain_json(capsys):
    print_json({"things": (Thing(Path("a/b"), np.int64(3)),), "names": frozenset({"x"})})
    assert json.loads(capsys.readouterr().out) == {
        "things": [{"place": "a/b", "size": 3}],
        "names": ["x"],
    }


def test_what_has_no_json_form_is_refused():
    with pytest.raises(TypeError, match="object has no JSON form"):
        print_json({"thing": object()})


def test_values_are_written_for_people(capsys):
    print_facts(
        {"a": None, "b": True, "c": 0.123456, "d": {"x": 1, "y": [2.0, 3.0]}, "e": {}, "f": 12}
    )
    values = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
    assert values == ["none", "yes", "0.1235", "x 1, y 2 3", "none", "12"]


def test_facts_stand_in_one_column(capsys):
    print_facts([("a", 1), ("long name", "two")])
    assert capsys.readouterr().out.splitlines() == ["a          1", "long name  two"]


def test_a_table_is_aligned_and_an_empty_one_is_nothing(capsys):
    print_table(("id", "reason"), [("x", "bad"), ("longer", "worse")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["id      reason", "x       bad", "longer  worse"]
    print_table(("id",), [])
    assert capsys.readouterr().out == ""
