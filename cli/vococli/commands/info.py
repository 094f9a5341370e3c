"""`voco info`: versions, or what lies at a path."""

from pathlib import Path
from typing import Annotated

import typer

from vococli.output import print_facts, print_json

EXAMPLE = "Example: voco info ct.zarr"


def info(
    path: Annotated[
        Path | None, typer.Argument(help="A store, a run, weights, or a scan. Default: versions.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what lies at a path, or which versions are installed."""
    from vocotrain.inspection import inspect_path, inspect_toolkit

    found = inspect_toolkit() if path is None else inspect_path(path)
    if as_json:
        print_json({"kind": found.kind, **found.facts})
    else:
        print_facts([("kind", found.kind), *found.facts.items()])
