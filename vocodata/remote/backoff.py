"""Trying again: which errors pass by themselves, and how long to wait for that.

What a server refuses (403) or does not have (404) stays so; what is overloaded (429, 503,
SlowDown), broken for the moment (500, 502, 504) or cut off (time-outs, resets) does not.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)
T = TypeVar("T")
ATTEMPTS = 6
"""Of one request, in all; with the waits below, a server may be away for 8 to 16 s."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable",
        # Of two conditional puts at once; the next answer tells who won.
        "ConditionalRequestConflict", "OperationAborted",
    }
)  # fmt: skip
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError)
_CUT_OFF = (
    *(TimeoutError, ConnectionError, http.client.HTTPException),
    *(ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError),
)


def wait_s(attempt: int, key: str) -> float:
    """How long to wait after a failed attempt: doubling, spread by the key, no hidden chance.

    >>> [0.25 <= wait_s(0, "a") <= 0.5, 4 <= wait_s(4, "a") <= 8, wait_s(9, "a") <= 20]
    [True, True, True]
    """
    digest = hashlib.blake2b(f"{attempt}/{key}".encode(), digest_size=4).digest()
    share = int.from_bytes(digest, "big") / 2**32
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * (1 + share) / 2


def retried(action: Callable[[], T], *, key: str) -> T:
    """What the action gives, tried again while its error may pass.

    Args:
        action: May be called several times.
        key: What it is about, without secrets: for the log, and to spread the waits of many.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except (OSError, http.client.HTTPException) as error:
            if not may_pass(error):
                raise
            wait = wait_s(attempt, key)
            _log.info("%s: %s; again in %.1f s", key, type(error).__name__, wait)
            time.sleep(wait)
    return action()


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, _FINAL):
        return False
    if _is_name_unknown_for_now(error):
        return True
    status = getattr(error, "code", None)
    if isinstance(status, int):
        return status in PASSING_STATUS
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in PASSING_STATUS or response["Error"].get("Code") in _PASSING_CODES
    reason = getattr(error, "reason", None)
    return isinstance(error, _CUT_OFF) or isinstance(reason, _CUT_OFF)


def _is_name_unknown_for_now(error: BaseException) -> bool:
    """Whether the name server itself said to try again; urllib hides that in a reason."""
    cause = getattr(error, "reason", error)
    return isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN
