"""`voco train ...`: from a store to weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from vococli.output import print_facts, print_json
from vococli.progress import open_progress

app = typer.Typer(help="Pretrain an encoder, fine-tune it for a task.", no_args_is_help=True)

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; as often as wanted."),
]
Recipe = Annotated[
    str | None, typer.Option(help="reference, tiny, voco, or a YAML file. Default: by the size.")
]
Resume = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Go on with this run; only --set beside it.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command(
    epilog="Example: voco train pretrain --size tiny --data ct.zarr --out run --set train.steps=400"
)
def pretrain(
    size: Annotated[str | None, typer.Option(help="Model size: tiny, B, L or H.")] = None,
    data: Annotated[str | None, typer.Option(metavar="STORE", help="Store to train on.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder of the run.")] = None,
    recipe: Recipe = None,
    sets: Sets = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Train an encoder on unlabelled scans."""
    from vocotrain.config import load_config
    from vocotrain.distributed import is_writer_process
    from vocotrain.pretraining import pretrain as pretrain_encoder
    from vocotrain.report import summary, write_report

    given = {"model.size": size, "data.store": data, "out": out}
    with open_progress() as progress:
        config = load_config(
            _recipe("pretrain", resume, recipe, given), sets or [], values=_values(resume, given)
        )
        pretrain_encoder(config, resume=resume is not None, on_event=progress.train)
    if not is_writer_process():  # under torchrun one process reports for all
        return
    report = write_report(config.out)
    facts = {**summary(config.out), "report": report}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)


@app.command(
    epilog="Example: voco train finetune --from run --data ct.zarr --task btcv --out runs/btcv"
)
def finetune(
    weights: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="CKPT", help="Run, .safetensors or .pt to start from; or none."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="STORE", help="Store with labels.")] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What to segment, such as btcv; a wrong name lists all."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="Folder of the run.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A YAML file of settings.")] = None,
    sets: Sets = None,
    resume: Resume = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a pretrained encoder for a task, and measure it on held-out scans.

    With --from none the network starts from scratch and --set model.size=... names its size.
    """
    from vocotrain.finetune_config import load_finetune_config
    from vocotrain.finetuning import finetune as finetune_network

    start = None if weights == "none" else weights
    given = {"model.weights": start, "data.store": data, "task.name": task, "out": out}
    with open_progress() as progress:
        config = load_finetune_config(
            _recipe("finetune", resume, recipe, given), sets or [], values=_values(resume, given)
        )
        report = finetune_network(config, resume=resume is not None, on_event=progress.train)
    document = report.as_json()
    if as_json:
        print_json(document)
        return
    dice = document["dice_native"] or document["dice_store_grid"] or {"mean": None, "by_class": {}}
    print_facts(
        [
            ("run", report.run),
            ("segmenter", report.segmenter),
            ("scans", f"{len(report.train)} learned from, {len(report.holdout)} held out"),
            ("mean Dice", _dice(dice["mean"])),
            *((f"  {name}", _dice(value)) for name, value in dice["by_class"].items()),
            *((f"left out {scan}", reason) for scan, reason in report.left_out.items()),
        ]
    )


def _dice(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _recipe(
    command: Literal["pretrain", "finetune"],
    resume: Path | None,
    recipe: str | None,
    given: Mapping[str, object],
) -> str | Path | None:
    """The recipe to read; a resumed run has its own and takes no other flags."""
    if resume is None:
        return recipe
    if recipe is not None or any(value is not None for value in given.values()):
        msg = f"takes its settings from {resume}; give only --set beside it"
        raise typer.BadParameter(msg, param_hint="--resume")
    from vocotrain.resume import saved_recipe

    return saved_recipe(resume, command)


def _values(resume: Path | None, given: Mapping[str, object]) -> dict[str, str]:
    """Dotted keys of the flags that were given; a resumed run may have moved."""
    if resume is not None:
        return {"out": str(resume)}
    return {key: str(value) for key, value in given.items() if value is not None}
