"""Where a scan lies while it is worked on: beside the store, or here if the store is elsewhere.

Beside a local store the next build sweeps up what a killed one left. A store on a server has
workers on machines that no build looks at, so each worker looks for what dead ones left before it
begins a scan.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from vocodata.errors import StoreError
from vocodata.remote.path import RemotePath
from vocodata.store.atomic import temporary_path

_OF_PROCESS = re.compile(r"\.tmp-(\d+)-[0-9a-f]{8}$")


def scratch_path(store: Path) -> Path:
    """A folder for one scan, not made yet; its parent is there.

    Args:
        store: Folder of the store. Scans of a store on a server lie in the system's folder for
            temporary files (TMPDIR), readable by nobody else.

    Raises:
        StoreError: Somebody else made that folder, or may look into it.
    """
    if not isinstance(store, RemotePath):
        return temporary_path(store)
    # With the machine in it: another one's processes, on a shared disk, are not ours to call dead.
    name = hashlib.sha256(f"{os.uname().nodename} {store}".encode()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"voco-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        msg = (
            f"{folder} is not a folder of this user alone; expected one, since scans lie there "
            "while they are worked on. Remove it, or set TMPDIR to another place."
        )
        raise StoreError(msg)
    _sweep(folder)
    return temporary_path(folder / "scan")


def _sweep(folder: Path) -> None:
    """Remove what processes left that are no more."""
    for left in folder.iterdir():
        process = _OF_PROCESS.search(left.name)
        if process and not _is_alive(int(process[1])):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
