import errno
import importlib
import signal

import pytest

from vococli.errors import EXIT_CODES, Terminated, exit_code, sentence
from vocodata.errors import BuildInterruptedError, UnreadableScanError
from vocotrain.errors import ConfigError, TrainingStoppedError


@pytest.mark.parametrize("name", sorted(EXIT_CODES))
def test_every_row_names_a_class_that_is_there(name):
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), BaseException)


@pytest.mark.parametrize("package", ["vocodata", "vocotrain", "vocokernels"])
def test_every_error_of_ours_is_foreseen(package):
    errors = importlib.import_module(f"{package}.errors")
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == errors.__name__
    ]
    assert kinds
    for kind in kinds:
        rows = {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}
        assert rows & EXIT_CODES.keys(), f"{kind.__qualname__} has no row"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (UnreadableScanError("x"), 3),
        (OSError(errno.ENOSPC, "No space left on device"), 4),
        (PermissionError(errno.EACCES, "Permission denied"), 4),
        (MemoryError(), 4),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (TrainingStoppedError("x", signal.SIGINT), 130),
        (TrainingStoppedError("x", signal.SIGTERM), 143),
        (BuildInterruptedError("x"), 130),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_an_error_ends_with_the_code_of_its_kind(error, code):
    assert exit_code(error) == code


def test_a_subclass_takes_the_code_of_what_it_is():
    class SpecialError(UnreadableScanError):
        """Of tomorrow."""

    assert exit_code(SpecialError("x")) == 3


def test_a_foreseen_error_is_its_own_sentence_with_its_notes():
    error = ConfigError("train.steps is 0; expected at least 1.")
    error.add_note("In recipe 'tiny'.")
    assert sentence(error) == "train.steps is 0; expected at least 1.\nIn recipe 'tiny'."


def test_an_unforeseen_error_says_so_and_names_debug():
    said = sentence(ZeroDivisionError("division by zero"))
    assert said.startswith("Unexpected ZeroDivisionError: division by zero")
    assert "voco --debug" in said


def test_an_error_without_words_is_called_by_its_kind():
    assert sentence(MemoryError()) == "MemoryError"


def test_a_full_disk_is_told_with_what_to_do():
    said = sentence(OSError(errno.ENOSPC, "No space left on device", "out/a.nii.gz"))
    assert "No space left on device: 'out/a.nii.gz'" in said
    assert "Make room there, or write elsewhere" in said
    read_only = sentence(OSError(errno.EROFS, "Read-only file system", "out/a.nii.gz"))
    assert "room" not in read_only
    assert "Write elsewhere" in read_only
