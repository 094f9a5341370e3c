"""`voco data stats | report | dedup | leak-check`: what a store holds, and what it should not."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vococli.commands.data import Json, StorePath
from vococli.output import print_facts, print_json, print_table, write_text
from vococli.progress import open_progress


class Keep(StrEnum):
    """Which scan of a group of duplicates stays."""

    first = "first"


Exclude = Annotated[
    Path | None,
    typer.Option(
        help="Write the scans to leave out there, as a manifest's exclude and data.exclude take it."
    ),
]


def stats(store: StorePath, as_json: Json = False) -> None:
    """Count what a store holds: sources, flags, reasons, sizes."""
    from vocodata.statistics import store_statistics

    figures = store_statistics(store)
    if as_json:
        print_json(figures)
        return
    names = ("store", "complete", "found", "stored", "flagged", "excluded")
    print_facts([(name, figures[name]) for name in (*names, "step_hu", "voxels", "bytes")])
    for title in ("flags", "reasons", "licences"):
        print_table((title, "scans"), list(figures[title].items()))
    rows = [(name, *counts.values()) for name, counts in figures["sources"].items()]
    print_table(("source", "stored", "flagged", "excluded"), rows)


def report(
    store: StorePath,
    out: Annotated[
        # No Path, which would lose the slash that says that a folder is meant.
        str,
        typer.Option("--out", "-o", metavar="PATH", help="The page, or a folder for it."),
    ] = "report.html",
    as_json: Json = False,
) -> None:
    """Write one HTML page of a store: counts, pictures, duplicates, search."""
    from vocodata.curation_report import write_curation_report

    with open_progress() as progress:
        path = write_curation_report(store, out, on_progress=progress.count)
    if as_json:
        print_json({"report": path, "bytes": path.stat().st_size})
    else:
        typer.echo(path)


def dedup(
    store: StorePath,
    keep: Annotated[
        Keep | None, typer.Option(help="Write all but this scan of each group to --exclude.")
    ] = None,
    exclude: Exclude = None,
    as_json: Json = False,
) -> None:
    """List scans that are in a store more than once, over all sources."""
    from vocodata.duplicates import all_but_first, find_duplicates, groups, plain
    from vocodata.exclusions import exclusion_text

    if (keep is None) != (exclude is None):
        msg = "--keep and --exclude go together: which scans stay, and where the others are listed."
        raise typer.BadParameter(msg)
    with open_progress() as progress:
        clusters = find_duplicates(store, on_progress=progress.count)
    if exclude is not None:
        why, facts = "duplicates: all but the first", {"groups": groups(clusters)}
        text = exclusion_text(all_but_first(clusters), why=why, facts=facts)
        write_text(exclude, text)
    if as_json:
        print_json(plain(clusters))
    else:
        print_table(("kind", "scans"), [(each.kind, "  ".join(each.scans)) for each in clusters])
        typer.echo(f"groups of scans that are one: {groups(clusters)}")


def leak_check(
    store: StorePath,
    against: Annotated[
        Path,
        typer.Option(
            help="A store, a manifest, or a folder or archive of scans; or the word tasks, "
            "with --root."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(help="Folder with a folder for each downstream task, for --against tasks."),
    ] = None,
    exclude: Exclude = None,
    as_json: Json = False,
) -> None:
    """Say which scans of a test set are in a store."""
    from vocodata.exclusions import exclusion_text
    from vocodata.leaks import find_leaks

    if (str(against) == "tasks") != (root is not None):
        msg = "--against tasks and --root go together: which tasks, and where their scans lie."
        raise typer.BadParameter(msg)
    by_task: list[tuple[str, str, int, int]] = []
    if root is None:
        with open_progress() as progress:
            found = find_leaks(store, against, on_progress=progress.count)
    else:
        from vocotrain.task_scans import find_task_leaks

        with open_progress() as progress:
            of_tasks = find_task_leaks(store, root, on_progress=progress.count)
        found = of_tasks.report
        by_task = [
            (each.task, each.split, len(each.scans), len(of_tasks.leaked(each.task)))
            for each in of_tasks.tasks
        ]
    if exclude is not None:
        facts = {"against": against.name, **found.facts}
        why = "leaks: also on the other side of the check"
        write_text(exclude, exclusion_text(found.scans, why=why, facts=facts))
    header = ("task", "split", "scans", "leaked")
    if as_json:
        tasks = [dict(zip(header, row, strict=True)) for row in by_task]
        print_json({**vars(found), "scans": found.scans, "facts": found.facts, "tasks": tasks})
        return
    rows = [(leak.kind, leak.scan, leak.against, leak.evidence) for leak in found.leaks]
    print_table(("kind", "in the store", "against", "evidence"), rows)
    print_table(("unreadable", "reason"), list(found.unreadable.items()))
    print_table(header, by_task)
    unknown = f"; nothing is known of {len(found.unreadable)} more" if found.unreadable else ""
    typer.echo(
        f"{len(found.scans)} of the store's scans are among the {found.checked} on the other "
        f"side{unknown}"
    )


def add_to(app: typer.Typer) -> None:
    """Register the commands under `voco data`."""
    app.command("stats", epilog="Example: voco data stats ct.zarr")(stats)
    app.command("report", epilog="Example: voco data report ct.zarr --out report.html")(report)
    app.command("dedup", epilog="Example: voco data dedup ct.zarr --json")(dedup)
    app.command("leak-check", epilog="Example: voco data leak-check ct.zarr --against test_scans/")(
        leak_check
    )
