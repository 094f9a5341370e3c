"""One scan's worth of work: what a worker is sent, what it does, what it sends back.

A result is small and plain: the voxels go to the store, never back to the scheduler.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vocodata.errors import (
    REASONS,
    DiskFullError,
    NotEnoughMemoryError,
    SchedulerError,
    SourceLostError,
    StoreError,
    StoreUnreachableError,
    VocoDataError,
)
from vocodata.identifiers import without_uids
from vocodata.ingest import process_scan
from vocodata.memory import highest_resident_bytes
from vocodata.passes import Lost, Needs
from vocodata.presets import preset
from vocodata.recipe import rules_digest, scan_recipe
from vocodata.remote.path import RemotePath
from vocodata.remote.scratch import scratch_path
from vocodata.store.metadata import DOCUMENT
from vocodata.store.writer import write_scan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vocodata.discover import Scan
    from vocodata.store.catalog import CatalogRow, ExcludedRow

STORE_ATTEMPTS = 3
"""Times a scan's files are written before a file system's refusal ends the build."""


@dataclass(frozen=True)
class ScanJob:
    """A scan to be built.

    Attributes:
        scan: Which.
        recipe: Digest of all that the result depends on.
        store: Folder of the store, absolute: workers may stand elsewhere.
        codec: Key of `shard.CODECS`.
        step_hu: One of `hu_steps.STEPS_HU`.
    """

    scan: Scan
    recipe: str
    store: Path
    codec: str
    step_hu: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a job ended: with a catalogue row, or with a reason why not.

    Attributes:
        job: What was to be done.
        row: The scan is in the store.
        reason: Key of `errors.REASONS`; the scan is not in the store.
        detail: The sentence that belongs to the reason, without paths; for the ledger.
        seconds: Time it took.
        worker_bytes: Most memory that the process held until then, this scan and others before.
        gone: The file or folder that was not there where the job ran, if the scan is out for that.
    """

    job: ScanJob
    row: CatalogRow | None = None
    reason: str = ""
    detail: str = ""
    seconds: float = field(default=0.0, compare=False)
    worker_bytes: int = field(default=0, compare=False)
    gone: Path | None = None

    @property
    def told(self) -> str:
        """The sentence as the store and the screen may have it."""
        return REASONS[self.reason] if self.job.scan.hides_names else self.detail


def run_job(job: ScanJob, room_bytes: int | None = None) -> Outcome | Needs[ScanJob]:
    """Process one scan into the store.

    Whatever is wrong with the scan is an outcome, since one scan must not end a build of many;
    what is wrong with the store is raised, since no other scan would fare better.

    Args:
        job: Which scan.
        room_bytes: Memory it may take. One that is predicted to take more is not begun.

    Raises:
        DiskFullError: No room for the scan.
        StoreError: The store cannot be written.
    """
    began = time.perf_counter()
    if job.scan.is_listed:
        detail = "The manifest's list of scans to leave out (key exclude) names it."
        return _excluded(job, "listed", detail, began)
    try:
        row = _store(job, room_bytes)
    except StoreError:
        raise
    except NotEnoughMemoryError as error:
        return Needs(job, error.needed_bytes, room_bytes or 0)
    except VocoDataError as error:
        outcome = _excluded(job, _reason(error), error.detail, began)
        return replace(outcome, gone=_gone(job.scan, error.code))
    except MemoryError as error:
        return _excluded(job, "out_of_memory", f"Processing ran out of memory: {error}", began)
    except OSError as error:
        return _excluded(job, "io_error", f"{error.strerror or error}", began)
    # A format library meets a file that nobody foresaw; it is named and the build goes on.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        return _excluded(job, "unexpected_error", f"{type(e).__name__}: {e}", began)
    seconds = time.perf_counter() - began
    return Outcome(job, row=row, seconds=seconds, worker_bytes=highest_resident_bytes())


def run_on_worker(job: ScanJob, room_bytes: int, *, rules: str) -> Outcome | Needs[ScanJob]:
    """As `run_job`, on a machine that may be another one than the build's.

    Args:
        job: Which scan.
        room_bytes: Memory it may take.
        rules: `rules_digest` as the build has it.

    Raises:
        SchedulerError: This machine has another version of the toolkit.
        StoreUnreachableError: The store is not there, as seen from here: made anew on a worker's
            own disk it would look as if it were written.
    """
    machine = os.uname().nodename
    if rules != rules_digest():
        msg = (
            f"The Dask worker on {machine} has another version of the toolkit, or other presets, "
            "than the build; expected the same. Install the same version on all machines, then "
            "build again with --resume."
        )
        raise SchedulerError(msg)
    if not isinstance(job.store, RemotePath) and not (job.store / DOCUMENT).exists():
        msg = (
            f"{job.store} is not there, as seen from {machine}: it was removed during the build, "
            "or is not on a disk that all workers share. Mend that, then build again with --resume."
        )
        raise StoreUnreachableError(msg)
    return run_job(job, room_bytes)


def refuse_lost_source(outcome: Outcome) -> None:
    """End a build whose source went away, or is not seen by workers: no other scan fares better.

    Args:
        outcome: Of a scan; one that was not found is looked for here, too.

    Raises:
        SourceLostError: The folder went too, or is empty now.
        SchedulerError: The file is there.
    """
    job, place = outcome.job, outcome.gone
    scan = job.scan
    if place is None:
        return
    if place.exists():
        msg = (
            f"A Dask worker does not find {place}, which is there on {os.uname().nodename}; "
            "expected sources on a disk that all machines share, under the same path. Mount it, "
            "then build again with --resume."
        )
        raise SchedulerError(msg)
    folder = place.parent
    was_there = scan_recipe(scan, job.codec, step_hu=job.step_hu) != job.recipe
    if was_there and not (folder.is_dir() and any(folder.iterdir())):
        msg = (
            f"{folder} of source '{scan.source}' went away while it was being read; expected it "
            "to stay. Bring it back, then build again with --resume."
        )
        raise SourceLostError(msg)


def _gone(scan: Scan, code: str) -> Path | None:
    """What of a scan is not there; None where that lies inside an archive or on a server."""
    place = {"file_missing": scan.image, "labels_missing": scan.labels}.get(code)
    if place is None or scan.packed is not None or place.exists():
        return None
    return place


def _reason(error: VocoDataError) -> str:
    """Its code; but a file system that refuses may give the file later."""
    cause = error.__cause__
    is_refused = isinstance(cause, OSError) and cause.errno is not None
    return "io_error" if error.code == "unreadable" and is_refused else error.code


def _store(job: ScanJob, room_bytes: int | None) -> CatalogRow:
    # Under a name that is swept later should this process be killed.
    scratch = scratch_path(job.store)
    processed = process_scan(
        job.scan,
        preset(job.scan.preset),
        scratch=scratch,
        room_bytes=room_bytes,
        step_hu=job.step_hu,
    )
    for attempt in range(1, STORE_ATTEMPTS + 1):
        try:
            return write_scan(job.store, job.scan, processed, job.codec)
        except (DiskFullError, StoreUnreachableError):
            raise
        except StoreError:
            if attempt == STORE_ATTEMPTS:
                raise
    raise AssertionError


def _excluded(job: ScanJob, reason: str, detail: str, began: float) -> Outcome:
    seconds = time.perf_counter() - began
    sentence = _one_line(without_paths(detail, job.scan))
    return Outcome(job, reason=reason, detail=sentence, seconds=seconds)


def _one_line(detail: str) -> str:
    """Without what would break a table or steer a terminal: a file's name may hold anything."""
    text = " ".join(detail.split())
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def settled(result: Outcome | Needs[ScanJob] | Lost[ScanJob]) -> Outcome:
    """What became of a scan, also where it could not be run."""
    if isinstance(result, Needs):
        return _too_large(
            result.job, needed_bytes=result.needed_bytes, room_bytes=result.room_bytes
        )
    return _killed(result.job, deaths=result.deaths) if isinstance(result, Lost) else result


def _killed(job: ScanJob, *, deaths: int) -> Outcome:
    """The outcome of a scan whose workers kept dying."""
    detail = (
        f"{deaths} workers ended while processing the scan; expected none to. Most often it does "
        "not fit the memory: use fewer --workers, or leave the scan out."
    )
    return Outcome(job, reason="kills_worker", detail=detail)


def _too_large(job: ScanJob, *, needed_bytes: int, room_bytes: int) -> Outcome:
    """The outcome of a scan that no worker has the memory for; none was lost by trying."""
    detail = (
        f"Processing takes up to {needed_bytes / 1e9:.2f} GB of memory, as the header says; there "
        f"is room for {room_bytes / 1e9:.2f} GB. Build on a larger machine with --resume, or cut "
        "the scan."
    )
    return Outcome(job, reason="out_of_memory", detail=detail)


def as_told(rows: Iterable[ExcludedRow], scans: Iterable[Scan]) -> list[ExcludedRow]:
    """The ledger's excluded scans as the store may have them.

    Of a scan that hides its names only the reason's general sentence is told, since any other
    may quote what a file is called.
    """
    hidden = {scan.id for scan in scans if scan.hides_names}
    return [
        row._replace(detail=REASONS[row.reason]) if f"{row.source}/{row.scan}" in hidden else row
        for row in rows
    ]


def without_paths(detail: str, scan: Scan) -> str:
    """A sentence with the source's places replaced by the scan's id: the store names no paths.

    Neither does it name UIDs, which files are often called by.
    """
    places: set[str] = set()
    archive = None if scan.packed is None else scan.packed.archive.path
    for path in (scan.image, scan.labels, archive):
        if path is not None:
            for form in (path, path.absolute(), _resolved(path)):
                places |= {str(form), str(form.parent)}
    for place in sorted(places - {".", "/"}, key=len, reverse=True):
        detail = detail.replace(place, scan.id)
    return without_uids(detail)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        # A link that leads to itself.
        return path
