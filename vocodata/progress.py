"""What a build says: events while it runs, a report when it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from vocodata.store.catalog import ExcludedRow

EventKind = Literal["plan", "note", "stored", "excluded", "done"]


@dataclass(frozen=True)
class BuildEvent:
    """Something that happened, for whoever shows progress.

    Attributes:
        kind: `plan` once, `note` for a sentence, `stored` or `excluded` for each scan, `done` once.
        scan: Id, or "".
        done: Scans settled so far, of `total`, earlier builds included.
        total: Scans found.
        seconds: Since the build began.
        message: For people; for an excluded scan, its reason and detail.
    """

    kind: EventKind
    scan: str
    done: int
    total: int
    seconds: float
    message: str


@dataclass(frozen=True)
class BuildReport:
    """How a build ended.

    Attributes:
        store: Its folder.
        found: Scans of the manifest; always `stored` plus all excluded.
        stored: Scans in the store now.
        skipped_done: Of those, how many were there before.
        excluded: Reason -> scans.
        excluded_rows: Each of them.
        seconds: Duration.
        bytes_written: Of shards, in this run.
        digest: Of the catalogue, and so of every shard.
        max_excluded: What the caller allowed.
    """

    store: Path
    found: int
    stored: int
    skipped_done: int
    excluded: dict[str, int]
    excluded_rows: list[ExcludedRow] = field(repr=False)
    seconds: float
    bytes_written: int
    digest: str
    max_excluded: int | None = None

    def exceeds(self, max_excluded: int | None = None) -> bool:
        """Whether more scans are excluded than allowed, or nothing could be stored at all."""
        limit = self.max_excluded if max_excluded is None else max_excluded
        return self.stored == 0 or (limit is not None and len(self.excluded_rows) > limit)
