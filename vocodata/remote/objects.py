"""The one door to what lies on a server: each request tried again when that may help.

Errors leave as three: FileNotFoundError, FileExistsError (of `put_new`), and `RemoteError` with a
sentence that names the place and holds no secret.
"""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import TYPE_CHECKING, Protocol, TypeVar

from vocodata.errors import RemoteError, RemoteRefusedError
from vocodata.remote import http, s3
from vocodata.remote.backoff import ATTEMPTS, may_pass, retried
from vocodata.remote.path import Found, RemotePath, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

T = TypeVar("T")
U = TypeVar("U")
_UNKNOWN = {18, 19, 20, 21}
"""What OpenSSL says of a certificate that nobody known vouches for (X509_V_ERR_...)."""
AT_ONCE = 16
"""Requests in flight where many are to be made."""


def listing(folder: RemotePath) -> dict[str, Found]:
    """All objects below a folder, by their name below it.

    Raises:
        RemoteError: The server refuses, does not answer, or has no list.
    """
    return _asked(lambda: _kind(folder).listing(folder), folder, "list")


def children(folder: RemotePath) -> dict[str, bool]:
    """Names directly below a folder, in order, and whether each is a folder itself.

    None where a server does not list.

    Raises:
        RemoteError: The server refuses or does not answer.
    """
    return _asked(lambda: _kind(folder).children(folder), folder, "list")


def probe(path: RemotePath) -> Found | None:
    """What is known of an object, or None if there is none.

    Raises:
        RemoteError: The server refuses or does not answer.
    """
    return _asked(lambda: _kind(path).probe(path), path, "look at")


def read(path: RemotePath, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes from `start` to before `stop`, or to the end.

    Raises:
        FileNotFoundError: No such object.
        RemoteError: The server refuses or does not answer.
    """
    return _asked(lambda: _kind(path).read(path, start, stop), path, "read")


def read_many(path: RemotePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several stretches of one object, asked for at once where the server is a bucket.

    Raises:
        FileNotFoundError: No such object.
        RemoteError: The server refuses or does not answer.
    """
    return _asked(lambda: _kind(path).read_many(path, ranges), path, "read")


def save(path: RemotePath, target: Path, *, most: int) -> str:
    """Write an object to a local file, never more than `most` + 1 bytes.

    Returns:
        Its tag now.

    Raises:
        FileNotFoundError: No such object.
        RemoteError: The server refuses or does not answer.
    """
    return _asked(lambda: _kind(path).save(path, target, most), path, "read")


def put(path: RemotePath, data: bytes) -> None:
    """Write an object, whole or not at all.

    Raises:
        RemoteError: The server refuses or does not answer.
    """
    _asked(lambda: _kind(path).put(path, data, only_new=False), path, "write")


def put_new(path: RemotePath, data: bytes) -> None:
    """Write an object if none is there, in one step (If-None-Match).

    Raises:
        FileExistsError: One is there.
        RemoteError: The server refuses or does not answer.
    """
    _asked(lambda: _kind(path).put(path, data, only_new=True), path, "write")


def remove(paths: Sequence[RemotePath]) -> None:
    """Remove objects; those that are not there do not matter.

    Raises:
        RemoteError: The server refuses or does not answer.
    """
    many(lambda path: _asked(lambda: _kind(path).remove([path]), path, "remove"), paths)


def many(action: Callable[[T], U], things: Iterable[T]) -> list[U]:
    """An action on each of many things, `AT_ONCE` at a time, results in order."""
    things = list(things)
    if len(things) < 2:
        return [action(thing) for thing in things]
    with ThreadPoolExecutor(min(AT_ONCE, len(things))) as pool:
        return list(pool.map(action, things))


class _Server(Protocol):
    """What `s3.py` and `http.py` are."""

    def listing(self, folder: RemotePath) -> dict[str, Found]: ...
    def children(self, folder: RemotePath) -> dict[str, bool]: ...
    def probe(self, path: RemotePath) -> Found | None: ...
    def read(self, path: RemotePath, start: int, stop: int | None) -> bytes: ...
    def read_many(self, path: RemotePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]: ...
    def save(self, path: RemotePath, target: Path, most: int) -> str: ...
    def put(self, path: RemotePath, data: bytes, *, only_new: bool) -> None: ...
    def remove(self, paths: Sequence[RemotePath]) -> None: ...


_SERVERS: dict[str, _Server] = {"s3": s3, "https": http, "http": http}


def _kind(path: RemotePath) -> _Server:
    return _SERVERS[path.scheme]


def _asked(action: Callable[[], T], path: RemotePath, what: str) -> T:
    """The action, tried again, its errors in our words."""
    try:
        return retried(action, key=str(path))
    except FileNotFoundError:
        if what != "write":
            raise
        msg = f"{path}: there is no such bucket; expected one. Make it, or correct the URL."
        raise RemoteError(msg) from None
    except (FileExistsError, RemoteError):
        raise
    except PermissionError as error:
        msg = f"{path}: the server does not allow to {what} it ({_words(error)}). {_advice(path)}"
        raise RemoteRefusedError(msg) from None
    except (OSError, HTTPException) as error:
        tries = f" after {ATTEMPTS} attempts" if may_pass(error) else ""
        advice = "Look at the network and the address, then try again."
        reason = getattr(error, "reason", None)
        if isinstance(reason, ssl.SSLCertVerificationError) and reason.verify_code in _UNKNOWN:
            advice = (
                "If the certificate is of your house, name a file with its authority and all "
                "others that you need: SSL_CERT_FILE=/path/authorities.pem."
            )
        msg = f"{path}: the server does not let us {what} it{tries} ({_words(error)}). {advice}"
        raise RemoteError(msg) from None


def _advice(path: RemotePath) -> str:
    if path.scheme == "s3":
        return (
            "Give credentials in the environment (AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY); for a public bucket, say 'anonymous: true' in the manifest."
        )
    return "Give a user in the URL, or a URL whose signature is still good."


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redacted(str(text))[:200]
