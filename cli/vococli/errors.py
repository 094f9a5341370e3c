"""Which exit code an error ends with, and the sentence that a person reads.

The table names classes by their dotted name, so that reading it imports neither torch nor
zarr. An error takes the code of the first class in its inheritance that has a row.
"""

import errno
import signal
from collections.abc import Mapping
from typing import Final

from typer.exceptions import TyperException

OK: Final = 0
UNEXPECTED: Final = 1
USAGE: Final = 2
INPUT_DATA: Final = 3
ENVIRONMENT: Final = 4
VERIFICATION: Final = 5
INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE
TERMINATED: Final = 128 + signal.SIGTERM

EXIT_CODES: Final[Mapping[str, int]] = {
    "vococli.errors.Terminated": TERMINATED,
    "vocodata.errors.ManifestError": USAGE,
    "vocodata.errors.PresetError": USAGE,
    "vocodata.errors.StoreExistsError": USAGE,
    "vocodata.errors.LedgerError": USAGE,
    "vocodata.errors.StoreLockedError": ENVIRONMENT,
    "vocodata.errors.DiskFullError": ENVIRONMENT,
    "vocodata.errors.SampleUnavailableError": ENVIRONMENT,
    "vocodata.errors.VocoDataError": INPUT_DATA,
    "vocotrain.errors.ConfigError": USAGE,
    "vocotrain.errors.BenchmarkSettingsError": USAGE,
    "vocotrain.errors.BenchmarkError": VERIFICATION,
    "vocotrain.errors.ModelSizeError": USAGE,
    "vocotrain.errors.InputShapeError": USAGE,
    "vocotrain.errors.RunExistsError": USAGE,
    "vocotrain.errors.CheckpointError": USAGE,
    "vocotrain.errors.StoreMismatchError": USAGE,
    "vocotrain.errors.WeightsFileError": USAGE,
    "vocotrain.errors.WeightsMismatchError": USAGE,
    "vocotrain.errors.LabelsError": INPUT_DATA,
    "vocotrain.errors.ScanReadError": INPUT_DATA,
    "vocotrain.errors.LoaderDiedError": ENVIRONMENT,
    "vocotrain.errors.DeviceUnavailableError": ENVIRONMENT,
    "vocotrain.errors.RunLockedError": ENVIRONMENT,
    "vocotrain.errors.VocoTrainError": UNEXPECTED,
    "vocokernels.errors.UnknownBackendError": USAGE,
    "vocokernels.errors.BackendUnavailableError": ENVIRONMENT,
    "vocokernels.errors.KernelError": UNEXPECTED,
    "builtins.KeyboardInterrupt": INTERRUPTED,
    "builtins.PermissionError": ENVIRONMENT,
    "builtins.MemoryError": ENVIRONMENT,
    "torch.OutOfMemoryError": ENVIRONMENT,
}

_FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, as KeyboardInterrupt is not: nobody swallows it."""


def exit_code(error: BaseException) -> int:
    """The exit code that an error ends the command with.

    Args:
        error: What a command raised. One that carries `exit_code` decides itself: a wrong flag,
            or a run that a signal stopped; one with `signum` was stopped by that signal.

    Returns:
        A code of the table; 1 when the error is in no row, so nobody foresaw it.
    """
    own = getattr(error, "exit_code", None)
    if isinstance(own, int):
        return own
    signal_number = getattr(error, "signum", None)
    if isinstance(signal_number, int):
        return 128 + signal_number
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return ENVIRONMENT
    for kind in type(error).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return UNEXPECTED


def sentence(error: BaseException) -> str:
    """What stderr says about an error, without a traceback."""
    if isinstance(error, TyperException):
        if not error.format_message():
            return ""
        context = getattr(error, "ctx", None)
        hint = f"\nTry '{context.command_path} --help'." if context else ""
        return f"{error.format_message()}{hint}"
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, Terminated):
        return "Terminated."
    words = "\n".join([str(error) or type(error).__name__, *getattr(error, "__notes__", [])])
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        advice = "Write" if error.errno == errno.EROFS else "Make room there, or write"
        words += f"\n{advice} elsewhere, and run the command again."
    if exit_code(error) != UNEXPECTED or _is_ours(error):
        return words
    return (
        f"Unexpected {type(error).__name__}: {words}\n"
        "Run the command again as `voco --debug ...` to see where it happened."
    )


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in {"vocodata", "vocotrain", "vocokernels"}
