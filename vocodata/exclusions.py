"""Lists of scans to leave out: what finds them writes it, a manifest's key `exclude` takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocodata.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def exclusion_text(scans: Iterable[str], *, why: str) -> str:
    """A list of scans to leave out, as `exclude` of a manifest takes it: an id a line.

    >>> print(exclusion_text(["a/1"], why="duplicates"), end="")
    # duplicates
    a/1
    """
    return "".join([f"# {why}\n", *(f"{scan}\n" for scan in sorted(set(scans)))])


def read_exclusions(path: Path) -> frozenset[str]:
    """Ids of a list that `exclusion_text` wrote, or that a person did.

    Raises:
        ManifestError: The list cannot be read, or a line is no id.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"List of scans to exclude, {path}, cannot be read ({error}). Correct the path."
        raise ManifestError(msg) from error
    return frozenset(_ids(path, lines))


def _ids(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        # A YAML list of ids is taken too.
        scan = line.partition("#")[0].strip().removeprefix("- ").strip()
        if not scan:
            continue
        if scan.count("/") != 1:
            msg = f"{path}, line {number}: {scan!r} is no id; expected source/name."
            raise ManifestError(msg)
        yield scan
