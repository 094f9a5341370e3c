"""Results on stdout: aligned lines for people, one JSON document for machines."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import typer


def print_json(document: object) -> None:
    """Write one JSON document; dataclasses become objects, paths text."""
    typer.echo(json.dumps(document, indent=2, default=_plain))


def print_facts(facts: Mapping[str, object] | Iterable[tuple[str, object]]) -> None:
    """Write one `name  value` line a fact, the values in one column."""
    rows = list(facts.items() if isinstance(facts, Mapping) else facts)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {_words(value)}".rstrip())


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows under a header, columns aligned; nothing when there are no rows."""
    if not rows:
        return
    lines = [list(header), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def plan_and_fact(
    plan: Mapping[str, float] | None, fact: Mapping[str, float]
) -> list[tuple[str, str, str]]:
    """Rows of what a build expected and what came of it, in units for people.

    >>> plan_and_fact(None, {"scans": 2, "bytes": 5e9, "seconds": 7200, "worker_bytes": 8e8})[1]
    ('disk', '', '5.00 GB')
    """
    units = {
        "scans": ("scans", 1, "{:.0f}"),
        "bytes": ("disk", 1e9, "{:.2f} GB"),
        "seconds": ("core hours", 3600, "{:.2f}"),
        "worker_bytes": ("memory a worker", 1e9, "{:.2f} GB"),
    }

    def shown(values: Mapping[str, float] | None, key: str) -> str:
        _, unit, form = units[key]
        return "" if values is None else form.format(values[key] / unit)

    return [(name, shown(plan, key), shown(fact, key)) for key, (name, _, _) in units.items()]


def _words(value: object) -> str:
    """A value as a person reads it."""
    if value is None or value in ({}, [], ()):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_words, value))
    return str(value)


def _plain(value: Any) -> object:  # noqa: ANN401 - json asks for anything that it cannot write
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    msg = f"{type(value).__name__} has no JSON form"
    raise TypeError(msg)
