"""A URL that behaves as a path.

Names, parents and joins are those of pathlib; what would touch a disk asks the server instead. How
the server is reached travels in the path's first part, so that it gets to workers with every path
that is made of it, and is never shown: a path reads `s3://bucket/key`, whatever it carries.

Odd choice: it is a `Path` by inheritance, since a source's or a store's root is a path to all who
hold it, and only those few who open files need to know where they lie.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

SCHEMES = ("s3", "https", "http")
# With one slash where a Path was made of it.
_URL = re.compile(r"(s3|https?)://?(?!/)|(?!file)[A-Za-z][A-Za-z0-9+.-]+://", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_QUERY = re.compile(r"(?<=\?)[^\s'\"<>)]+")


@dataclass(frozen=True)
class Access:
    """How a server is reached; empty means: as the environment says.

    Attributes:
        anonymous: Ask a bucket without credentials, as public ones allow.
        endpoint: Address of another S3 server than Amazon's.
        user: `name:password` of a web server.
        query: What is put behind each URL, such as a signature.
    """

    anonymous: str = ""
    endpoint: str = ""
    user: str = ""
    query: str = ""

    def encoded(self) -> str:
        """One text without a slash."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return urlencode({k: v for k, v in given.items() if v}, quote_via=quote, safe="")

    def __repr__(self) -> str:
        """Which of them are given, not what they are."""
        return f"Access({', '.join(f.name for f in fields(self) if getattr(self, f.name))})"


class Found(NamedTuple):
    """What a server says of an object.

    Attributes:
        size: Bytes.
        modified_ns: Time of its last change, ns since 1970; 0 if it is not said.
        tag: Changes with the content (ETag); "" if it is not said.
    """

    size: int
    modified_ns: int = 0
    tag: str = ""


class RemoteStat(NamedTuple):
    """The part of `os.stat_result` that callers look at."""

    st_size: int
    st_mtime_ns: int


def is_url(text: str) -> bool:
    """Whether a text is a URL rather than a path; `file://` counts as a path.

    >>> is_url("s3://bucket/a"), is_url("/data/a"), is_url("C:/a")
    (True, False, False)
    """
    return _URL.match(text) is not None


def redacted(text: str) -> str:
    """A text whose URLs show neither users nor queries.

    >>> redacted("https://me:secret@host/a.zip?sig=abc is gone")
    'https://***@host/a.zip?*** is gone'
    """
    return _QUERY.sub("***", _USER.sub("***", text)) if "://" in text else text


def place_of(text: str) -> RemotePath:
    """The path that a URL means.

    Raises:
        ValueError: A scheme that is not read, no host or bucket, or a user where none belongs; the
            text begins small and ends without a stop.
    """
    # a key of a bucket may hold a #
    url = urlsplit(re.sub("^([A-Za-z0-9]+):/(?!/)", r"\1://", text), allow_fragments=False)
    scheme = url.scheme.lower()
    if scheme not in SCHEMES:
        msg = f"{scheme}:// is not read; expected s3:// or https://. Copy the data, or mount it"
        raise ValueError(msg)
    user, _, host = url.netloc.rpartition("@")
    if not host:
        msg = f"no {'bucket' if scheme == 's3' else 'host'} in {redacted(text)}; expected one"
        raise ValueError(msg)
    if scheme == "s3" and (user or url.query):
        msg = "an s3:// URL holds no user and no query; credentials come from the environment"
        raise ValueError(msg)
    if scheme != "s3" and "#" in url.path + url.query:
        msg = f"{redacted(text)} holds a #, which no server is told; write %23 for one in a name"
        raise ValueError(msg)
    access = Access(user=user, query=url.query)
    return RemotePath(f"{scheme}:{access.encoded()}", host, url.path.strip("/"))


class RemotePath(PosixPath):
    """A place on a server: `s3://bucket/key` or `https://host/path`."""

    @property
    def scheme(self) -> str:
        """`s3`, `https` or `http`; "" for a path relative to another."""
        scheme, colon, _ = (self.parts[:1] or ("",))[0].partition(":")
        return scheme if colon and scheme in SCHEMES else ""

    @property
    def access(self) -> Access:
        """How the server is reached."""
        return Access(**dict(parse_qsl(self.parts[0].partition(":")[2])))

    @property
    def host(self) -> str:
        """Bucket, or host with its port."""
        return self.parts[1]

    @property
    def key(self) -> str:
        """Path below the host, without a leading slash."""
        return "/".join(self.parts[2:])

    def __str__(self) -> str:
        """The URL, without user and query."""
        return f"{self.scheme}://{'/'.join(self.parts[1:])}" if self.scheme else super().__str__()

    def __fspath__(self) -> str:
        """Refused, so that nobody takes it for a file's name.

        Raises:
            TypeError: Always.
        """
        msg = f"{self} is not on a disk; expected to be asked by its own methods"
        raise TypeError(msg)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002 (pathlib's signature)
        """Nothing: there are no folders."""

    def reached(self, *, anonymous: bool, endpoint: str | None) -> Self:
        """The same place, asked in another way."""
        old = self.access
        access = Access("1" if anonymous else "", endpoint or "", old.user, old.query)
        return type(self)(f"{self.scheme}:{access.encoded()}", *self.parts[1:])

    def plain(self) -> Self:
        """The same place without `.` and `..`."""
        tail = os.path.normpath(self.key)
        return type(self)(*self.parts[:2], "" if tail == "." else tail)

    def absolute(self) -> Self:
        """Itself: a URL is absolute."""
        return self

    def resolve(self, strict: bool = False) -> Self:  # noqa: ARG002, FBT001, FBT002 (pathlib's signature)
        """Itself: links are the server's own affair."""
        return self

    def expanduser(self) -> Self:
        """Itself."""
        return self

    def stat(self, *, follow_symlinks: bool = True) -> Any:  # noqa: ANN401, ARG002 (pathlib's signature)
        """Size and time, as `os.stat` has them.

        Raises:
            FileNotFoundError: No such object.
            RemoteError: The server cannot be asked.
        """
        found = _objects().probe(self)
        if found is None:
            raise FileNotFoundError(2, "No such object", str(self))
        return RemoteStat(found.size, found.modified_ns)

    def exists(self, *, follow_symlinks: bool = True) -> bool:  # noqa: ARG002 (pathlib's signature)
        """Whether an object is there, or others below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether an object is there."""
        return _objects().probe(self) is not None

    def is_dir(self) -> bool:
        """Whether objects are below; a web server does not say, and then it is no folder."""
        return self.scheme == "s3" and any(True for _ in self.iterdir())

    def iterdir(self) -> Generator[Self, None, None]:
        """What lies directly below, in order.

        Raises:
            RemoteError: The server cannot be asked, or lists nothing.
        """
        return (self / name for name in _objects().children(self))

    def rglob(self, pattern: str) -> Generator[Self, None, None]:
        """All objects below; of patterns, only `*` is known."""
        assert pattern == "*", pattern
        return (self / name for name in sorted(_objects().listing(self)))

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:  # noqa: ANN401 (reading bytes is all there is)
        """The object's bytes, read as they are asked for."""
        # Not at the top: it would be a circle.
        from vocodata.remote.ranged_file import BLOCK_BYTES, RangedFile

        assert mode == "rb", mode
        return io.BufferedReader(RangedFile(self), BLOCK_BYTES)

    def read_bytes(self) -> bytes:
        """The whole object.

        Raises:
            FileNotFoundError: No such object.
            RemoteError: The server cannot be asked.
        """
        data: bytes = _objects().read(self)
        return data

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:  # noqa: ANN401 (pathlib's signature)
        """The whole object as text; as `read_bytes`."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def unlink(self, missing_ok: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 (pathlib's signature)
        """Remove the object, if it is there."""
        _objects().remove([self])


def _objects() -> Any:  # noqa: ANN401 (a module; importing it at the top would be a circle)
    from vocodata.remote import objects

    return objects


def as_path(place: str | Path) -> Path:
    """A path, or the remote path that a URL means; `file://` is a path.

    Raises:
        ValueError: As `place_of`.
    """
    if isinstance(place, RemotePath):
        return place
    text = str(place)
    # With one slash where a Path was made of it.
    local = re.sub(r"^file:(//)?(?=/)", "", text)
    return place_of(text) if is_url(text) else Path(local.removeprefix("file://"))
