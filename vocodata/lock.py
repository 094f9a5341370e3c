"""One build at a time for each store: a lock that dies with its process, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from vocodata.errors import StoreLockedError
from vocodata.store.atomic import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ATTEMPTS, _PAUSE_S = 4, 0.05


def lock_path(store: Path) -> Path:
    """The file that is locked: `ct.zarr` -> `ct.zarr.lock`; gone when no build runs."""
    return store.with_name(f"{store.name}.lock")


@contextlib.contextmanager
def build_lock(store: Path) -> Iterator[None]:
    """Hold the store's lock.

    Raises:
        StoreLockedError: Another process holds it.
    """
    path = lock_path(store)
    make_folder(path.parent)
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def is_locked(store: Path) -> bool:
    """Whether a build is writing to the store now."""
    try:
        descriptor = os.open(lock_path(store), os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """A locked descriptor of the file that has this name now, not of one unlinked meanwhile."""
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _try_lock(descriptor, fcntl.LOCK_EX) and _is_named(descriptor, path):
            return descriptor
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        time.sleep(_PAUSE_S)
    msg = (
        f"Another build is writing to {path.with_suffix('')} (process {holder or 'unknown'}); "
        "expected to be the only one. Wait for it, or end it and build again with --resume."
    )
    raise StoreLockedError(msg)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
