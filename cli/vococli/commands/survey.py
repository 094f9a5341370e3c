"""`voco data init` and `voco data plan`: what is there, and what a build of it takes."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vococli.errors import ENVIRONMENT
from vococli.output import (
    print_facts,
    print_json,
    print_table,
    size_words,
    time_words,
    write_text,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class StepHu(StrEnum):
    """Steps of HU, as `--step-hu` takes them."""

    one = "1"
    two = "2"
    four = "4"


def add_to(app: typer.Typer) -> None:
    """Hang the commands into `voco data`."""
    app.command(epilog="Example: voco data init scans/ -o manifest.yaml")(init)
    app.command(epilog="Example: voco data plan --sources manifest.yaml --out ct.zarr")(plan)


def init(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder, archive or URL to look at.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Manifest to write; one that is there stays.")
    ] = Path("manifest.yaml"),
    catalog: Annotated[
        str | None, typer.Option(help="Known collection instead of a look: prect160k.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder with the collection's sources.")] = None,
    subset: Annotated[str | None, typer.Option(help="Part of the collection: 10k.")] = None,
    as_json: Json = False,
) -> None:
    """Write a first manifest: layouts, counts, and choices as comments."""
    from vocodata.initial import first_manifest, guess_sources
    from vocodata.manifest import load_manifest
    from vocodata.remote import as_path
    from vocodata.source_catalog import catalog_manifest

    place = folder or root
    if place is None or (folder and root) or (subset and not catalog):
        msg = "give DIR, or --catalog with --root; --subset is for a catalog"
        raise typer.BadParameter(msg)
    if out.exists():
        msg = f"{out} is there already; give another --out"
        raise typer.BadParameter(msg)
    if catalog:
        text = catalog_manifest(catalog, as_path(place).absolute(), subset=subset)
    else:
        text = first_manifest(guess_sources(as_path(place)), folder=out.absolute().parent)
    write_text(out, text)
    sources = load_manifest(out).sources
    if as_json:
        documents = [source.model_dump(mode="json", exclude_defaults=True) for source in sources]
        print_json({"manifest": out, "sources": documents})
        return
    rows = [(s.name, s.layout, s.preset, s.expected or "?", s.root) for s in sources]
    print_table(("source", "layout", "preset", "scans", "root"), rows)
    if any(source.names == "hashed" for source in sources):
        typer.echo(
            "DICOM scans get keyed hashes as names; the manifest says why, and how to keep them."
        )
    then = f"voco data plan --sources {shlex.quote(str(out))}"
    typer.echo(f"Written: {out}. Choose each preset there, then: {then}")


def plan(
    sources: Annotated[Path, typer.Option(help="Manifest: which scans, and where they lie.")],
    out: Annotated[Path, typer.Option(help="Where the store would be.")] = Path("ct.zarr"),
    step_hu: Annotated[
        StepHu, typer.Option(help="As in the build: 2 and 4 round HU to multiples, for less disk.")
    ] = StepHu.one,
    as_json: Json = False,
) -> None:
    """Say what a build will need, from headers alone. Exit code 4 if the disk has no room."""
    from vocodata.executor import usable_cores
    from vocodata.forecast import forecast_build
    from vocodata.manifest import load_manifest

    forecast = forecast_build(load_manifest(sources), out, step_hu=int(step_hu))
    cores = usable_cores()
    if as_json:
        print_json(forecast)
    else:
        rows = [
            (s.name, s.scans, s.expected or "", size_words(s.bytes), f"{s.voxels / 1e6:.0f}")
            for s in forecast.sources
        ]
        print_table(("source", "scans", "expected", "disk", "Mvoxels"), rows)
        free = "" if forecast.free_bytes is None else f", {size_words(forecast.free_bytes)} free"
        took, shared = time_words(forecast.seconds), time_words(forecast.seconds / cores)
        print_facts(
            [
                ("scans", f"{forecast.scans}, {forecast.headers_read} headers read"),
                ("excluded by header", forecast.unreadable),
                ("disk", f"{size_words(forecast.bytes)}{free}"),
                ("time", f"{took} of one core, {shared} on {cores}"),
                ("memory a worker", f"{size_words(forecast.worker_bytes)} ({forecast.largest})"),
                ("fits", forecast.fits),
                *(("count", fault) for fault in forecast.count_faults),
            ]
        )
    if not forecast.fits:
        raise typer.Exit(ENVIRONMENT)
