"""Scans that lists leave out of a run, and what the lists' own searches had found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocodata.exclusions import read_exclusion_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vocodata.exclusions import Fact

_COUNTS = ("checked", "leaked", "leaking", "unreadable")


@dataclass(frozen=True)
class UsedList:
    """One list, as it was used.

    Attributes:
        name: Its file's name.
        why: What it says of itself.
        facts: Of the search that made it, such as how many scans it had checked.
        scans: Scans of the store that it lists.
        unknown: Ids that it lists and the store does not have.
    """

    name: str
    why: str
    facts: Mapping[str, Fact]
    scans: frozenset[str]
    unknown: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "why": self.why,
            "facts": dict(self.facts),
            "excluded": len(self.scans),
            "unknown": list(self.unknown),
        }


@dataclass(frozen=True)
class Exclusions:
    """All lists of a run together.

    Attributes:
        scans: Ids in the store that are left out.
        lists: Each list.
        store_digest: Of the store they are used on.
    """

    scans: frozenset[str]
    lists: tuple[UsedList, ...]
    store_digest: str

    @property
    def leaks(self) -> dict[str, int] | None:
        """The figure of the leak checks made on this very store; None if there was none.

        `checked` scans of the other side, `leaked` of them in the store, `unreadable` that nothing
        is known of. `leaking` are the store's copies of them, and `left_out` those that the lists
        of these checks still name: as many, unless a person took lines out.
        """
        made_here = [
            (each.scans, counts)
            for each in self.lists
            if each.facts.get("store_digest") == self.store_digest
            and len(counts := _counts(each.facts)) == len(_COUNTS)
        ]
        if not made_here:
            return None
        left_out = frozenset[str]().union(*(scans for scans, _ in made_here))
        sums = {key: sum(counts[key] for _, counts in made_here) for key in _COUNTS}
        return sums | {"left_out": len(left_out)}

    @property
    def warnings(self) -> list[str]:
        """A sentence for each list that names scans which the store does not have, or too few."""
        unknown = [
            f"{len(each.unknown)} of the scans that {each.name} (data.exclude) lists are not in "
            f"the store, the first is {each.unknown[0]}."
            for each in self.lists
            if each.unknown
        ]
        fewer = [
            f"{each.name} (data.exclude) lists {listed} scans; its search had found {found}. "
            "Were lines taken out? Those scans are trained on."
            for each in self.lists
            if (found := _counts(each.facts).get("leaking", 0))
            > (listed := len(each.scans) + len(each.unknown))
        ]
        return unknown + fewer


def _counts(facts: Mapping[str, Fact]) -> dict[str, int]:
    """Of a leak check; what a person wrote in place of a number is none."""
    return {key: n for key in _COUNTS if isinstance(n := facts.get(key), int)}


def read_excluded(
    paths: Iterable[str], *, in_store: Iterable[str], store_digest: str
) -> Exclusions:
    """Read the lists of a run.

    Args:
        paths: Their files.
        in_store: Ids of all scans of the store.
        store_digest: Of the store.

    Raises:
        vocodata.errors.ManifestError: A list cannot be read, or a line is no id.
    """
    known, lists = set(in_store), []
    scans: set[str] = set()
    for path in map(Path, paths):
        each = read_exclusion_list(path)
        inside = each.scans & known
        scans |= inside
        unknown = tuple(sorted(each.scans - known))
        lists.append(UsedList(path.name, each.why, each.facts, inside, unknown))
    return Exclusions(frozenset(scans), tuple(lists), store_digest)
