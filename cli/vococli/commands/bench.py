"""`voco bench ...`: speed on this machine, each with the peers in the same run."""

import typer

from vococli.commands import bench_kernels, bench_loader

app = typer.Typer(
    help="Measure speed on this machine, peers in the same run.", no_args_is_help=True
)
bench_kernels.add_to(app)
bench_loader.add_to(app)
