"""What a data set says of itself in a JSON file: `dataset.json`, or a list of scans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vocodata.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vocodata.manifest import Source
    from vocodata.tree import Tree

MAX_LABEL = 65535
"""Labels are stored in at most 16 bits."""


def read_json(source: Source, path: Path, tree: Tree | None, *, needed: bool) -> dict[str, Any]:
    """The object that a JSON file holds.

    Args:
        source: Whose file it is.
        path: Where it is: in the tree or, without one, beside it.
        tree: Of the source, or None.
        needed: Whether its absence is an error; else it is an object without keys.

    Raises:
        ManifestError: It is not there, cannot be read, or is not JSON with an object.
    """
    is_there = path.is_file() if tree is None else tree.exists(path)
    if not is_there and not needed:
        return {}
    try:
        text = path.read_text(encoding="utf-8") if tree is None else tree.read_text(path)
        # Windows puts a mark before a text.
        about = json.loads(text.removeprefix("\ufeff"))
    except FileNotFoundError as error:
        msg = f"Source '{source.name}': {path} is not there; layout '{source.layout}' needs it."
        raise ManifestError(msg) from error
    except OSError as error:
        msg = f"Source '{source.name}': {path} cannot be read ({error.strerror or error})."
        raise ManifestError(msg) from error
    except (ValueError, RecursionError) as error:
        msg = f"Source '{source.name}': {path} is not JSON ({error})."
        raise ManifestError(msg) from error
    if not isinstance(about, dict):
        msg = f"Source '{source.name}': {path} holds a {type(about).__name__}; expected an object."
        raise ManifestError(msg)
    return about


def label_names_of(about: Mapping[str, Any]) -> dict[int, str] | None:
    """Label value -> structure from a dataset.json, which may say it either way round.

    Background and regions of several values (nnU-Net) are left out.

    >>> label_names_of({"labels": {"background": 0, "liver": 1, "all": [1, 2]}})
    {1: 'liver'}
    >>> label_names_of({"labels": {"0": "background", "1": "liver"}})
    {1: 'liver'}
    """
    labels = about.get("labels")
    if not isinstance(labels, dict):
        return None
    names: dict[int, str] = {}
    for key, value in labels.items():
        if isinstance(value, int) and not isinstance(value, bool):
            names[value] = str(key)
        elif isinstance(value, str) and str(key).isdecimal():
            names[int(key)] = value
        elif isinstance(value, str) and value.isdecimal():
            names[int(value)] = str(key)
    return {value: names[value] for value in sorted(names) if 0 < value <= MAX_LABEL} or None


def refuse_not_ct(source: Source, channels: object) -> None:
    """Refuse a data set whose first channel is said to be something else than CT.

    Args:
        source: The data set.
        channels: What it says, if anything: a text, a list, or an object of them by number.

    Raises:
        ManifestError: It is no CT.
    """
    if isinstance(channels, dict):
        channels = [channels[number] for number in sorted(channels, key=_number)]
    first = next(iter(channels), None) if isinstance(channels, list) else channels
    if isinstance(first, str) and not any(word in first.upper() for word in ("CT", "COMPUTED")):
        msg = (
            f"Source '{source.name}': its dataset.json says that the images are {first}; "
            "expected CT. Take the source out."
        )
        raise ManifestError(msg)


def _number(key: object) -> int:
    """A channel's number; what is none comes last."""
    return int(str(key)) if str(key).isdecimal() else MAX_LABEL
