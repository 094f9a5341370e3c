"""Objects of a bucket, by s3fs: the only module that imports it.

Its own retries are off, and botocore's: `backoff.py` counts for both. Listings are not cached.
Credentials, region and endpoint are what botocore finds: AWS_ACCESS_KEY_ID, AWS_PROFILE,
AWS_ENDPOINT_URL, a machine's role, and so on.
"""

from __future__ import annotations

import contextlib
import functools
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vocodata.errors import RemoteError
from vocodata.remote.path import Access, Found, RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 60
_ONE_PUT_BYTES = 5 * 2**30
_CONCURRENT = 16


def listing(folder: RemotePath) -> dict[str, Found]:
    """All objects below, by their name below the folder."""
    start = len(_name(folder)) + 1
    with _connected(folder) as system:
        found = system.find(_name(folder), detail=True)
    return {
        name[start:]: _found(about)
        for name, about in found.items()
        if about["type"] == "file" and len(name) > start and not name.endswith("/")
    }


def children(folder: RemotePath) -> dict[str, bool]:
    """Names directly below, in order, and whether each is a folder; none if nothing is there."""
    try:
        with _connected(folder) as system:
            found = system.ls(_name(folder), detail=True)
    except FileNotFoundError:
        return {}
    kinds = {about["name"].rstrip("/"): about["type"] == "directory" for about in found}
    kinds.pop(_name(folder), None)
    return {name.rpartition("/")[2]: kinds[name] for name in sorted(kinds)}


def probe(path: RemotePath) -> Found | None:
    """What is known of an object, or None if there is none."""
    if not path.key:
        return None
    try:
        with _connected(path) as system:
            about = system.info(_name(path))
    except FileNotFoundError:
        return None
    return _found(about) if about["type"] == "file" else None


def read(path: RemotePath, start: int, stop: int | None) -> bytes:
    """Bytes of an object, from `start` to before `stop`."""
    stretch = (
        {"max_concurrency": 1} if stop is None and not start else {"start": start, "end": stop}
    )
    with _connected(path) as system:
        data: bytes = system.cat_file(_name(path), **stretch)
    return data


def read_many(path: RemotePath, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several stretches of one object, asked for at once."""
    starts, stops = zip(*ranges, strict=True)
    names = [_name(path)] * len(ranges)
    with _connected(path) as system:
        found = system.cat_ranges(
            names, list(starts), list(stops), batch_size=_CONCURRENT, on_error="raise"
        )
    return list(found)


def save(path: RemotePath, target: Path, most: int) -> str:
    """Write an object of at most `most` bytes to a local file; its tag."""
    with _connected(path) as system:
        about = _found(system.info(_name(path)))
        if about.size <= most:
            system.get_file(_name(path), str(target), max_concurrency=1)
    return about.tag


def put(path: RemotePath, data: bytes, *, only_new: bool) -> None:
    """Write an object whole, by one request; `only_new` refuses one that is there."""
    mode = "create" if only_new else "overwrite"
    with _connected(path) as system:
        system.pipe_file(_name(path), data, chunksize=_ONE_PUT_BYTES, mode=mode)


def remove(paths: Sequence[RemotePath]) -> None:
    """Remove objects of one bucket; those that are not there do not matter."""
    for path in paths:
        with _connected(path) as system:
            system.rm_file(_name(path))


def _name(path: RemotePath) -> str:
    return f"{path.host}/{path.key}".rstrip("/")


def _found(about: dict[str, Any]) -> Found:
    modified = about.get("LastModified")
    stamp = modified.timestamp() if modified else 0.0
    return Found(int(about["size"] or 0), int(stamp) * 10**9, str(about.get("ETag", "")).strip('"'))


@contextlib.contextmanager
def _connected(path: RemotePath) -> Iterator[Any]:
    """The file system; what its libraries raise leaves as an OSError."""
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    system = _system(path.access, settings, os.getpid())
    exceptions: Any = import_module("botocore.exceptions")
    lost: Any = import_module("aiohttp").ClientError

    try:
        yield system
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise PermissionError(13, str(error)) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        exceptions.ResponseStreamingError,
        lost,
    ) as error:
        msg = f"{type(error).__name__}: {error}"
        raise ConnectionError(msg) from error
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        msg = f"{type(error).__name__}: {error}"
        raise OSError(msg) from error


@functools.lru_cache(maxsize=8)
def _system(access: Access, settings: tuple[tuple[str, str], ...], process: int) -> Any:  # noqa: ANN401, ARG001 (untyped; a connection does not outlive the settings it was made by, nor a fork)
    try:
        import s3fs
    except ImportError as error:
        msg = (
            f"s3:// is read by s3fs, which is not installed ({error}). "
            "Install it: pip install 'voco-toolkit[cloud]'."
        )
        raise RemoteError(msg) from error
    system = s3fs.S3FileSystem(
        anon=bool(access.anonymous),
        endpoint_url=access.endpoint or None,
        use_listings_cache=False,
        skip_instance_cache=True,
        config_kwargs={
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
            "max_pool_connections": 2 * _CONCURRENT,
        },
    )
    system.retries = 1
    return system
