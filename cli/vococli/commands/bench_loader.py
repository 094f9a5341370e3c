"""`voco bench loader`: crops out of stored volumes, our store against what people use."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vococli.output import print_facts, print_json, print_table

EXAMPLE = "Example: voco bench loader --quick"


def loader(
    quick: Annotated[bool, typer.Option("--quick", help="One volume, under a minute.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Where volumes are made, 2 GB. Default: temporary.", exists=True, file_okay=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time crops from the store and its peers. Exit code 5 if voxels differ."""
    from vocotrain.bench_loader import bench_loader, goals, resolve_settings, table

    report = bench_loader(
        resolve_settings(is_quick=quick), lambda text: typer.echo(text, err=True), folder=folder
    )
    if as_json:
        print_json(asdict(report))
        return
    print_table(*table(report))
    print_table(*goals(report))
    per_voxel = ", ".join(f"{kind} {n:.2f}" for kind, n in report.bytes_per_voxel.items())
    print_facts([("machine", report.machine), ("bytes a voxel", per_voxel)])


def add_to(app: typer.Typer) -> None:
    """Register the command under `voco bench`."""
    app.command("loader", epilog=EXAMPLE)(loader)
