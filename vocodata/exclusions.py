"""Lists of scans to leave out: what finds them writes it, a build and a training run take it.

A text file: an id a line, blank lines and `#` comments between. The first comment says why; a
comment `# key = value` is a fact of the search that made the list, so that a run which leaves the
scans out can say what had been looked for:

    # leaks: also on the other side of the check
    # checked = 24
    # leaking = 1
    btcv/case3

Lists may be put together in one file: of a fact that is there again numbers are added up.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vocodata.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Fact = int | str
_ID = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
"""What a source and a scan may be called."""


class ExclusionList(NamedTuple):
    """Scans to leave out, and who says so.

    Attributes:
        scans: Their ids.
        why: What the list says of itself; "" if a person wrote it without a word.
        facts: Of the search that made it.
    """

    scans: frozenset[str]
    why: str
    facts: Mapping[str, Fact]


def exclusion_text(
    scans: Iterable[str], *, why: str, facts: Mapping[str, Fact] | None = None
) -> str:
    """A list of scans to leave out: a manifest's `exclude` takes it, and `data.exclude`.

    >>> print(exclusion_text(["a/1"], why="duplicates", facts={"groups": 1}), end="")
    # duplicates
    # groups = 1
    a/1
    """
    said = [f"# {key} = {value}\n" for key, value in (facts or {}).items()]
    return "".join([f"# {why}\n", *said, *(f"{scan}\n" for scan in sorted(set(scans)))])


def read_exclusions(path: Path) -> frozenset[str]:
    """Ids of a list that `exclusion_text` wrote, or that a person did.

    Raises:
        ManifestError: The list cannot be read, or a line is no id.
    """
    return read_exclusion_list(path).scans


def read_exclusion_list(path: Path) -> ExclusionList:
    """A whole list, with what it says of itself.

    Raises:
        ManifestError: As `read_exclusions`.
    """
    try:
        # Windows puts a mark before a text, which would become part of the first id.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"List of scans to exclude, {path}, cannot be read ({error}). Correct the path."
        raise ManifestError(msg) from error
    scans: set[str] = set()
    said: list[str] = []
    facts: dict[str, Fact] = {}
    for number, line in enumerate(lines, 1):
        words, _, comment = line.partition("#")
        key, equals, value = (part.strip() for part in comment.partition("="))
        if equals and key.isidentifier() and not words.strip():
            facts[key] = _together(facts.get(key), int(value) if value.isdecimal() else value)
        elif comment.strip() and not words.strip():
            said.append(comment.strip())
        # A YAML list of ids is taken too, with quotes or without.
        scan = words.strip().removeprefix("- ").strip()
        if len(scan) > 1 and scan[0] == scan[-1] and scan[0] in "'\"":
            scan = scan[1:-1]
        if not scan:
            continue
        if not _ID.fullmatch(scan):
            msg = f"{path}, line {number}: {scan!r} is no id; expected source/name."
            raise ManifestError(msg)
        scans.add(scan)
    return ExclusionList(frozenset(scans), said[0] if said else "", facts)


def _together(before: Fact | None, now: Fact) -> Fact:
    """A fact of two searches."""
    if isinstance(before, int) and isinstance(now, int):
        return before + now
    return now if before in (None, now) else f"{before}, {now}"
