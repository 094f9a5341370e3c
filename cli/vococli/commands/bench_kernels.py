"""`voco bench kernels`: our kernels against MONAI's and torch's."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vococli.errors import VERIFICATION
from vococli.output import print_facts, print_json, print_table
from vococli.progress import open_progress

EXAMPLE = "Example: voco bench kernels --quick"


class Device(StrEnum):
    """Names of the devices, as `--device` takes them."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """Names of the arithmetics, as `--precision` takes them."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def kernels(
    size: Annotated[
        list[str] | None,
        typer.Option(help="Network size; repeatable. Default: B, L, H on a GPU, B on a CPU."),
    ] = None,
    crop: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Side of a crop, voxels; repeatable. Default: by device."),
    ] = None,
    stage: Annotated[
        list[int] | None, typer.Option(min=1, help="Stage, from 1; repeatable. Default: all.")
    ] = None,
    maps: Annotated[
        int | None, typer.Option(min=1, help="Maps in a batch. Default: a step's, 1 on a CPU.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    precision: Annotated[
        Precision,
        typer.Option(
            help="Arithmetic. Default: bf16 on a GPU that has it, else fp16; fp32 on a CPU."
        ),
    ] = Precision.auto,
    repeats: Annotated[int | None, typer.Option(min=1, help="Turns that count.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Also torch.compile MONAI's blocks: takes minutes.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases, under a minute.")] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG file to draw the bars into.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time the kernels and their peers. Exit code 5 if results differ."""
    from vocotrain.bench_kernels import bench_kernels, not_timed, resolve_settings, table
    from vocotrain.bench_kernels.chart import write_chart

    settings = resolve_settings(
        device=device.value,
        precision=precision.value,
        sizes=tuple(size or ()),
        crops_vox=tuple(crop or ()),
        stages=tuple(stage or ()),
        maps=maps,
        repeats=repeats,
        is_compiled=compiled,
        is_quick=quick,
    )
    with open_progress() as progress:
        document = bench_kernels(settings, progress.train)
    if plot is not None:
        write_chart(plot, document)
    if as_json:
        print_json(asdict(document))
    else:
        print_facts(document.machine)
        print_facts(asdict(document.limits))
        print_table(*table(document))
        print_facts((f"not timed: {name}", reason) for name, reason in not_timed(document))
    if document.wrong:
        for absence in document.wrong:
            typer.echo(
                f"Error: {absence.kernel_provider} of {absence.x_value} {absence.reason}. "
                "Nothing of it was timed.",
                err=True,
            )
        raise typer.Exit(VERIFICATION)


def add_to(app: typer.Typer) -> None:
    """Register the command under `voco bench`."""
    app.command("kernels", epilog=EXAMPLE)(kernels)
