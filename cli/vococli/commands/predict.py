"""`voco predict`: segment a scan."""

from pathlib import Path
from typing import Annotated

import typer

from vococli.output import print_facts, print_json
from vococli.progress import open_progress

EXAMPLE = "Example: voco predict runs/liver scan.nii.gz -o out/"


def predict(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A fine-tuning run, or its segmenter file.")
    ],
    scan: Annotated[
        Path, typer.Argument(metavar="SCAN", help="NIfTI, MHA, MHD, NRRD, or a DICOM folder.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A folder, or a name that ends in .nii.gz.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace label files that are there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Segment a scan and write the labels on the scan's own grid."""
    from vocotrain.prediction import predict as segment

    with open_progress() as progress:
        report = segment(checkpoint, scan, out, overwrite=overwrite, on_event=progress.train)
    if as_json:
        print_json(report.as_json())
        return
    print_facts(
        [
            ("labels", report.labels),
            ("report", report.report),
            *((f"{name}, ml", f"{volume:.1f}") for name, volume in report.volumes_ml.items()),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )
