"""One build at a time for each store: a lock that dies with its process, however it dies.

For a store in a bucket the lock is twofold: a file beside the ledger, for builds of this machine,
and an object beside the store that is made only if there is none (If-None-Match), for builds of
others. That object outlives a killed build; the word in it lies in the file as well, so that the
next build with the same ledger knows it for its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING

from vocodata.errors import StoreLockedError, StoreUnreachableError, StoreUnwritableError
from vocodata.ledger import default_ledger
from vocodata.remote import objects
from vocodata.remote.path import RemotePath
from vocodata.store.atomic import make_folder, reaching, storage_fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ATTEMPTS, _PAUSE_S = 4, 0.05
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


class Lock:
    """A lock that is held."""

    def __init__(
        self, file: Path, descriptor: int, item: RemotePath | None = None, word: str = ""
    ) -> None:
        """The locked file, open; of a store in a bucket also the object and the word in it."""
        self.file, self.descriptor, self.item, self.word = file, descriptor, item, word

    def prove(self) -> None:
        """Make sure that it is still held.

        Raises:
            StoreLockedError: Another build may have taken it, since somebody removed it or the
                server does not know If-None-Match.
            StoreUnreachableError: The server refuses or does not answer.
        """
        is_taken = self.item is not None and _word_of(self.item) != self.word
        lost = self.item if is_taken else self.file
        if is_taken or not _is_named(self.descriptor, self.file):
            msg = (
                f"{lost} was removed or taken by another build while this one was at work; "
                "expected to be the only one. Let the other one end, then build again with "
                "--resume."
            )
            raise StoreLockedError(msg)

    def release(self) -> None:
        """Remove the object, if it is ours.

        Raises:
            StoreUnreachableError: The server refuses or does not answer.
        """
        if self.item is not None and _word_of(self.item) == self.word:
            with reaching(self.item):
                objects.remove([self.item])


def lock_path(store: Path) -> Path:
    """What is locked: `ct.zarr` -> `ct.zarr.lock`; gone when no build runs."""
    return store.with_name(f"{store.name}.lock")


@contextlib.contextmanager
def build_lock(store: Path, ledger: Path | None = None) -> Iterator[Lock]:
    """Hold the store's lock.

    Args:
        store: Folder of the store.
        ledger: Of the build, `default_ledger` if None; beside it lies the lock's file if the store
            is in a bucket.

    Raises:
        StoreLockedError: Another process holds it.
        DiskFullError: No room for its file.
        StoreUnwritableError: The file system refuses it.
        StoreUnreachableError: The server refuses or does not answer.
    """
    path = _file_of(store, ledger)
    make_folder(path.parent)
    descriptor = _acquire(path, store)
    lock = Lock(path, descriptor)
    try:
        if isinstance(store, RemotePath):
            lock = _remote_lock(store, descriptor, path)
        else:
            _write(descriptor, f"{_holder()}\n", path)
    except StoreUnreachableError:
        # The object may be there though no answer came: the word in the file makes it ours later.
        os.close(descriptor)
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    try:
        yield lock
    finally:
        try:
            lock.release()
            # Removed and made anew, it is another build's.
            if _is_named(descriptor, path):
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def is_locked(store: Path, ledger: Path | None = None) -> bool:
    """Whether a build is writing to the store now."""
    try:
        descriptor = os.open(_file_of(store, ledger), os.O_RDONLY)
    except FileNotFoundError:
        return isinstance(store, RemotePath) and _word_of(lock_path(store)) is not None
    try:
        is_held = not _try_lock(descriptor, fcntl.LOCK_SH, store)
        if is_held or not isinstance(store, RemotePath):
            return is_held
        return _word_of(lock_path(store)) not in {None, _known_word(descriptor)}
    finally:
        os.close(descriptor)


def _file_of(store: Path, ledger: Path | None) -> Path:
    if not isinstance(store, RemotePath):
        return lock_path(store)
    beside = ledger or default_ledger(store)
    return beside.with_name(f"{beside.name}.lock")


def _remote_lock(store: RemotePath, descriptor: int, file: Path) -> Lock:
    """Make the lock's object, or know the one that is there for our own."""
    word = _known_word(descriptor) or secrets.token_hex(16)
    _write(descriptor, f"{_holder()}\n{word}\n", file)
    os.fsync(descriptor)
    item = lock_path(store)
    assert isinstance(item, RemotePath)
    with reaching(item), contextlib.suppress(FileExistsError):
        objects.put_new(item, word.encode())
    if _word_of(item) != word:
        msg = (
            f"Another build is writing to {store}, or was killed; expected to be the only one. "
            f"Wait for it; if it is dead, go on with its ledger, or remove {item}."
        )
        raise StoreLockedError(msg)
    return Lock(file, descriptor, item, word)


def _word_of(item: Path) -> str | None:
    """The word in the lock's object, or None if there is none."""
    assert isinstance(item, RemotePath)
    with reaching(item):
        try:
            return item.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None


def _known_word(descriptor: int) -> str:
    return os.pread(descriptor, 128, 0).decode(errors="replace").partition("\n")[2].strip()


def _write(descriptor: int, text: str, path: Path) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError as error:
        raise storage_fault(path, error) from error


def _acquire(path: Path, store: Path) -> int:
    """A locked descriptor of the file that has this name now, not of one unlinked meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise storage_fault(path, error) from error
        try:
            if _try_lock(descriptor, fcntl.LOCK_EX, path) and _is_named(descriptor, path):
                return descriptor
        except StoreUnwritableError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        holder = os.pread(descriptor, 128, 0).decode(errors="replace").partition("\n")[0]
        os.close(descriptor)
        time.sleep(_PAUSE_S)
    msg = (
        f"Another build is writing to {store} (process {holder or 'unknown'}); "
        "expected to be the only one. Wait for it, or end it and build again with --resume."
    )
    raise StoreLockedError(msg)


def _holder() -> str:
    """Who holds a lock: the process, and its machine, for a disk that several share."""
    return f"{os.getpid()} on {os.uname().nodename}"


def _try_lock(descriptor: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise storage_fault(path, error) from error
        msg = (
            f"{path} cannot be locked ({error.strerror}): its file system has no locks, which keep "
            "two builds apart. Mount it with them (Lustre: -o flock), or build on a local disk and "
            "copy the store."
        )
        raise StoreUnwritableError(msg) from error
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False
