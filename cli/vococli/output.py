"""Results on stdout: aligned lines for people, one JSON document for machines."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def write_text(path: Path, text: str) -> None:
    """Write the file that an option names, whole or not at all, with the folders above it."""
    from vocodata.remote.path import is_url
    from vocodata.store.atomic import make_folder, write_atomic

    if is_url(str(path)):
        msg = f"{path} is on a server; expected a file of this machine"
        raise typer.BadParameter(msg)
    make_folder(path.parent)
    write_atomic(path, text.encode())


def plan_and_fact(
    plan: Mapping[str, float] | None, fact: Mapping[str, float]
) -> list[tuple[str, str, str]]:
    """Rows of what a build expected and what came of it, in units for people.

    >>> plan_and_fact(None, {"scans": 2, "bytes": 5e9, "seconds": 7200, "worker_bytes": 8e8})[1]
    ('disk', '', '5.00 GB')
    """
    units: dict[str, tuple[str, Callable[[float], str]]] = {
        "scans": ("scans", "{:.0f}".format),
        "bytes": ("disk", size_words),
        "seconds": ("time of one core", time_words),
        "worker_bytes": ("memory a worker", size_words),
    }

    def shown(values: Mapping[str, float] | None, key: str) -> str:
        return "" if values is None else units[key][1](values[key])

    return [(name, shown(plan, key), shown(fact, key)) for key, (name, _) in units.items()]


def size_words(count: float) -> str:
    """Bytes in the unit that fits.

    >>> [size_words(count) for count in (0, 967_923, 5.2e9, 7.1e12)]
    ['0 kB', '968 kB', '5.20 GB', '7.10 TB']
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count / 1e3:.0f} kB"


def time_words(seconds: float) -> str:
    """A time in the unit that fits.

    >>> [time_words(seconds) for seconds in (0.3, 90, 5400)]
    ['0.3 s', '1.5 min', '1.5 h']
    """
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds:.1f} s"


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
