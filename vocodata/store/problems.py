"""What a check of a store finds, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

WRONG_ROW = "wrong_row"
"""Kind of a problem: the catalogue's row is not what it was, or not what the voxels are."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes:
        scan: Its id, or "" for the store as a whole.
        kind: Short fixed word.
        detail: The sentence for people.
    """

    scan: str
    kind: str
    detail: str


@dataclass(frozen=True)
class VerifyReport:
    """What a check found."""

    problems: list[Problem] = field(default_factory=list)
    scans_checked: int = 0
    bytes_read: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def problem_records(report: VerifyReport) -> list[dict[str, Any]]:
    """The problems as plain values, for JSON."""
    return [problem._asdict() for problem in report.problems]
