"""Duplicates: recall and false pairs on real scans with edits, and time at 160,000 fingerprints.

    python benchmarks/dedup.py [--scans 160000] [--more FOLDER ...] [--json FILE]

Real scans are the sample scans (fetched from two public packages) and whatever lies in the folders
given: NIfTI, MHA or NRRD files and DICOM series, each taken for another patient. Every edit is made
of every scan; an edited scan counts as found if its pair with the original is. All scans and edits
go through one search, so false pairs are those between any packings of different scans. Moderate
crops keep 90 or 80 % along each axis (73 and 51 % of the volume); harder ones are told apart.

The many fingerprints are simulated from the real ones: stretched by up to 20 % along each axis,
moved by 6 mm at each landmark, three in ten landmarks replaced. One real pair is hidden in them.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vocodata.duplicates import links
from vocodata.errors import VocoDataError
from vocodata.fingerprint import Fingerprint, fingerprint, parse_fingerprint
from vocodata.foreground import crop
from vocodata.geometry import Box, Size, Spacing, Volume, orient_ras
from vocodata.landmarks import Landmarks
from vocodata.readers import is_file_name, read_volume
from vocodata.resampling import resample
from vocodata.sample_scans import fetch_samples

Edit = Callable[[Volume], Volume]


def mirrored(*axes: int) -> Edit:
    return lambda volume: Volume(np.flip(volume.data_XYZ, axes), volume.affine)


def swapped(*axes: int) -> Edit:
    def edit(volume: Volume) -> Volume:
        spacing = [volume.spacing_mm[axis] for axis in axes]
        return Volume(volume.data_XYZ.transpose(axes), np.diag([*spacing, 1.0]))

    return edit


def spaced(*spacing_mm: float, antialias: bool = False) -> Edit:
    return lambda volume: resample(volume, Spacing(*spacing_mm), antialias=antialias)


def clipped(low: int, high: int) -> Edit:
    return lambda volume: Volume(np.clip(volume.data_XYZ, low, high), volume.affine)


def lossy(step_hu: int, noise_hu: float) -> Edit:
    def edit(volume: Volume) -> Volume:
        noise = np.random.default_rng(0).normal(0, noise_hu, volume.data_XYZ.shape)
        steps = np.rint((volume.data_XYZ + noise) / step_hu) * step_hu
        return Volume(steps.astype(np.int16), volume.affine)

    return edit


def cut(keep: tuple[float, float, float], seed: int) -> Edit:
    def edit(volume: Volume) -> Volume:
        rng = np.random.default_rng(seed)
        size = [max(8, int(n * share)) for n, share in zip(volume.shape_XYZ, keep, strict=True)]
        start = [
            int(rng.integers(0, n - k + 1)) for n, k in zip(volume.shape_XYZ, size, strict=True)
        ]
        return crop(volume, Box(Size(*start), Size(*size)))

    return edit


def forced(volume: Volume) -> Volume:
    return Volume(volume.data_XYZ[::-1], np.eye(4))


def every(*edits: Edit) -> Edit:
    def edit(volume: Volume) -> Volume:
        for one in edits:
            volume = one(volume)
        return volume

    return edit


MODERATE: dict[str, Edit] = {
    "header forced to 1 mm, mirrored": forced,
    "spacing 2 2 2": spaced(2, 2, 2),
    "spacing 3 3 3": spaced(3, 3, 3),
    "spacing 1.25 1.25 5": spaced(1.25, 1.25, 5),
    "spacing 5 5 5": spaced(5, 5, 5),
    "spacing 5 5 5, averaged": spaced(5, 5, 5, antialias=True),
    "mirrored x z": mirrored(0, 2),
    "mirrored y": mirrored(1),
    "axes z x y": swapped(2, 0, 1),
    "axes y x z": swapped(1, 0, 2),
    "clipped -175..250": clipped(-175, 250),
    "clipped -1000..500": clipped(-1000, 500),
    "noise 5 HU, steps of 8": lossy(8, 5),
    "noise 5 HU, steps of 16": lossy(16, 5),
    "crop 90 %": cut((0.9, 0.9, 0.9), 1),
    "crop 80 %": cut((0.8, 0.8, 0.8), 2),
    "half of the slices": cut((1, 1, 0.5), 3),
    "crop 90 %, 2 mm, mirrored, clipped, lossy": every(
        cut((0.9, 0.9, 0.9), 4), spaced(2, 2, 2), mirrored(1), clipped(-175, 250), lossy(8, 5)
    ),
}
HARD: dict[str, Edit] = {
    "crop 70 %": cut((0.7, 0.7, 0.7), 5),
    "crop 80 %, 3 mm, axes z x y": every(
        cut((0.8, 0.8, 0.8), 6), spaced(3, 3, 3), swapped(2, 0, 1)
    ),
    "a quarter of the slices, clipped": every(cut((1, 1, 0.25), 7), clipped(-175, 250)),
}


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


def recall(scans: dict[str, Volume]) -> dict[str, Any]:
    prints = {f"{name}\noriginal": print_of(volume) for name, volume in scans.items()}
    seconds = []
    for edit, change in (MODERATE | HARD).items():
        for name, volume in scans.items():
            changed = change(volume)
            began = time.perf_counter()
            prints[f"{name}\n{edit}"] = print_of(changed)
            seconds.append(time.perf_counter() - began)
    found = links(prints)
    pairs = {frozenset((link.one, link.other)) for link in found}
    rows = {}
    for edit in MODERATE | HARD:
        hits = [frozenset((f"{n}\noriginal", f"{n}\n{edit}")) in pairs for n in scans]
        missed = [name for name, hit in zip(scans, hits, strict=True) if not hit]
        rows[edit] = {"found": sum(hits), "of": len(hits), "missed": missed}
    wrong = [link for link in found if link.one.split("\n")[0] != link.other.split("\n")[0]]
    right = sum(rows[edit]["found"] for edit in MODERATE)
    return {
        "edits": rows,
        "recall_moderate": right / sum(rows[edit]["of"] for edit in MODERATE),
        "recall_all": sum(r["found"] for r in rows.values()) / sum(r["of"] for r in rows.values()),
        "false_pairs": [list(link) for link in wrong],
        "pairs_of_strangers": len(scans) * (len(scans) - 1) // 2,
        "pairs_compared_of_strangers": (
            len(scans) * (len(scans) - 1) // 2 * (len(MODERATE | HARD) + 1) ** 2
        ),
        "fingerprint_seconds": float(np.median(seconds)),
    }


def simulated(real: list[Fingerprint], count: int) -> dict[str, Fingerprint]:
    rng = np.random.default_rng(0)
    made = {}
    for at in range(count):
        seen = real[int(rng.integers(len(real)))].landmarks
        n = len(seen.contrast_N)
        stay = rng.random(n) < 0.7
        new = int(n - stay.sum())
        place = seen.place_N3[stay] * rng.uniform(0.8, 1.2, 3) + rng.normal(0, 6, (n - new, 3))
        place = np.concatenate([place, rng.random((new, 3)) * seen.place_N3.max(0)])
        level = np.concatenate([seen.level_N[stay], rng.random(new)])
        contrast = np.concatenate([seen.contrast_N[stay], rng.choice([-0.08, 0.08], new)])
        marks = rng.integers(1, 2**32, 72, np.uint32)
        parts = (place.clip(0), contrast, (level + rng.normal(0, 0.03, n)).clip(0, 1))
        landmarks = Landmarks(*(np.ascontiguousarray(p, np.float32) for p in parts))
        made[f"many/{at:06}"] = Fingerprint(f"{at:064}", marks, landmarks)
    return made


def at_scale(scans: dict[str, Volume], count: int) -> dict[str, Any]:
    originals = {name: print_of(volume) for name, volume in scans.items()}
    hidden = next(iter(scans))
    made = simulated(list(originals.values()), count)
    made["hidden/original"] = originals[hidden]
    made["hidden/copy"] = print_of(every(cut((0.9, 0.9, 0.9), 4), spaced(2, 2, 2))(scans[hidden]))
    began = time.perf_counter()
    found = links(made)
    return {
        "fingerprints": len(made),
        "seconds": time.perf_counter() - began,
        "hidden_pair_found": any(
            {link.one, link.other} == {"hidden/original", "hidden/copy"} for link in found
        ),
        "other_pairs": len(found) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=int, default=160_000)
    parser.add_argument("--more", type=Path, nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "voco-samples")
    parser.add_argument("--quick", action="store_true", help="5,000 simulated scans")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.scans = min(options.scans, 5_000) if options.quick else options.scans
    scans = dict(real_scans(options.more, options.cache))
    links({name: print_of(volume) for name, volume in list(scans.items())[:3]})
    result = {"machine": platform.processor(), "scans": list(scans), **recall(scans)}
    for edit, row in result["edits"].items():
        print(f"{edit:44} {row['found']:3} of {row['of']:3}  {' '.join(row['missed'])}")
    print(f"recall, moderate edits  {result['recall_moderate']:.3f}")
    print(f"recall, all edits       {result['recall_all']:.3f}")
    print(f"false pairs             {len(result['false_pairs'])} among {len(scans)} patients")
    print(f"a fingerprint           {1000 * result['fingerprint_seconds']:.0f} ms")
    if options.scans:
        result["scale"] = at_scale(scans, options.scans)
        print("at scale                " + json.dumps(result["scale"]))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
