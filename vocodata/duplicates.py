"""The same scan twice in a store, or in a store and elsewhere; and the lists that leave it out.

Exact: the same voxels, however turned and under whatever spacing. Near: a stretch of the other's
slices, or the other resampled, mirrored, cut, windowed or compressed with loss. What speaks for a
pair is in vocodata/fingerprint.py; fingerprints lie in the catalogue, so no voxel is read here.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vocodata.errors import StoreError
from vocodata.fingerprint import Fingerprint, parse_fingerprint
from vocodata.similarity import find_matches
from vocodata.store.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vocodata.similarity import OnProgress
    from vocodata.store.store import Store

_log = logging.getLogger(__name__)
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


def find_duplicates(
    store: str | Path | Store, *, on_progress: OnProgress | None = None
) -> list[Cluster]:
    """Clusters of scans that are one, over all sources of a store.

    A scan may be in an exact cluster and, with others, in a near one.

    Args:
        store: A store, or its folder.
        on_progress: As for `find_matches`.

    Raises:
        StoreError: Not a store of this version.
    """
    return clusters(links(store_fingerprints(store), on_progress=on_progress))


def store_fingerprints(store: str | Path | Store) -> dict[str, Fingerprint]:
    """Fingerprints of a store's scans by id, as the catalogue has them.

    Of a store whose build has not finished a warning is logged: what is not there is not found.
    """
    opened = open_store(store) if isinstance(store, str | Path) else store
    if not opened.attributes["complete"]:
        _log.warning(
            f"{opened.root}: its build has not finished, so scans still to come are not looked at. "
            "Build with --resume, then look again."
        )
    table = opened.catalog(["id", "fingerprint"])
    texts = table.column("fingerprint").to_pylist()
    ids = table.column("id").to_pylist()
    try:
        return {scan: parse_fingerprint(text) for scan, text in zip(ids, texts, strict=True)}
    except ValueError as error:
        msg = f"{error} Another version wrote the catalogue; build the store again."
        raise StoreError(msg) from error


def links(scans: Mapping[str, Fingerprint], *, on_progress: OnProgress | None = None) -> list[Link]:
    """All pairs of scans that are one; of many exact copies, each with the first only.

    `on_progress` is as for `find_matches`.
    """
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
    # A copy under a wrong affine has other landmarks: each copy that lies differently is searched.
    places = {(scans[scan].content_digest, _places(scans[scan])): scan for scan in reversed(ids)}
    searched, order = list(places.values()), {scan: at for at, scan in enumerate(ids)}
    landmarks = [scans[scan].landmarks for scan in searched]
    for match in find_matches(landmarks, on_progress=on_progress):
        one, other = (_copies(scans, by_digest, searched[at])[0] for at in match[:2])
        if one != other:
            one, other = sorted((one, other), key=order.__getitem__)
            near[one, other] = f"{match.matched} of {match.possible} landmarks agree"
    for pair, shared in _shared_marks(firsts, scans).items():
        near.setdefault(pair, f"{shared} slices are the same")
    # Copies of a scan have its neighbours too.
    for (one, other), evidence in near.items():
        for a, b in itertools.product(
            _copies(scans, by_digest, one), _copies(scans, by_digest, other)
        ):
            found.append(Link("near", a, b, evidence))
    return found


def _places(scan: Fingerprint) -> bytes:
    return scan.landmarks.place_N3.tobytes()


def _copies(
    scans: Mapping[str, Fingerprint], by_digest: Mapping[str, Sequence[str]], scan: str
) -> Sequence[str]:
    return by_digest[scans[scan].content_digest]


def _shared_marks(
    ids: Sequence[str], scans: Mapping[str, Fingerprint]
) -> dict[tuple[str, str], int]:
    """Pairs of scans that have several marks in common; sorted, marks of one value are together."""
    if len(ids) < 2:
        return {}
    marks = np.stack([scans[scan].marks for scan in ids]).astype(np.uint64)
    owner = np.arange(len(ids), dtype=np.uint64)[:, None]
    entries = np.unique((marks << np.uint64(32) | owner)[marks != 0])
    values, owners = entries >> np.uint64(32), (entries & np.uint64(0xFFFFFFFF)).tolist()
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1], True])
    lengths = np.diff(starts)
    says_something = (lengths > 1) & (lengths <= MAX_SCANS_OF_A_MARK)
    shared = Counter(
        pair
        for start, length in zip(
            starts[:-1][says_something].tolist(), lengths[says_something].tolist(), strict=True
        )
        for pair in itertools.combinations(owners[start : start + length], 2)
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


def groups(found: Iterable[Cluster]) -> int:
    """How many bodies are there more than once: exact copies inside a near cluster are not two."""
    every = list(found)
    near = {scan for cluster in every if cluster.kind == "near" for scan in cluster.scans}
    return sum(cluster.kind == "near" or cluster.scans[0] not in near for cluster in every)


def plain(found: Iterable[Cluster]) -> dict[str, Any]:
    """Clusters as JSON has them."""
    return {"clusters": [{"kind": each.kind, "scans": list(each.scans)} for each in found]}
