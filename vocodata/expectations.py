"""What a value of a manifest, a recipe or a table should have been, in our words.

pydantic finds the faults; its own sentences are for programmers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vocodata.remote.path import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

KEYS_AND_VALUES = "keys and values"
_LONGEST_SHOWN = 60
_WORDS: Final[Mapping[str, str]] = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": KEYS_AND_VALUES,
    "model_type": KEYS_AND_VALUES,
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


def expected(fault: ErrorDetails) -> str | None:
    """What was expected instead, to stand behind "expected"; None where only pydantic knows.

    >>> expected({"type": "greater_than", "ctx": {"gt": 0}, "loc": (), "msg": "", "input": -1})
    'more than 0'
    """
    words = _WORDS.get(fault["type"])
    if words is None:
        return None
    context = {
        name: f"{value:g}" if isinstance(value, float) else value
        for name, value in fault.get("ctx", {}).items()
    }
    return words.format(**context)


def shown(value: object) -> str:
    """What came instead, on one line of a usual length, without a URL's secrets."""
    text = redacted(repr(value))
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
