"""Files that are either whole or not there.

A file is written under a temporary name in its own folder, flushed to the disk, renamed, and the
folder flushed too. A process killed in between leaves a temporary file that `sweep` removes. In a
bucket one request writes an object, whole or not at all, and there are no folders.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from typing import TYPE_CHECKING

from vocodata.errors import (
    DiskFullError,
    RemoteError,
    StoreError,
    StoreUnreachableError,
    StoreUnwritableError,
)
from vocodata.remote import objects
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}$")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def temporary_path(path: Path) -> Path:
    """A name beside `path` that no other process uses and that `sweep` knows."""
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def write_atomic(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, whole or not at all, also when the process or the power goes.

    Raises:
        DiskFullError: No room on the disk or in the quota.
        StoreUnwritableError: The file system refuses for another reason.
    """
    if isinstance(path, RemotePath):
        with reaching(path):
            objects.put(path, data)
        return
    temporary = temporary_path(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise storage_fault(path, error) from error
    finally:
        # What cannot be removed now is swept by the next build; it must not hide the first error.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """The folder and its parents, if they are not there.

    Raises:
        DiskFullError: No room, or no inodes.
        StoreUnwritableError: The file system refuses for another reason.
    """
    if isinstance(path, RemotePath):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_fault(path, error) from error


def flush_folder(path: Path) -> None:
    """Flush a folder's entries: without it a rename may be lost with the power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_fault(path: Path, error: OSError) -> StoreError:
    """The error to raise when writing `path` failed."""
    if error.errno in _FULL:
        msg = (
            f"No room to write {path}: {error.strerror}. Nothing half-written is left. Free space "
            "or give another --out, then build again with --resume."
        )
        return DiskFullError(msg)
    msg = (
        f"{path} cannot be written: {error.strerror or error}. Give another --out, or make that "
        "place writable."
    )
    return StoreUnwritableError(msg)


def temporary_files(root: Path) -> Iterator[Path]:
    """Temporary files that a killed process left under `root`."""
    if isinstance(root, RemotePath):
        return
    for folder, _, names in os.walk(root):
        for name in names:
            if _TEMPORARY.search(name):
                yield type(root)(folder, name)


def sweep(root: Path) -> int:
    """Remove what killed processes left: temporary files below `root`, discarded trees beside it.

    Returns:
        How many were removed.
    """
    if isinstance(root, RemotePath):
        return 0
    files = list(temporary_files(root))
    for path in files:
        path.unlink(missing_ok=True)
    trees = [
        path
        for path in root.parent.glob(f"{glob_safe(root.name)}.tmp-*")
        if _TEMPORARY.search(path.name) and path.is_dir()
    ]
    for path in trees:
        shutil.rmtree(path)
    return len(files) + len(trees)


def discard_tree(path: Path) -> None:
    """Remove a folder so that a kill halfway leaves no half folder under its name.

    In a bucket the document of its root goes last, so that what is left is still a store.
    """
    if isinstance(path, RemotePath):
        remove_tree(path)
        return
    aside = temporary_path(path)
    path.rename(aside)
    shutil.rmtree(aside)


def remove_tree(path: Path) -> None:
    """Remove a folder, if it is there.

    Raises:
        StoreUnreachableError: Its server refuses or does not answer.
    """
    if not isinstance(path, RemotePath):
        if path.exists():
            shutil.rmtree(path)
        return
    with reaching(path):
        found = [path / name for name in objects.listing(path)]
        objects.remove([one for one in found if one.parent != path])
        objects.remove([one for one in found if one.parent == path])


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """What a server refuses while a store is being written, as an error of the store."""
    try:
        yield
    except RemoteError as error:
        msg = f"{path} cannot be written or locked: {error.detail} Then build again with --resume."
        raise StoreUnreachableError(msg) from error


def glob_safe(name: str) -> str:
    """The name with the characters that mean something to glob taken literally."""
    return re.sub(r"([*?\[])", r"[\1]", name)
