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
        scan_bytes: Written for this scan.
        scan_seconds: That this scan took.
    """

    kind: EventKind
    scan: str
    done: int
    total: int
    seconds: float
    message: str
    scan_bytes: int = 0
    scan_seconds: float = 0.0


class Pace:
    """How fast a build goes, from its events: what earlier builds did does not count."""

    def __init__(self) -> None:
        """Nothing happened yet."""
        self._before = self._bytes = self._excluded = 0
        self._slowest, self._slowest_s = "", 0.0

    def add(self, event: BuildEvent) -> str:
        """Take note of an event.

        Returns:
            Speed, time to go, exclusions and the slowest scan in a few words; "" before the first.
        """
        if event.kind == "plan":
            self._before = event.done
        self._bytes += event.scan_bytes
        self._excluded += event.kind == "excluded"
        if event.scan_seconds > self._slowest_s:
            self._slowest, self._slowest_s = event.scan, event.scan_seconds
        here = event.done - self._before
        if not here or event.seconds <= 0:
            return ""
        words = [
            f"{here / event.seconds:.2f} scans/s",
            f"{self._bytes / 1e6 / event.seconds:.1f} MB/s",
        ]
        if event.done < event.total:
            words.append(f"{clock((event.total - event.done) * event.seconds / here)} to go")
        if self._excluded:
            words.append(f"{self._excluded} excluded")
        if self._slowest:
            words.append(f"slowest {self._slowest} {self._slowest_s:.1f} s")
        return ", ".join(words)


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds.

    >>> clock(3725.4)
    '1:02:05'
    """
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


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
