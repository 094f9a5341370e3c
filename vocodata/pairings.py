"""Patterns that might pair scans with labels, from the names of both."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vocodata.readers import suffix_of

if TYPE_CHECKING:
    from pathlib import Path

# Names looked at for a pattern, and patterns tried: they are alike, or there is none.
_MOST_NAMES, _MOST_PAIRINGS = 1000, 8


def pairings(scans: list[Path], labels: list[Path]) -> list[tuple[str, str]]:
    """Patterns of scans and templates of labels: by folder, or by a word that both names have.

    Args:
        scans: Paths below a root.
        labels: At least one.
    """
    if not scans:
        return []
    label = labels[0]
    pairs = []
    if len({path.name for path in scans}) == 1 and len({path.name for path in labels}) == 1:
        pairs.append((f"**/{scans[0].name}", f"{{folder}}/{label.name}"))
    other, ending = _stem(label), label.name[len(_stem(label)) :]
    nearest = sorted(scans, key=lambda path: path.parent != label.parent)
    for scan in nearest[:_MOST_NAMES]:
        beside, one = scan.parent == label.parent, _stem(scan)
        images_in = "**" if beside else scan.parent.as_posix()
        labels_in = "{folder}" if beside else label.parent.as_posix()
        for core in (one, *_beginnings(one), *re.findall(r"\d+", one)):
            if (parts := _parted(one, core)) and (others := _parted(other, core)):
                images = f"{images_in}/{'*'.join(parts)}{scan.name[len(one) :]}"
                pairs.append((images, f"{labels_in}/{'{id}'.join(others)}{ending}"))
    return list(dict.fromkeys(pairs))[:_MOST_PAIRINGS]


def _stem(path: Path) -> str:
    return path.name[: -len(suffix_of(path) or "") or None]


def _beginnings(stem: str) -> list[str]:
    """What a name begins with, up to each of its signs between words; the longest first."""
    ends = [match.start() for match in re.finditer(r"[ ._-]", stem)]
    return [stem[:end] for end in reversed(ends) if end]


def _parted(name: str, core: str) -> tuple[str, str] | None:
    """What stands before and behind a word in a name, unless its number only begins there."""
    found = re.search(rf"(?<!\d){re.escape(core)}(?!\d)", name)
    return (name[: found.start()], name[found.end() :]) if found else None
