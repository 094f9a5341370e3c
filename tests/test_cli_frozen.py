"""The commands and their flags, frozen: a new one is a decision, not an accident."""

import subprocess
import sys

import pytest
import typer.main

from vococli.main import app, main

FLAGS = {
    "demo": ["--out", "--cache", "--overwrite", "--json"],
    "predict": ["CHECKPOINT", "SCAN", "--out", "--overwrite", "--json"],
    "info": ["PATH", "--json"],
    "doctor": ["--json"],
    "data init": ["FOLDER", "--out", "--catalog", "--root", "--subset", "--json"],
    "data plan": ["--sources", "--out", "--step-hu", "--json"],
    "data build": [
        "--sources",
        "--out",
        "--resume",
        "--overwrite",
        "--workers",
        "--scheduler",
        "--max-excluded",
        "--ledger",
        "--codec",
        "--step-hu",
        "--salt-file",
        "--json",
    ],
    "data status": ["STORE", "--json"],
    "data stats": ["STORE", "--json"],
    "data report": ["STORE", "--out", "--json"],
    "data dedup": ["STORE", "--keep", "--exclude", "--json"],
    "data leak-check": ["STORE", "--against", "--root", "--exclude", "--json"],
    "data verify": ["STORE", "--deep", "--json"],
    "bench kernels": [
        "--size",
        "--crop",
        "--stage",
        "--maps",
        "--device",
        "--precision",
        "--repeats",
        "--compile",
        "--quick",
        "--plot",
        "--json",
    ],
    "bench loader": ["--quick", "--folder", "--json"],
    "train pretrain": ["--size", "--data", "--out", "--recipe", "--set", "--resume", "--json"],
    "train finetune": [
        "--from",
        "--data",
        "--task",
        "--out",
        "--recipe",
        "--set",
        "--resume",
        "--json",
    ],
}
HEAVY = ["numpy", "torch", "zarr", "dask", "numba", "pyarrow", "monai", "matplotlib"]


def commands(group=None, path=()) -> dict[str, list[str]]:
    """All commands below a group, and the first name of each of their parameters."""
    group = typer.main.get_command(app) if group is None else group
    found = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            names = [_first_name(p) for p in command.params if p.name != "help"]
            found[" ".join((*path, name))] = names
    return found


def _first_name(parameter) -> str:
    if parameter.param_type_name == "argument":
        return parameter.name.upper()
    return parameter.opts[0]


def test_commands_and_flags_are_those_of_the_list():
    assert commands() == FLAGS


@pytest.mark.parametrize("command", ["", *sorted(FLAGS), "bench", "data", "train"])
def test_every_command_has_help(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert "Usage: voco" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(FLAGS))
def test_every_command_shows_an_example_of_itself(command, capsys):
    main([*command.split(), "--help"])
    assert f"Example: voco {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "heavy"),
    # typer itself takes pydantic to read options, so only the first word is free of it
    [([], [*HEAVY, "pydantic"]), (["data"], HEAVY), (["train", "pretrain"], HEAVY)],
)
def test_help_imports_nothing_heavy(words, heavy):
    code = (
        f"import sys; from vococli.main import main; main({[*words, '--help']});"
        f"print(sorted(set({heavy}) & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Usage: voco" in run.stdout
    assert run.stderr.strip() == "[]"


def test_version_is_that_of_the_distribution(capsys):
    import importlib.metadata

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("voco-toolkit")
