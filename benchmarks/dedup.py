"""Duplicates: recall and false pairs on real scans with edits, and time at 160,000 fingerprints.

    python benchmarks/dedup.py [--scans 160000] [--more FOLDER ...] [--quick] [--json FILE]

Real scans are the sample scans (fetched from two public packages) and whatever lies in the folders
given: NIfTI, MHA or NRRD files and DICOM series, each taken for another patient. Every edit is made
of every scan; an edited scan counts as found if its pair with the original is. Moderate crops keep
90 or 80 % along each axis (73 and 51 % of the volume); harder ones are told apart. Sub-volumes are
random boxes of 40 to 70 % along each axis: what is left of different patients must not be paired.

The search's limit of evidence (it grows with the logarithm of the number of scans) was chosen
looking at scans like these, so the figures that count are those of **leave one scan out**: for each
scan the limit is chosen anew on the packings of all others, halfway between the strongest pair of
strangers and the weakest edit above it, and tried on its own: are its edits found, is it paired
with a stranger. This is done as the search looks (pairs whose words agree), and once more with
every packing of every scan aligned with every packing of every other, also where the search would
not look.

The many fingerprints are simulated from the real ones: stretched by up to 20 % along each axis,
moved by 6 mm at each landmark, three in ten landmarks replaced. All packings of the real scans are
hidden among them, at random places, and the search has to find them again there. One that is hardly
stretched is its scan again rather than a stranger: pairs of the two are told apart from false ones.
"""

import argparse
import itertools
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scan_edits import HARD, MODERATE, SUBVOLUMES

from vocodata.alignment import align
from vocodata.duplicates import Link, links
from vocodata.errors import VocoDataError
from vocodata.fingerprint import Fingerprint, fingerprint, parse_fingerprint
from vocodata.geometry import Volume, orient_ras
from vocodata.landmarks import Landmarks
from vocodata.readers import is_file_name, read_volume
from vocodata.sample_scans import default_cache, fetch_samples
from vocodata.similarity import candidates, least_evidence
from vocodata.threads import in_threads


def real_scans(folders: list[Path], cache: Path) -> Iterator[tuple[str, Volume]]:
    paths = [scan.image for scan in fetch_samples(cache).scans]
    for folder in folders:
        series = {each.parent for each in folder.rglob("*.dcm")}
        paths += sorted(series | {each for each in folder.rglob("*") if is_file_name(each)})
    for path in paths:
        try:
            yield f"{path.parent.name}/{path.name}", orient_ras(read_volume(path))
        except VocoDataError as error:
            print(f"passed over: {path.name}: {error.code}")


def print_of(volume: Volume) -> Fingerprint:
    return parse_fingerprint(fingerprint(volume))


ORIGINAL = "original"


def key(name: str, edit: str) -> str:
    return f"{name}\n{edit}"


def packings(scans: dict[str, Volume]) -> tuple[dict[str, Fingerprint], float]:
    """Fingerprints of all scans and edits, and the seconds of one."""
    prints = {key(name, ORIGINAL): print_of(volume) for name, volume in scans.items()}
    seconds = []
    for edit, change in (MODERATE | HARD | SUBVOLUMES).items():
        for name, volume in scans.items():
            changed = change(volume)
            began = time.process_time()
            prints[key(name, edit)] = print_of(changed)
            seconds.append(time.process_time() - began)
    return prints, float(np.median(seconds))


def found_edits(names: list[str], found: set[frozenset[str]]) -> dict[str, Any]:
    rows = {}
    for edit in MODERATE | HARD:
        missed = [n for n in names if frozenset((key(n, ORIGINAL), key(n, edit))) not in found]
        rows[edit] = {"found": len(names) - len(missed), "of": len(names), "missed": missed}
    moderate = [rows[edit] for edit in MODERATE]
    return {
        "edits": rows,
        "recall_moderate": sum(r["found"] for r in moderate) / sum(r["of"] for r in moderate),
        "recall_all": sum(r["found"] for r in rows.values()) / sum(r["of"] for r in rows.values()),
    }


def strangers(pairs: set[frozenset[str]]) -> list[list[str]]:
    """Pairs of packings of different scans; what is simulated is another scan to all."""
    return [
        sorted(pair) for pair in pairs if len({scan.split("\n")[0] for scan in sorted(pair)}) > 1
    ]


def paired(found: list[Link]) -> set[frozenset[str]]:
    """All pairs of a search, which tells of many exact copies only those with the first."""
    copies: dict[str, set[str]] = {}
    for link in found:
        if link.kind == "exact":
            copies.setdefault(link.one, {link.one}).add(link.other)
    pairs = {frozenset((link.one, link.other)) for link in found}
    for group in copies.values():
        pairs |= {frozenset(pair) for pair in itertools.combinations(sorted(group), 2)}
    return pairs


def recall(prints: dict[str, Fingerprint]) -> dict[str, Any]:
    """The search as it is, over all packings at once."""
    names = list(dict.fromkeys(scan.split("\n")[0] for scan in prints))
    pairs = paired(links(prints))
    return found_edits(names, pairs) | {"false_pairs": strangers(pairs)}


class Scores(NamedTuple):
    """Alignments of pairs.

    Attributes:
        evidence: Of each pair for one body.
        is_known: Found without an alignment: same voxels, or same slices.
        is_seen: Shares enough words to be aligned at all.
        of_scan: (pairs, scans) whether a pair has to do with a scan.
    """

    evidence: np.ndarray
    is_known: np.ndarray
    is_seen: np.ndarray
    of_scan: np.ndarray

    def found(self, limit: float) -> np.ndarray:
        """Which pairs are called one from some evidence on."""
        return self.is_known | (self.is_seen & (self.evidence >= limit))

    def only(self, which: np.ndarray) -> "Scores":
        """Some of the pairs."""
        return Scores(*(each[which] for each in self))


def scored(prints: dict[str, Fingerprint], pairs: list[tuple[str, str]]) -> Scores:
    keys = list(prints)
    place = {scan: at for at, scan in enumerate(keys)}
    seen = {tuple(pair) for pair in candidates([p.landmarks for p in prints.values()]).tolist()}
    names = list(dict.fromkeys(scan.split("\n")[0] for scan in keys))

    def aligned(block: range) -> list[float]:
        some = [pairs[at] for at in block]
        return [
            align(prints[one].landmarks, prints[other].landmarks).evidence for one, other in some
        ]

    done = [
        each for _, part in in_threads(aligned, len(pairs), block=64, threads=None) for each in part
    ]
    known = [
        prints[one].content_digest == prints[other].content_digest
        or np.isin(prints[one].marks, prints[other].marks[prints[other].marks > 0]).sum() >= 4
        for one, other in pairs
    ]
    ordered = [tuple(sorted((place[one], place[other]))) for one, other in pairs]
    owners = [{scan.split("\n")[0] for scan in pair} for pair in pairs]
    return Scores(
        np.array(done),
        np.array(known),
        np.array([pair in seen for pair in ordered]),
        np.array([[name in owner for name in names] for owner in owners]),
    )


def chosen(same: Scores, other: Scores) -> float:
    """The limit halfway between the strongest strangers and the weakest edit above them."""
    strongest = float(other.evidence[other.is_seen & ~other.is_known].max(initial=0.0))
    above = same.evidence[same.is_seen & ~same.is_known & (same.evidence > strongest)]
    return (strongest + float(above.min())) / 2


def leave_one_out(prints: dict[str, Fingerprint]) -> dict[str, Any]:
    names = list(dict.fromkeys(scan.split("\n")[0] for scan in prints))
    same_pairs = [(key(n, ORIGINAL), key(n, edit)) for edit in MODERATE for n in names]
    other_pairs = [
        (one, other)
        for one, other in itertools.combinations(prints, 2)
        if one.split("\n")[0] != other.split("\n")[0]
    ]
    same, other = scored(prints, same_pairs), scored(prints, other_pairs)
    aligned = other._replace(is_seen=np.ones_like(other.is_seen))
    return {
        "pairs_of_strangers": len(other_pairs),
        "as_the_search_looks": folds_of(names, same, other),
        "every_pair_aligned": folds_of(names, same, aligned),
    }


def folds_of(names: list[str], same: Scores, other: Scores) -> dict[str, Any]:
    folds = {}
    for fold, name in enumerate(names):
        own, against = same.of_scan[:, fold], other.of_scan[:, fold]
        limit = chosen(same.only(~own), other.only(~against))
        folds[name] = {
            "limit": round(limit, 1),
            "found": int(same.only(own).found(limit).sum()),
            "of": int(own.sum()),
            "false_pairs": int(other.only(against).found(limit).sum()),
            "pairs_of_strangers": int(against.sum()),
        }
    sums = {k: sum(f[k] for f in folds.values()) for k in ("found", "of", "false_pairs")}
    return {
        "folds": folds,
        "recall": sums["found"] / sums["of"],
        # A pair of two scans is tried in the folds of both.
        "false_pairs": sums["false_pairs"],
        "with_the_limit_as_it_is": {
            "recall": float(same.found(least_evidence(len(names))).mean()),
            "false_pairs": int(other.found(least_evidence(len(names))).sum()),
        },
    }


def simulated(real: dict[str, Fingerprint], count: int) -> dict[str, Fingerprint]:
    """Fingerprints, named after the real one that each is made of and how it is stretched."""
    rng = np.random.default_rng(0)
    names = list(real)
    made = {}
    for at in range(count):
        name = names[int(rng.integers(len(real)))]
        seen = real[name].landmarks
        n = len(seen.contrast_N)
        stay = rng.random(n) < 0.7
        new = int(n - stay.sum())
        stretch = rng.uniform(0.8, 1.2, 3)
        place = seen.place_N3[stay] * stretch + rng.normal(0, 6, (n - new, 3))
        place = np.concatenate([place, rng.random((new, 3)) * seen.place_N3.max(0)])
        level = np.concatenate([seen.level_N[stay], rng.random(new)])
        contrast = np.concatenate([seen.contrast_N[stay], rng.choice([-0.08, 0.08], new)])
        marks = rng.integers(1, 2**32, 72, np.uint32)
        parts = (place.clip(0), contrast, (level + rng.normal(0, 0.03, n)).clip(0, 1))
        landmarks = Landmarks(*(np.ascontiguousarray(p, np.float32) for p in parts))
        told = " ".join(f"{factor:.2f}" for factor in stretch)
        made[f"{at:06} of {name} x {told}"] = Fingerprint(f"{at:064}", marks, landmarks)
    return made


def at_scale(prints: dict[str, Fingerprint], count: int) -> dict[str, Any]:
    """All packings hidden among many strangers."""
    names = list(dict.fromkeys(scan.split("\n")[0] for scan in prints))
    made = simulated({name: prints[key(name, ORIGINAL)] for name in names}, count) | prints
    # The search looks from each scan at those after it: none may profit from its place.
    places = np.random.default_rng(1).permutation(len(made))
    keys = list(made)
    made = {keys[at]: made[keys[at]] for at in places}
    began, began_cpu = time.perf_counter(), time.process_time()
    found = links(made)
    wall_s, processor_s = time.perf_counter() - began, time.process_time() - began_cpu
    pairs = paired(found)
    got = found_edits(names, pairs)
    false = strangers(pairs)
    stretched = {
        one
        for one, other in false
        if " of " in one and one.split(" of ")[1].startswith(other.split("\n")[0] + " x ")
    }
    return {
        "fingerprints": len(made),
        "seconds": wall_s,
        "processor_seconds": processor_s,
        "recall_moderate": got["recall_moderate"],
        "recall_all": got["recall_all"],
        "missed": {
            e: r["missed"] for e, r in got["edits"].items() if e in MODERATE and r["missed"]
        },
        "taken_for_what_they_were_made_of": sorted(stretched),
        "false_pairs": [pair for pair in false if pair[0] not in stretched],
    }


def show(result: dict[str, Any]) -> None:
    for edit, row in result["edits"].items():
        print(f"{edit:44} {row['found']:3} of {row['of']:3}  {' '.join(row['missed'])}")
    scans, out = len(result["scans"]), result["leave_one_out"]
    print(f"recall, moderate edits     {result['recall_moderate']:.3f}")
    print(f"recall, all edits          {result['recall_all']:.3f}")
    print(f"false pairs                {len(result['false_pairs'])} among {scans} patients")
    print(f"leave one scan out, {out['pairs_of_strangers']} pairs of strangers:")
    for way in ("as_the_search_looks", "every_pair_aligned"):
        got = out[way]
        for name, fold in got["folds"].items():
            print(
                f"  {name:40} {fold['found']:3} of {fold['of']:3}, "
                f"{fold['false_pairs']} false of {fold['pairs_of_strangers']}, from {fold['limit']}"
            )
        print(f"  {way}: recall {got['recall']:.3f}, {got['false_pairs']} false pairs")
        print("  with the limit as it is: " + json.dumps(got["with_the_limit_as_it_is"]))
    print(f"a fingerprint              {1000 * result['fingerprint_seconds']:.0f} ms")
    if "scale" in result:
        print("at scale                   " + json.dumps(result["scale"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=int, default=160_000)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument(
        "--quick", action="store_true", help="the three smallest scans, 1,000 simulated"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scans = dict(real_scans(options.more, options.cache))
    if options.quick:
        options.scans = min(options.scans, 1_000)
        smallest = sorted(scans, key=lambda name: scans[name].data_XYZ.size)[:3]
        scans = {name: scans[name] for name in smallest}
    links({name: print_of(volume) for name, volume in list(scans.items())[:3]})
    prints, seconds = packings(scans)
    result = {
        "machine": platform.processor(),
        "scans": list(scans),
        "fingerprint_seconds": seconds,
        **recall(prints),
        "leave_one_out": leave_one_out(prints),
    }
    if options.scans:
        result["scale"] = at_scale(prints, options.scans)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
