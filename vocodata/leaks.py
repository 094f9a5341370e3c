"""Scans of a test set that are in a store: which, and how sure that is.

The other side is a store, whose catalogue has the fingerprints, or scans that are read for theirs:
a manifest's, a folder's, an archive's, or a list. Of a scan that is no CT in HU (grey levels,
values from 0 to 1) only an exact copy can be found: where there is none, nothing is known of it,
and it does not count as checked.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.archives import unpacked
from vocodata.census import take_census
from vocodata.discover import Scan, find_scans
from vocodata.duplicates import Kind, Link, links, store_fingerprints
from vocodata.errors import ImplausibleScanError, ManifestError, VocoDataError
from vocodata.fingerprint import Fingerprint, fingerprint, parse_fingerprint
from vocodata.geometry import orient_ras
from vocodata.manifest import Manifest, Source, load_manifest
from vocodata.presets import preset
from vocodata.quality import failed_checks, measure
from vocodata.readers import is_file_name, read_header, read_volume
from vocodata.refusals import (
    refuse_by_policy,
    refuse_implausible_grid,
    refuse_implausible_values,
)
from vocodata.remote.path import as_path, redacted
from vocodata.store.metadata import DOCUMENT
from vocodata.store.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vocodata.similarity import OnProgress
    from vocodata.store.store import Store

_PRESET = "abdomen"
"""Scans are read at their own spacing; its grid and limits say what no store could hold."""
TEST_FOLDER = "imagesTs"
_MANIFESTS = ("", ".yaml", ".yml", ".json", ".txt")


@dataclass(frozen=True)
class Leak:
    """A scan of the other side that is in the store.

    Attributes:
        kind: `exact` or `near`.
        scan: Id in the store.
        against: Id on the other side.
        evidence: What speaks for it.
    """

    kind: Kind
    scan: str
    against: str
    evidence: str


@dataclass(frozen=True)
class LeakReport:
    """What of the other side is in the store.

    Attributes:
        checked: Scans of the other side that could be compared.
        unreadable: Ids that could not, or hold no HU, with the reason; nothing is known of them.
        leaks: Pairs, by id.
        store_digest: Of the store that was looked through.
    """

    checked: int
    unreadable: Mapping[str, str]
    leaks: tuple[Leak, ...]
    store_digest: str = ""

    @property
    def scans(self) -> tuple[str, ...]:
        """Scans of the store that should be left out, sorted."""
        return tuple(sorted({leak.scan for leak in self.leaks}))

    @property
    def leaked(self) -> tuple[str, ...]:
        """Scans of the other side that are in the store, sorted."""
        return tuple(sorted({leak.against for leak in self.leaks}))

    @property
    def facts(self) -> dict[str, int | str]:
        """The figure of the check, for the head of an exclusion list."""
        return {
            "checked": self.checked,
            "unreadable": len(self.unreadable),
            "leaked": len(self.leaked),
            "leaking": len(self.scans),
            "store_digest": self.store_digest,
        }


def find_leaks(
    store: str | Path | Store,
    against: str | Path | Sequence[Scan],
    *,
    on_progress: OnProgress | None = None,
) -> LeakReport:
    """Which scans of another store, manifest, folder or list are in a store.

    Args:
        store: A store, or its folder.
        against: A store's folder or `s3://` URL, a manifest, a folder or an archive of scans, a
            scan's file, or scans; all but a store are read.
        on_progress: As for `find_matches`; before, with `read`, files read and files to read.

    Raises:
        StoreError: Not a store of this version.
        ManifestError: The manifest is wrong, or no scan is in the folder.
    """
    opened = open_store(store) if isinstance(store, str | Path) else store
    inside = {("store", key): value for key, value in store_fingerprints(opened).items()}
    tell = on_progress or (lambda _stage, _done, _all: None)
    there, unreadable = _other_side(against, partial(tell, "read"))
    outside = {("against", key): value for key, value in there.items()}
    keyed = {"\n".join(key): value for key, value in (inside | outside).items()}
    leaks = []
    for link in _every_copy(links(keyed, on_progress=tell)):
        (side, scan), (other_side, other) = (key.split("\n") for key in (link.one, link.other))
        if side != other_side:
            scan, other = (scan, other) if side == "store" else (other, scan)
            leaks.append(Leak(link.kind, scan, other, link.evidence))
    ordered = sorted(leaks, key=lambda leak: (leak.scan, leak.against))
    leaked = {leak.against for leak in ordered}
    unknown = {scan: reason for scan, reason in unreadable.items() if scan not in leaked}
    return LeakReport(len(there.keys() - unknown), unknown, tuple(ordered), opened.digest)


def _every_copy(found: Iterable[Link]) -> Iterator[Link]:
    """The same links, and of exact copies each with each: no copy of a leaked scan may stay.

    `links` joins copies with the first of them only; that is one of the store, if any is.
    """
    copies: dict[str, list[str]] = {}
    for link in found:
        if link.kind == "near":
            yield link
            continue
        of_store = copies.setdefault(link.one, [link.one])
        if link.other.startswith("store\n"):
            of_store.append(link.other)
        else:
            yield from (link._replace(one=one) for one in of_store)


def _other_side(
    against: str | Path | Sequence[Scan], tell: Callable[[int, int], None]
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    if isinstance(against, str | Path):
        try:
            path = as_path(against)
        except ValueError as error:
            msg = f"{redacted(str(against))} cannot be compared with: {error}."
            raise ManifestError(msg) from error
        if (path / DOCUMENT).exists():
            return store_fingerprints(path), {}
        is_manifest = path.suffix.lower() in _MANIFESTS and path.is_file()
        scans = _every_scan(load_manifest(path)) if is_manifest else _scans_in(path)
    else:
        scans = list(against)
    found: dict[str, Fingerprint] = {}
    unreadable: dict[str, str] = {}
    for done, scan in enumerate(scans):
        tell(done, len(scans))
        try:
            found[scan.id], reason = _fingerprint_of(scan)
        except VocoDataError as error:
            reason = error.code
        except MemoryError:
            reason = "out_of_memory"
        except OSError:
            reason = "io_error"
        # As in a build: a format library meets a file that nobody foresaw.
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            reason = "unexpected_error"
        if reason:
            unreadable[scan.id] = reason
    tell(len(scans), len(scans))
    return found, unreadable


def _fingerprint_of(scan: Scan) -> tuple[Fingerprint, str]:
    """A scan's fingerprint, and why it says nothing but of exact copies; "" if it says all."""
    with unpacked(replace(scan, labels=None)) as files:
        refuse_implausible_grid(read_header(files.image, files=files.files), preset(_PRESET))
        volume = orient_ras(read_volume(files.image, files=files.files))
    census, reason = take_census(volume), ""
    try:
        refuse_implausible_values(volume, census)
        refuse_by_policy(scan, failed_checks(measure(volume, census), preset(_PRESET).quality))
    except ImplausibleScanError as error:
        reason = error.code
    return parse_fingerprint(fingerprint(volume, census)), reason


def _scans_in(folder: Path) -> list[Scan]:
    """Whatever scans lie in a folder or an archive, or the scan that a file is."""
    if is_file_name(folder) and folder.is_file():
        name = folder.name.partition(".")[0]
        return [Scan(f"against/{name}", "against", name, folder, None, None, _PRESET)]
    if not folder.exists():
        msg = f"{folder} is not there; expected a store, a manifest or a folder of scans."
        raise ManifestError(msg)
    source = Source(name="against", root=folder.resolve(), preset=_PRESET, names="path")
    try:
        return _every_scan(Manifest(version=1, sources=(source,)))
    except ManifestError as error:
        msg = (
            f"{folder}: {error.detail} A manifest can say it, and be given in place of the folder; "
            f"`voco data init {shlex.quote(str(folder))}` writes a first one."
        )
        raise ManifestError(msg) from error


def _every_scan(manifest: Manifest) -> list[Scan]:
    """A manifest's scans, and those that nnU-Net's and MSD's folders keep apart for testing.

    A build passes over the latter; of all scans they are the ones that a leak check is about.
    They are called by their paths unless the manifest says otherwise: whoever asks has the files,
    and no store gets the names.
    """
    sources = tuple(s.model_copy(update={"names": s.names or "path"}) for s in manifest.sources)
    scans = find_scans(manifest.model_copy(update={"sources": sources}))
    for source in sources:
        if source.layout not in ("auto", "nnunet", "msd"):
            continue
        change = {"name": f"{source.name[:55]}-imagesTs", "layout": "glob", "expected": None}
        test = source.model_copy(update=change | {"images": f"{TEST_FOLDER}/*.*"})
        known = {scan.image for scan in scans}
        # There are none: as good.
        with contextlib.suppress(ManifestError):
            found = find_scans(Manifest(version=1, sources=(test,)))
            scans += [s for s in found if s.image not in known and is_file_name(s.image)]
    return scans
