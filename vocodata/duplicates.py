"""The same scan twice in a store, or in a store and elsewhere; and the lists that leave it out.

Exact: the same voxels, however turned and under whatever spacing. Near: a stretch of the other's
slices, or the other resampled, mirrored, cut, windowed or compressed with loss. What speaks for a
pair is in vocodata/fingerprint.py; fingerprints lie in the catalogue, so no voxel is read here.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vocodata.archives import unpacked
from vocodata.discover import find_scans
from vocodata.errors import ManifestError, StoreError, VocoDataError
from vocodata.fingerprint import Fingerprint, fingerprint, parse_fingerprint
from vocodata.geometry import orient_ras
from vocodata.manifest import Manifest, Source, load_manifest
from vocodata.readers import read_volume
from vocodata.similarity import find_matches
from vocodata.store.metadata import DOCUMENT
from vocodata.store.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vocodata.discover import Scan
    from vocodata.store.store import Store

Kind = Literal["exact", "near"]
MIN_SHARED_MARKS = 4
"""Slices of 32-bit sums that two scans have in common, for one to hold a stretch of the other."""
MAX_SCANS_OF_A_MARK = 100


class Link(NamedTuple):
    """Two scans that are one.

    Attributes:
        kind: `exact` or `near`.
        one: Id of the first.
        other: Id of the second.
        evidence: For people: what speaks for it.
    """

    kind: Kind
    one: str
    other: str
    evidence: str


@dataclass(frozen=True)
class Cluster:
    """Scans that are one.

    Attributes:
        kind: `exact` if all have the same voxels.
        scans: Ids, sorted.
    """

    kind: Kind
    scans: tuple[str, ...]


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
    """

    checked: int
    unreadable: Mapping[str, str]
    leaks: tuple[Leak, ...]

    @property
    def scans(self) -> tuple[str, ...]:
        """Scans of the store that should be left out, sorted."""
        return tuple(sorted({leak.scan for leak in self.leaks}))


def find_duplicates(store: str | Path | Store) -> list[Cluster]:
    """Clusters of scans that are one, over all sources of a store.

    A scan may be in an exact cluster and, with others, in a near one.

    Args:
        store: A store, or its folder.

    Raises:
        StoreError: Not a store of this version.
    """
    return clusters(links(store_fingerprints(store)))


def find_leaks(
    store: str | Path | Store,
    against: str | Path,
    *,
    on_scan: Callable[[int, int], None] | None = None,
) -> LeakReport:
    """Which scans of another store, manifest or folder are in a store.

    Args:
        store: A store, or its folder.
        against: A store's folder, a manifest, or a folder of scans; the latter two are read.
        on_scan: Called with files read and files to read.

    Raises:
        StoreError: Not a store of this version.
        ManifestError: The manifest is wrong, or no scan is in the folder.
    """
    inside = {("store", key): value for key, value in store_fingerprints(store).items()}
    there, unreadable = _other_side(Path(against), on_scan or (lambda _done, _all: None))
    outside = {("against", key): value for key, value in there.items()}
    keyed = {"\n".join(key): value for key, value in (inside | outside).items()}
    leaks = []
    for link in links(keyed):
        (side, scan), (other_side, other) = (key.split("\n") for key in (link.one, link.other))
        if side != other_side:
            scan, other = (scan, other) if side == "store" else (other, scan)
            leaks.append(Leak(link.kind, scan, other, link.evidence))
    ordered = sorted(leaks, key=lambda leak: (leak.scan, leak.against))
    return LeakReport(len(there), unreadable, tuple(ordered))


def store_fingerprints(store: str | Path | Store) -> dict[str, Fingerprint]:
    """Fingerprints of a store's scans by id, as the catalogue has them."""
    table = (open_store(store) if isinstance(store, str | Path) else store).catalog()
    texts = table.column("fingerprint").to_pylist()
    ids = table.column("id").to_pylist()
    try:
        return {scan: parse_fingerprint(text) for scan, text in zip(ids, texts, strict=True)}
    except ValueError as error:
        msg = f"{error} Another version wrote the catalogue; build the store again."
        raise StoreError(msg) from error


def links(scans: Mapping[str, Fingerprint]) -> list[Link]:
    """All pairs of scans that are one; of many exact copies, each with the first only."""
    ids = list(scans)
    by_digest: dict[str, list[str]] = defaultdict(list)
    for scan in ids:
        by_digest[scans[scan].content_digest].append(scan)
    found = [
        Link("exact", same[0], other, "the same voxels")
        for same in by_digest.values()
        for other in same[1:]
    ]
    firsts = [same[0] for same in by_digest.values()]
    near: dict[tuple[str, str], str] = {}
    for match in find_matches([scans[scan].landmarks for scan in firsts]):
        pair = (firsts[match.one], firsts[match.other])
        near[pair] = f"{match.matched} of {match.possible} landmarks agree"
    for pair, shared in _shared_marks(firsts, scans).items():
        near.setdefault(pair, f"{shared} slices are the same")
    # Copies of a scan have its neighbours too.
    for (one, other), evidence in near.items():
        for a, b in itertools.product(
            _copies(scans, by_digest, one), _copies(scans, by_digest, other)
        ):
            found.append(Link("near", a, b, evidence))
    return found


def _copies(
    scans: Mapping[str, Fingerprint], by_digest: Mapping[str, Sequence[str]], scan: str
) -> Sequence[str]:
    return by_digest[scans[scan].content_digest]


def _shared_marks(
    ids: Sequence[str], scans: Mapping[str, Fingerprint]
) -> dict[tuple[str, str], int]:
    owners: dict[int, list[int]] = defaultdict(list)
    for at, scan in enumerate(ids):
        for mark in set(scans[scan].marks.tolist()) - {0}:
            owners[mark].append(at)
    shared = Counter(
        pair
        for those in owners.values()
        if 1 < len(those) <= MAX_SCANS_OF_A_MARK
        for pair in itertools.combinations(those, 2)
    )
    return {
        (ids[one], ids[other]): count
        for (one, other), count in shared.items()
        if count >= MIN_SHARED_MARKS
    }


def clusters(found: Iterable[Link]) -> list[Cluster]:
    """Scans that hang together: exact ones, and those that near links join as well."""
    every = list(found)
    exact = _joined(link for link in every if link.kind == "exact")
    near_scans = {scan for link in every if link.kind == "near" for scan in link[1:3]}
    near = [group for group in _joined(every) if near_scans & set(group)]
    return sorted(
        [Cluster("exact", group) for group in exact] + [Cluster("near", group) for group in near],
        key=lambda cluster: (cluster.scans, cluster.kind),
    )


def _joined(found: Iterable[Link]) -> list[tuple[str, ...]]:
    """Connected groups, by union and find."""
    parent: dict[str, str] = {}

    def root(scan: str) -> str:
        while parent.setdefault(scan, scan) != scan:
            parent[scan] = parent[parent[scan]]
            scan = parent[scan]
        return scan

    for link in found:
        one, other = sorted((root(link.one), root(link.other)))
        parent[other] = one
    groups: dict[str, list[str]] = defaultdict(list)
    for scan in sorted(parent):
        groups[root(scan)].append(scan)
    return [tuple(group) for group in groups.values()]


def all_but_first(found: Iterable[Cluster]) -> list[str]:
    """Scans to leave out so that one of each cluster stays: the first by id."""
    return sorted({scan for cluster in found for scan in cluster.scans[1:]})


def _other_side(
    against: Path, tell: Callable[[int, int], None]
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    if (against / DOCUMENT).exists():
        return store_fingerprints(against), {}
    scans = find_scans(load_manifest(against) if against.is_file() else _folder(against))
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


def _folder(folder: Path) -> Manifest:
    """A manifest of whatever scans lie in a folder."""
    if not folder.exists():
        msg = f"{folder} is not there; expected a store, a manifest or a folder of scans."
        raise ManifestError(msg)
    source = Source(name="against", root=folder.resolve(), preset="abdomen")
    return Manifest(version=1, sources=(source,))


def plain(found: Iterable[Cluster]) -> dict[str, Any]:
    """Clusters as JSON has them."""
    return {"clusters": [{"kind": each.kind, "scans": list(each.scans)} for each in found]}
