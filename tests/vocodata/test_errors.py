import pickle

import pytest

from vocodata import errors
from vocodata.errors import (
    REASONS,
    GeometryError,
    StoreExistsError,
    UnreadableScanError,
    VocoDataError,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, VocoDataError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_worker_with_code_sentence_and_notes(kind):
    error = kind("scan 3 is broken", code="empty_file")
    error.add_note("seen by worker 7")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert (arrived.code, arrived.detail, str(arrived)) == (
        "empty_file",
        "scan 3 is broken",
        "scan 3 is broken",
    )
    assert arrived.__notes__ == ["seen by worker 7"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_default_code_is_explained(kind):
    assert REASONS[kind("x").code].endswith(".")


def test_errors_are_also_the_builtin_they_resemble():
    assert issubclass(UnreadableScanError, OSError)
    assert issubclass(GeometryError, ValueError)
    assert issubclass(StoreExistsError, FileExistsError)


def test_a_code_that_is_not_in_the_table_is_a_bug_of_ours():
    with pytest.raises(AssertionError, match="not in REASONS"):
        VocoDataError("x", code="whatever")


def test_the_scan_is_named_once_in_front():
    error = GeometryError("spacing is 0", code="zero_spacing").named("lits/017")
    assert str(error) == "lits/017: spacing is 0"
    assert error.code == "zero_spacing"
