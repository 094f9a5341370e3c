"""`voco doctor`: is this machine fit?"""

from pathlib import Path
from typing import Annotated

import typer

from vococli.errors import ENVIRONMENT
from vococli.output import print_json, print_table

EXAMPLE = "Example: voco doctor --json > machine.json"


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Look at this machine: packages, GPU, memory, disk. Exit code 4 if something is missing."""
    from vocotrain.doctor import examine, is_fit

    checks = examine(Path.cwd())
    fit = is_fit(checks)
    if as_json:
        print_json({"fit": fit, "checks": checks})
    else:
        print_table(
            ("", "what", "found", "advice"), [(c.status, c.name, c.value, c.advice) for c in checks]
        )
        typer.echo("Fit for work." if fit else "Not fit: see the rows marked 'bad'.")
    if not fit:
        raise typer.Exit(ENVIRONMENT)
