"""`voco demo`: real CT in, pretrained encoder and report out."""

from pathlib import Path
from typing import Annotated

import typer

from vococli.output import print_facts, print_json
from vococli.progress import open_progress

EXAMPLE = "Example: voco demo --out demo"


def demo(
    out: Annotated[Path, typer.Option(help="Folder of all that the demo makes.")] = Path("demo"),
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the sample scans. Default: ~/.cache/voco")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw an earlier demo away and begin anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Fetch four real CT scans, build a store, pretrain, fine-tune, and write a report.

    Each stage is the command that you would run on your own scans, and says so. A demo that was
    stopped goes on where it was.
    """
    from vocotrain.demo import Listeners, run_demo

    with open_progress() as progress:
        listeners = Listeners(progress.stage, progress.build, progress.train, progress.say)
        result = run_demo(out, listeners=listeners, cache=cache, overwrite=overwrite)
    if as_json:
        print_json(result)
        return
    print_facts(
        [
            ("store", result.store),
            ("encoder", result.encoder),
            ("report", result.report),
            ("loss", f"{result.first_loss:.2f} at the start, {result.last_loss:.2f} at the end"),
            ("position accuracy", _accuracy(result.training_accuracy, result.constant_guess)),
            (
                "  on a held-out scan",
                _accuracy(result.heldout_accuracy, result.heldout_constant_guess),
            ),
            ("mean Dice, held-out", result.dice_sentence()),
        ]
    )


def _accuracy(value: float, guess: float) -> str:
    return f"{value:.2f}; a constant guess gets {guess:.2f}"
