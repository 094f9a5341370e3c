"""When a request is made again, and after how long."""

import http.client
import socket
import urllib.error

import pytest

from vocodata.remote.backoff import ATTEMPTS, LONGEST_WAIT_S, may_pass, retried, wait_s


def _aws(status, code="x"):
    """An error as s3fs gives it: of a response."""
    error = OSError(f"{status} {code}")
    error.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}
    return error


def _http(status):
    return urllib.error.HTTPError("https://host/a", status, "no", None, None)


PASSING = [_aws(503), _aws(500), _aws(429), _aws(400, "SlowDown"),
           _aws(409, "ConditionalRequestConflict"), _http(502), _http(429),
           TimeoutError(), ConnectionResetError(), http.client.IncompleteRead(b""),
           urllib.error.URLError(TimeoutError()),
           urllib.error.URLError(socket.gaierror(socket.EAI_AGAIN, "for now"))]  # fmt: skip
FINAL = [_aws(403), _aws(404), _aws(301), _http(400), _http(405), PermissionError(),
         FileNotFoundError(), FileExistsError(), OSError(28, "No space left"),
         urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "not known"))]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again_a_few_times(error, waits):
    calls = []

    def action():
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        retried(action, key="a")
    assert len(calls) == ATTEMPTS
    assert waits == [wait_s(n, "a") for n in range(ATTEMPTS - 1)]


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_stays_is_not_tried_again(error, waits):
    def action():
        raise error

    with pytest.raises(type(error)):
        retried(action, key="a")
    assert waits == []


def test_an_error_of_a_library_counts_as_what_caused_it():
    error = OSError("of a library")
    error.__cause__ = _aws(503)
    assert may_pass(error)
    error.__cause__ = _aws(403)
    assert not may_pass(error)


def test_waits_double_are_bounded_and_differ_by_key():
    waits = [wait_s(n, "a") for n in range(12)]
    assert waits == [wait_s(n, "a") for n in range(12)]
    assert all(2.0**n / 4 <= wait <= 2.0**n / 2 for n, wait in enumerate(waits[:5]))
    assert max(waits) <= LONGEST_WAIT_S
    assert len({wait_s(3, f"{n}") for n in range(50)}) == 50
