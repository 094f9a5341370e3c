"""`voco data ...`: from scans to a store."""

import shlex
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vococli.commands import survey
from vococli.errors import INPUT_DATA, VERIFICATION
from vococli.output import plan_and_fact, print_facts, print_json, print_table
from vococli.progress import open_progress

app = typer.Typer(help="Build, look at and verify stores of CT scans.", no_args_is_help=True)
survey.add_to(app)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Codec(StrEnum):
    """Names of the codecs, as `--codec` takes them."""

    zstd = "zstd"
    lz4 = "lz4"


def as_text(path: str) -> str:
    """The path of a store, which its ledger and its catalogue hold as text.

    Raises:
        typer.BadParameter: Its bytes are no UTF-8.
    """
    from vocodata.remote.path import is_url

    whole = path if is_url(path) else str(Path(path).absolute())
    try:
        whole.encode()
    except UnicodeEncodeError as error:
        msg = f"{whole!r} is no UTF-8 text, which the path of a store must be; rename the folder"
        raise typer.BadParameter(msg) from error
    return path


StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder of a store.", callback=as_text)
]


@app.command(epilog="Example: voco data build --sources manifest.yaml --out ct.zarr --workers 8")
def build(
    sources: Annotated[Path, typer.Option(help="Manifest: which scans, and where they lie.")],
    out: Annotated[
        str,
        typer.Option(metavar="STORE", help="Folder of the store to write.", callback=as_text),
    ],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a build.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what lies at --out.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 works in this one. Default: by cores.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler to use instead of --workers.")
    ] = None,
    max_excluded: Annotated[
        int | None,
        typer.Option(min=0, help="Exit with code 3 if more scans than this are excluded."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="File of the build's ledger. Default: beside the store.")
    ] = None,
    codec: Annotated[
        Codec | None,
        typer.Option(help="zstd is smaller, lz4 faster. Default: as it was, or zstd."),
    ] = None,
    step_hu: Annotated[
        survey.StepHu | None,
        typer.Option(
            help="1 keeps every HU, 2 and 4 round to multiples. Default: as it was, or 1."
        ),
    ] = None,
    salt_file: Annotated[
        Path | None, typer.Option(help="Salt that hides identifiers. Default: beside the ledger.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read scans, bring them onto one grid, and write them to a store."""
    from vocodata.building import build as build_store

    if resume and overwrite:
        msg = "--resume goes on with what --overwrite would throw away; give one of them"
        raise typer.BadParameter(msg)
    with open_progress() as progress:
        report = build_store(
            sources,
            out,
            workers=workers,
            scheduler=scheduler,
            resume=resume,
            overwrite=overwrite,
            max_excluded=max_excluded,
            ledger=ledger,
            codec=None if codec is None else codec.value,
            step_hu=None if step_hu is None else int(step_hu),
            salt_file=salt_file,
            on_event=progress.build,
        )
    if as_json:
        rows = [row._asdict() for row in report.excluded_rows]
        print_json({**asdict(report), "excluded_rows": rows})
    else:
        print_facts(
            [
                ("store", report.store),
                ("found", report.found),
                ("stored", report.stored),
                ("excluded", sum(report.excluded.values())),
                *((f"  {reason}", count) for reason, count in sorted(report.excluded.items())),
                ("written", f"{report.bytes_written / 1e6:.1f} MB in {report.seconds:.1f} s"),
                ("digest", report.digest),
            ]
        )
    if report.exceeds(max_excluded):
        count = sum(report.excluded.values())
        what = (
            f"no scan could be stored, {count} excluded."
            if report.stored == 0
            else f"{count} scans are excluded; --max-excluded allows {max_excluded}."
        )
        lists = f"`voco data status {shlex.quote(str(report.store))}` lists them."
        typer.echo(f"Error: {what} {lists}", err=True)
        raise typer.Exit(INPUT_DATA)


@app.command(epilog="Example: voco data status ct.zarr")
def status(store: StorePath, as_json: Json = False) -> None:
    """Say what a store holds, what was excluded, and whether its build has finished."""
    from vocodata.building import build_status
    from vocodata.store import open_store

    document = build_status(store)
    rows = open_store(store).excluded().to_pylist()
    if as_json:
        print_json({**document, "excluded_scans": rows})
    else:
        plan, fact = document.pop("plan"), document.pop("fact")
        print_facts(document)
        if fact is not None:
            print_table(("", "plan", "so far"), plan_and_fact(plan, fact))
        print_table(("source", "scan", "reason", "detail"), [tuple(row.values()) for row in rows])


@app.command(epilog="Example: voco data verify ct.zarr --deep")
def verify(
    store: StorePath,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every chunk of every scan.")] = False,
    as_json: Json = False,
) -> None:
    """Check a store against its catalogue. Exit code 5 on any damage."""
    from vocodata.store import verify as verify_store

    with open_progress() as progress:
        report = verify_store(store, deep=deep, on_scan=partial(progress.count, "verify"))
    if as_json:
        document = {
            "ok": report.ok,
            "scans_checked": report.scans_checked,
            "problems": report.problems,
        }
        print_json(document)
    else:
        print_table(
            ("scan", "problem", "detail"), [(p.scan, p.kind, p.detail) for p in report.problems]
        )
        verdict = "no damage" if report.ok else f"{len(report.problems)} problems"
        typer.echo(f"{report.scans_checked} scans checked: {verdict}")
    if not report.ok:
        raise typer.Exit(VERIFICATION)
