"""From a manifest to a store: plan, run, record, publish, prove.

    find scans ─► plan against the ledger ─► run jobs ─► record each ─► publish ─► prove
                                                 └ a signal: publish what is done, and stop

Killed at any instruction and run again with `resume`, a build ends in the same store, byte for
byte. Every build ends by proving that the scans found are those in the catalogue and those
excluded, together and once each, as read back from disk.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.build_start import (
    VoxelForm,
    comings_and_goings,
    lost_ledger,
    note_expected,
    own_ledger,
    prepare,
    refuse_dropped_sources,
    refuse_other_names,
    salt_of,
    voxel_form,
)
from vocodata.build_state import build_status as build_status
from vocodata.discover import find_scans
from vocodata.errors import SchedulerError, StoreError, StoreUnreachableError
from vocodata.executor import run_dask, run_inline, usable_workers
from vocodata.hu_steps import checked_step
from vocodata.job import (
    Outcome,
    ScanJob,
    as_told,
    refuse_lost_source,
    run_job,
    run_on_worker,
    settled,
)
from vocodata.ledger import Ledger, default_ledger
from vocodata.lock import Lock, build_lock
from vocodata.manifest import Manifest, load_manifest
from vocodata.plan import BuildPlan, lost_scans, make_plan, may_pass
from vocodata.progress import BuildEvent as BuildEvent
from vocodata.progress import BuildReport as BuildReport
from vocodata.progress import EventKind
from vocodata.recipe import rules_digest
from vocodata.signals import Stop, stop_on_signals
from vocodata.store.atomic import sweep
from vocodata.store.root import prove_accounting, prune, publish, read_attributes, store_path
from vocodata.store.shard import codec_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vocodata.discover import Scan
    from vocodata.passes import Lost, Needs

_log = logging.getLogger(__name__)


def build(
    manifest: Manifest | str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    max_excluded: int | None = None,
    ledger: str | Path | None = None,
    codec: str | None = None,
    step_hu: int | None = None,
    salt_file: str | Path | None = None,
    on_event: Callable[[BuildEvent], None] | None = None,
) -> BuildReport:
    """Build a store, or go on with one.

    Args:
        manifest: The sources, or the file that names them.
        out: Folder of the store, or an `s3://` URL.
        workers: Processes; 0 works in this one without Dask, None takes the cores at hand, as far
                as memory allows.
        scheduler: Address of a running Dask scheduler, instead of processes here.
        resume: Go on with what is there: scans done by the same recipe stay.
        overwrite: Throw away what is there.
        max_excluded: Kept in the report, for `exceeds`.
        ledger: SQLite file; as `default_ledger` has it if None.
        codec: `zstd`, or `lz4` for faster reading at 17 to 29 % more bytes. None takes that of
            the build that goes on, or zstd.
        step_hu: 1 keeps every HU; 2 and 4 keep multiples of so many, off by half as many at most,
            in fewer bytes. None takes that of the build that goes on, or 1.
        salt_file: For names that hide identifiers; as `take_salt` has it if None.
        on_event: Called with what happens.

    Returns:
        What is in the store now.

    Raises:
        ManifestError: It is wrong, a source has no scan, or scans would get other names unasked.
        StoreExistsError: The folder is not empty, and neither `resume` nor `overwrite` is given.
        StoreLockedError: Another build is at work there.
        SaltError: The salt that the store's names were made with is not there.
        SourceLostError: A source's folder went away meanwhile.
        SchedulerError: Dask's scheduler or workers are gone, or do not see what this machine sees.
        RemoteError: The server of a source refuses, or does not answer.
        DiskFullError: No room; the build can be resumed.
        BuildInterruptedError: SIGINT or SIGTERM came; what is done is in the catalogue.
    """
    root = store_path(out)
    path = default_ledger(root) if ledger is None else Path(ledger)
    salt = salt_of(path, salt_file, resume=resume)
    known = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
    scans = find_scans(known, salt=salt.key)
    if resume and overwrite:
        msg = "Both resume and overwrite are given; expected one of them."
        raise StoreError(msg)
    # Before anything is overwritten.
    codec = None if codec is None else codec_named(codec).name
    step_hu = None if step_hu is None else checked_step(step_hu)
    with build_lock(root, path) as lock:
        is_fresh = prepare(root, path, resume=resume, overwrite=overwrite)
        salt.keep()
        with Ledger(path) as book:
            own_ledger(book, root, is_default=ledger is None)
            if resume:
                refuse_other_names(book, root, known, scans)
            if not is_fresh and (sentence := lost_ledger(book, root)):
                _log.warning(sentence)
            if is_fresh and not resume:
                book.clear()
                book.note("store", str(root.resolve()))
            book.note("salt", salt.mark)
            tell = on_event or (lambda _: None)
            form = voxel_form(book, root, codec=codec, step_hu=step_hu)
            run = _Run(root, book, scans, form, tell, max_excluded, lock)
            return run.run(workers=workers, scheduler=scheduler)


class _Run:
    """A build under way: the few things that all of its steps need."""

    def __init__(
        self,
        root: Path,
        book: Ledger,
        scans: Sequence[Scan],
        form: VoxelForm,
        tell: Callable[[BuildEvent], None],
        max_excluded: int | None,
        lock: Lock,
    ) -> None:
        self.lock, self.form = lock, form
        self.worker_bytes = int(book.note("worker_bytes") or 0)
        self.root, self.book, self.scans, self.tell = root, book, scans, tell
        self.max_excluded = max_excluded
        self.began = time.perf_counter()
        self.plan: BuildPlan = make_plan(
            scans, book.entries(), root, form.codec, step_hu=form.step_hu
        )
        self.settled = len(self.plan.done) + len(self.plan.settled_excluded)
        self.bytes_written = 0

    def run(self, *, workers: int | None, scheduler: str | None) -> BuildReport:
        """All steps, in order."""
        refuse_dropped_sources(self.root, self.scans)
        if self.plan.remade:
            _log.warning(
                f"{len(self.plan.remade)} scans of {self.root} were made from other files, or by "
                "another preset, step of HU, codec or version; they are made again."
            )
        found_before = read_attributes(self.root)["counts"]["found"]
        for sentence in comings_and_goings(self.plan, self.book.entries(), found_before):
            _log.warning(f"{self.root}: {sentence}")
        self._event("plan", message=f"{len(self.plan.jobs)} of {len(self.scans)} scans to build")
        if note_expected(self.book, self.plan, self.form):
            self.worker_bytes = 0
        # Before a shard changes, the catalogue stops naming it.
        self.book.forget(self.plan.stale)
        self._publish()
        with stop_on_signals() as stop:
            try:
                for outcome in self._outcomes(workers, scheduler, stop):
                    self._record(outcome)
            except SchedulerError:
                # A signal that the workers got as well, as from a batch system.
                if not stop.signum:
                    raise
            finally:
                sweep(self.root)
            if stop.signum and self.settled < len(self.scans):
                # A worker may have begun a scan that was being taken back from it.
                self._prune()
                self._publish()
                raise stop.error(self.root, done=self.settled, found=len(self.scans))
            return self._finish()

    def _outcomes(
        self, workers: int | None, scheduler: str | None, stop: Stop
    ) -> Iterator[Outcome]:
        jobs = self.plan.jobs
        if not jobs:
            return
        wanted = usable_workers(len(jobs)) if workers is None else workers
        results: Iterator[Outcome | Needs[ScanJob] | Lost[ScanJob]]
        if scheduler is None and (wanted == 0 or (workers is None and wanted == 1)):
            results = run_inline(run_job, jobs, should_stop=stop.is_set)
        else:
            results = run_dask(
                partial(run_on_worker, rules=rules_digest()),
                jobs,
                workers=max(1, wanted),
                scheduler=scheduler,
                should_stop=stop.is_set,
                tell=lambda text: self._event("note", message=text),
            )
        for result in results:
            yield settled(result)

    def _record(self, outcome: Outcome) -> None:
        refuse_lost_source(outcome)
        job, row = outcome.job, outcome.row
        self.settled += 1
        if outcome.worker_bytes > self.worker_bytes:
            self.worker_bytes = outcome.worker_bytes
            self.book.note("worker_bytes", str(self.worker_bytes))
        if row is not None:
            self.book.record_stored(job.scan, job.recipe, row, seconds=outcome.seconds)
            self.bytes_written += row.bytes
            self._event("stored", job.scan.id, f"{row.bytes} bytes", outcome)
        else:
            self.book.record_excluded(
                job.scan, job.recipe, outcome.reason, outcome.detail, seconds=outcome.seconds
            )
            detail = f"{outcome.reason}: {outcome.told}"
            self._event("excluded", job.scan.id, detail, outcome)

    def _finish(self) -> BuildReport:
        self._prune()
        self._refuse_lost_scans()
        digest = self._publish()
        prove_accounting(self.root, [scan.id for scan in self.scans])
        excluded = as_told(self.book.excluded_rows(), self.scans)
        stored = len(self.scans) - len(excluded)
        if sentence := may_pass(excluded):
            _log.warning(f"{self.root}: {sentence}")
        self._event("done", message=f"{stored} scans stored, {len(excluded)} excluded")
        return BuildReport(
            store=self.root,
            found=len(self.scans),
            stored=stored,
            skipped_done=len(self.plan.done),
            excluded=dict(sorted(Counter(row.reason for row in excluded).items())),
            excluded_rows=excluded,
            seconds=time.perf_counter() - self.began,
            bytes_written=self.bytes_written,
            digest=digest,
            max_excluded=self.max_excluded,
        )

    def _prune(self) -> None:
        prune(self.root, {row.id for row in self.book.stored_rows()})

    def _refuse_lost_scans(self) -> None:
        """What was written must be there still: a worker's disk, or a hand, may be in between."""
        lost = lost_scans(self.root, self.book.entries()) if self.plan.jobs else []
        if lost:
            self.book.forget(lost)
            self._publish()
            msg = (
                f"{len(lost)} scans that were written are not in {self.root} any more, the first "
                f"{lost[0]}; expected them to stay, on a disk that all workers share. Build again "
                "with --resume."
            )
            raise StoreUnreachableError(msg)

    def _publish(self) -> str:
        self.lock.prove()
        weights = {scan.id: scan.weight for scan in self.scans}
        return publish(
            self.root,
            (replace(row, weight=weights[row.id]) for row in self.book.stored_rows()),
            as_told(self.book.excluded_rows(), self.scans),
            found=len(self.scans),
            recipe_digest=self.plan.recipe_digest,
            step_hu=self.form.step_hu,
        )

    def _event(
        self, kind: EventKind, scan: str = "", message: str = "", outcome: Outcome | None = None
    ) -> None:
        now_s, total = time.perf_counter() - self.began, len(self.scans)
        scan_bytes = outcome.row.bytes if outcome is not None and outcome.row is not None else 0
        scan_s = 0.0 if outcome is None else outcome.seconds
        self.tell(BuildEvent(kind, scan, self.settled, total, now_s, message, scan_bytes, scan_s))
