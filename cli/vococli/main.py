"""`voco`: the command line. It parses words, calls one function, and prints.

Nothing heavy is imported here or in the command modules at import; each command imports what
it calls inside its body, so `voco --help` answers at once.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Annotated

import typer

from vococli.commands import bench, curate, data, demo, doctor, info, predict, train
from vococli.errors import INTERRUPTED, PIPE_CLOSED, Terminated, exit_code, sentence


@dataclass
class Settings:
    """What the words before the command set."""

    debug: bool = False


app = typer.Typer(
    name="voco",
    help="VoCo pretraining on 3D CT: from scans to a Zarr store to a pretrained encoder.",
    epilog="Example: voco demo   (real CT in, pretrained encoder and report out, on a laptop)",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
curate.add_to(data.app)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")
app.command("demo", epilog=demo.EXAMPLE)(demo.demo)
app.command("predict", epilog=predict.EXAMPLE)(predict.predict)
app.command("info", epilog=info.EXAMPLE)(info.info)
app.command("doctor", epilog=doctor.EXAMPLE)(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(importlib.metadata.version("voco-toolkit"))
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - the callback acts on it
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Remember what holds for every command."""
    context.obj.debug = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `voco`.

    Args:
        arguments: Words after the command's name; those of the process by default.

    Returns:
        The exit code.
    """
    # OpenMP reads this when torch is loaded: threads that wait sleep instead of spinning, which on
    # a busy machine made steps 50 times slower (measured with twice as many threads as cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = Settings()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _terminable():
            code = app(words, prog_name="voco", standalone_mode=False, obj=settings)
    # The last door before the shell: whatever comes becomes a sentence and a code.
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _explain(error, debug=settings.debug)
    # typer ends the process with 1 when whoever reads has gone; the shell's word for that is 141.
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            return PIPE_CLOSED
        raise
    # Once a command runs, typer turns Ctrl-C into a code of its own and says nothing.
    if code == INTERRUPTED:
        return _explain(KeyboardInterrupt(), debug=False)
    return code if isinstance(code, int) else 0


def _explain(error: BaseException, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    else:
        words = sentence(error)
        # Without any words typer has shown the help, and has nothing to add.
        if words:
            typer.echo(f"Error: {words}", err=True)
    return exit_code(error)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind like an exception, so that files are closed and folders removed."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        # Not the main thread: whoever called us owns the signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
