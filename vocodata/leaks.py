"""Scans of a test set that are in a store: which, and how sure that is.

The other side is a store, whose catalogue has the fingerprints, or scans that are read for theirs:
a manifest's, a folder's, or a list.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.archives import unpacked
from vocodata.discover import find_scans
from vocodata.duplicates import Kind, Link, links, store_fingerprints
from vocodata.errors import ManifestError, VocoDataError
from vocodata.fingerprint import Fingerprint, fingerprint, parse_fingerprint
from vocodata.geometry import orient_ras
from vocodata.manifest import Manifest, Source, load_manifest
from vocodata.readers import read_volume
from vocodata.remote.path import as_path, redacted
from vocodata.store.metadata import DOCUMENT
from vocodata.store.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vocodata.discover import Scan
    from vocodata.store.store import Store


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
        checked: Scans of the other side that could be read.
        unreadable: Ids that could not, with the reason; nothing is known of them.
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
    on_scan: Callable[[int, int], None] | None = None,
) -> LeakReport:
    """Which scans of another store, manifest, folder or list are in a store.

    Args:
        store: A store, or its folder.
        against: A store's folder or `s3://` URL, a manifest, a folder of scans, or scans; all but
            a store are read.
        on_scan: Called with files read and files to read.

    Raises:
        StoreError: Not a store of this version.
        ManifestError: The manifest is wrong, or no scan is in the folder.
    """
    opened = open_store(store) if isinstance(store, str | Path) else store
    inside = {("store", key): value for key, value in store_fingerprints(opened).items()}
    there, unreadable = _other_side(against, on_scan or (lambda _done, _all: None))
    outside = {("against", key): value for key, value in there.items()}
    keyed = {"\n".join(key): value for key, value in (inside | outside).items()}
    leaks = []
    for link in _every_copy(links(keyed)):
        (side, scan), (other_side, other) = (key.split("\n") for key in (link.one, link.other))
        if side != other_side:
            scan, other = (scan, other) if side == "store" else (other, scan)
            leaks.append(Leak(link.kind, scan, other, link.evidence))
    ordered = sorted(leaks, key=lambda leak: (leak.scan, leak.against))
    return LeakReport(len(there), unreadable, tuple(ordered), opened.digest)


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
        scans = find_scans(load_manifest(path)) if path.is_file() else _scans_in(path)
    else:
        scans = list(against)
    found: dict[str, Fingerprint] = {}
    unreadable: dict[str, str] = {}
    for done, scan in enumerate(scans):
        tell(done, len(scans))
        try:
            found[scan.id] = _fingerprint_of(scan)
        except VocoDataError as error:
            unreadable[scan.id] = error.code
    tell(len(scans), len(scans))
    return found, unreadable


def _fingerprint_of(scan: Scan) -> Fingerprint:
    with unpacked(scan) as files:
        volume = read_volume(files.image, files=files.files)
        return parse_fingerprint(fingerprint(orient_ras(volume)))


def _scans_in(folder: Path) -> list[Scan]:
    """Whatever scans lie in a folder."""
    if not folder.exists():
        msg = f"{folder} is not there; expected a store, a manifest or a folder of scans."
        raise ManifestError(msg)
    source = Source(name="against", root=folder.resolve(), preset="abdomen")
    try:
        return find_scans(Manifest(version=1, sources=(source,)))
    except ManifestError as error:
        msg = (
            f"{folder}: {error.detail} A manifest can say it, and be given in place of the folder; "
            f"`voco data init {shlex.quote(str(folder))}` writes a first one."
        )
        raise ManifestError(msg) from error
