import math
import re
import xml.etree.ElementTree as ET

import pytest

from vocotrain.charts import Line, line_chart, ticks


def heights(svg: str) -> list[float]:
    """Heights of the first path's points, downwards."""
    path = re.search(r'<path d="M([^"]+)"', svg)
    return [float(point.split()[1]) for point in path[1].split("L")]


def test_a_rising_value_rises_on_the_picture():
    svg = line_chart([Line("loss", [0, 1, 2], [1.0, 2.0, 3.0], "line-1")], x_title="", y_title="")
    assert heights(svg) == sorted(heights(svg), reverse=True)


def test_a_chart_is_well_formed_and_says_what_it_shows():
    svg = line_chart(
        [Line("a <b> & c", [0, 10], [0.5, 0.25], "line-1", dots=True)],
        x_title="step",
        y_title="share",
    )
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "share over step: a <b> & c"
    assert root.get("role") == "img"


def test_points_that_are_not_numbers_are_left_out():
    line = Line("loss", [0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0], "line-1")
    assert len(heights(line_chart([line], x_title="", y_title=""))) == 2


def test_a_line_of_one_point_is_a_dot():
    assert "<circle" in line_chart([Line("loss", [1], [0.5], "line-1")], x_title="", y_title="")


def test_no_step_lies_between_two():
    line = Line("loss", [1, 2], [0.5, 0.4], "line-1")
    words = re.findall(r'middle">([^<]*)<', line_chart([line], x_title="step", y_title="loss"))
    assert words == ["1", "2", "step", "loss"]


@pytest.mark.parametrize("values", [[], [0.0], [2.0, 2.0]])
def test_a_chart_of_little_is_still_a_chart(values):
    line = Line("loss", list(range(len(values))), values, "line-1")
    ET.fromstring(line_chart([line], x_title="x", y_title="y"))


def test_a_given_range_holds_the_axis():
    line = Line("share", [0, 1], [0.25, 0.25], "line-1")
    low = line_chart([line], x_title="", y_title="", y_range=(0, 1))
    assert heights(low)[0] > heights(line_chart([line], x_title="", y_title=""))[0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0.0, 0.25, 0.5, 0.75, 1.0]), (10, 400, [100.0, 200.0, 300.0, 400.0])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == expected
