"""Files of a web server, by the standard library.

A web server has no list of its files, so they must be named. It is asked by GET only: a signed URL
is good for one method. `http://` is read as `https://` is, for servers of a house's own network.
"""

from __future__ import annotations

import base64
import email.utils
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

from vocodata.errors import RemoteError
from vocodata.remote.path import Found, RemotePath

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIMEOUT_S = 60
_PIECE_BYTES = 1 << 18
_OK, _PARTIAL = 200, 206
_MISSING, _FORBIDDEN = (404, 410), (401, 403)
_BEYOND = 416
_EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"


def listing(folder: RemotePath) -> dict[str, Found]:
    """Refused: there is no list."""
    msg = f"{folder}: a web server has no list of its files."
    raise RemoteError(msg)


def children(folder: RemotePath) -> dict[str, bool]:
    """None that could be told."""
    del folder
    return {}


def probe(path: RemotePath) -> Found | None:
    """What is known of a file, or None if there is none."""
    try:
        with _asked(path, (0, 1)) as answer:
            told = answer.headers
            whole = re.search(r"/(\d+)$", told.get("Content-Range", ""))
            size = int(whole[1]) if whole else int(told.get("Content-Length") or 0)
            changed = email.utils.parsedate_to_datetime(told.get("Last-Modified", "") or _EPOCH)
            return Found(size, int(changed.timestamp()) * 10**9, told.get("ETag", "").strip('"'))
    except FileNotFoundError:
        return None


def read(path: RemotePath, start: int, stop: int | None) -> bytes:
    """Bytes of a file, from `start` to before `stop`."""
    with _asked(path, None if stop is None and start == 0 else (start, stop)) as answer:
        if start and answer.status != _PARTIAL:
            msg = (
                f"{path}: the server gives files as a whole only (no Range requests), which an "
                "archive cannot be read by. Fetch the archive, and name the file."
            )
            raise RemoteError(msg)
        return _all_of(answer, None if stop is None else stop - start)


def read_many(path: RemotePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several stretches of one file, one after another."""
    return [read(path, start, stop) for start, stop in ranges]


def save(path: RemotePath, target: Path, most: int) -> str:
    """Write a file, up to one byte more than `most`, to a local one; its tag."""
    with _asked(path, None) as answer, target.open("wb") as file:
        left = most + 1
        while left and (piece := answer.read(min(left, _PIECE_BYTES))):
            file.write(piece)
            left -= len(piece)
        if left and answer.length:
            msg = f"{path} ended {answer.length} bytes too early"
            raise ConnectionError(msg)
        return str(answer.headers.get("ETag", "")).strip('"')


def put(path: RemotePath, data: bytes, *, only_new: bool) -> None:
    """Refused."""
    del data, only_new
    msg = f"{path}: a web server is read only. Give a folder or an s3:// URL as the store."
    raise RemoteError(msg)


def remove(paths: Sequence[RemotePath]) -> None:
    """Refused."""
    put(paths[0], b"", only_new=False)


def _all_of(answer: Any, most: int | None) -> bytes:  # noqa: ANN401 (http.client's answer)
    data: bytes = answer.read() if most is None else answer.read(most)
    if most is not None and len(data) < most and answer.length:
        msg = f"the answer ended {answer.length} bytes too early"
        raise ConnectionError(msg)
    return data


def _asked(path: RemotePath, stretch: tuple[int, int | None] | None) -> Any:  # noqa: ANN401 (http.client's answer)
    """The server's answer; 401 and 403 are a PermissionError, 404 a FileNotFoundError."""
    access = path.access
    address = f"{path.scheme}://{path.host}/{quote(unquote(path.key))}"
    # A scheme of ours, https or http, so no file: or ftp:.
    request = urllib.request.Request(address + (f"?{access.query}" if access.query else ""))  # noqa: S310
    if stretch is not None:
        start, stop = stretch
        request.add_header("Range", f"bytes={start}-{'' if stop is None else stop - 1}")
    if access.user:
        name = base64.b64encode(unquote(access.user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {name}")
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _FORBIDDEN:
            raise PermissionError(13, f"HTTP {error.code}", str(path)) from None
        if error.code in _MISSING:
            raise FileNotFoundError(2, f"HTTP {error.code}", str(path)) from None
        if error.code == _BEYOND:
            return _Nothing()
        raise


class _Nothing:
    """The answer of an empty file to a request for its first byte."""

    status, length, headers = _PARTIAL, 0, {"Content-Range": "bytes */0"}

    def read(self, _: int = 0) -> bytes:
        return b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
