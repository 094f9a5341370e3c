"""What the quality checks say of real scans that lie as they should, and of the same ones turned.

    python benchmarks/orientation.py [--more FOLDER ...] [--quick] [--json FILE]

Real scans are the sample scans (fetched from two public packages) and whatever `voco data init`
finds in the folders given. Each is judged as its file has it and on two grids, 1.5 mm and
1.25 x 1.25 x 5 mm, cropped to its foreground: as it is, mirrored left to right, upside down, and
back to front. A flag on a scan as it is counts as false, its own flag on a turned one as found.

Then parts of each scan: 15 % cut off at each side, front and back, and four stretches of 40 % of
its length. A part may be too little to tell; it should not tell the wrong thing.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from disk import GRIDS, real_scans

from vocodata.archives import unpacked
from vocodata.census import take_census
from vocodata.discover import Scan
from vocodata.errors import VocoDataError
from vocodata.geometry import Spacing, Volume, orient_ras
from vocodata.ingest import process_scan
from vocodata.orientation import orientation
from vocodata.presets import preset
from vocodata.quality import SAMPLE_MM, QualityLimits, failed_checks, largest_part, measure
from vocodata.readers import read_volume
from vocodata.sample_scans import default_cache

Place = slice | tuple[slice, ...]
KINDS = ("front", "head", "left")
POSES = {
    "as it is": (np.s_[:], ""),
    "mirrored": (np.s_[::-1], "maybe_mirrored"),
    "upside down": (np.s_[:, :, ::-1], "maybe_upside_down"),
    "back to front": (np.s_[:, ::-1], "maybe_back_to_front"),
}
FLAGS = tuple(flag for _, flag in POSES.values() if flag)


def judged(volume: Volume, where: Place) -> dict[str, Any]:
    """Evidence and flags of orientation for a part or a turn of a volume."""
    turned = Volume(np.ascontiguousarray(volume.data_XYZ[where]), volume.affine)
    measures = measure(turned, take_census(turned))
    failed = failed_checks(measures, QualityLimits())
    evidence = {kind: measures[f"{kind}_evidence"] for kind in KINDS}
    return {"evidence": evidence, "flags": [flag for flag in failed if flag in FLAGS]}


def parts(volume: Volume) -> Iterator[tuple[str, Place]]:
    """Names and slices of what is left of a volume."""
    for axis, sides in enumerate((("left", "right"), ("back", "front"))):
        size = volume.shape_XYZ[axis]
        cut = round(0.15 * size)
        for side, kept in zip(sides, (slice(cut, size), slice(0, size - cut)), strict=True):
            yield f"15 % off the {side}", (*[slice(None)] * axis, kept)
    size = volume.shape_XYZ.z
    for start in (0.0, 0.2, 0.4, 0.6):
        kept = slice(round(start * size), round((start + 0.4) * size))
        yield f"{start:.0%} to {start + 0.4:.0%} of the length", np.s_[:, :, kept]


def on_grids(scan: Scan, *, quick: bool) -> Iterator[tuple[str, Volume]]:
    """A scan as its file has it, and on each grid."""
    with unpacked(scan) as files:
        yield "own", orient_ras(read_volume(files.image, files=files.files))
    for grid, name in GRIDS.items():
        if not quick:
            yield grid, process_scan(dataclasses.replace(scan, preset=name), preset(name)).hu


def measured(scan: Scan, *, quick: bool) -> Iterator[dict[str, Any]]:
    for grid, volume in on_grids(scan, quick=quick):
        if min(volume.shape_XYZ) < 2:
            continue
        poses = {pose: judged(volume, where) for pose, (where, _) in POSES.items()}
        row = {"scan": scan.id, "grid": grid, "poses": poses, "ms": milliseconds(volume)}
        row["parts"] = {name: judged(volume, where) for name, where in parts(volume)}
        yield row


def milliseconds(volume: Volume) -> float:
    """Processor time of the evidence alone, once the sample is taken and its body found."""
    step = [max(1, round(SAMPLE_MM / side)) for side in volume.spacing_mm]
    sample = np.ascontiguousarray(volume.data_XYZ[:: step[0], :: step[1], :: step[2]])
    spacing = Spacing(*(side * by for side, by in zip(volume.spacing_mm, step, strict=True)))
    body, times = largest_part(sample > -300), []
    for _ in range(10):
        begin = time.process_time()
        orientation(sample, body, spacing_mm=spacing)
        times.append(time.process_time() - begin)
    return min(times) * 1000


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    own = [row for row in rows if row["grid"] == "own"]
    told = [part for row in rows for part in row["parts"].values()]
    return {
        "scans": len(own),
        "rows": len(rows),
        "false_flags": sum(len(row["poses"]["as it is"]["flags"]) for row in rows),
        "found": {
            pose: {
                "own": sum(flag in row["poses"][pose]["flags"] for row in own),
                "all": sum(flag in row["poses"][pose]["flags"] for row in rows),
            }
            for pose, (_, flag) in POSES.items()
            if flag
        },
        "parts": len(told),
        "false_flags_of_parts": sum(len(part["flags"]) for part in told),
        "most_ms": max(row["ms"] for row in rows),
    }


def table(rows: list[dict[str, Any]], found: dict[str, Any]) -> str:
    heads = " ".join(f"{kind:>6}" for kind in KINDS)
    turned = [pose for pose, (_, flag) in POSES.items() if flag]
    lines = [f"{'scan':50} {'grid':>14} {heads}  {'  '.join(turned)}  as it is"]
    for row in rows:
        poses = row["poses"]
        values = " ".join(f"{poses['as it is']['evidence'][kind]:6.2f}" for kind in KINDS)
        cells = [
            f"{'found' if POSES[p][1] in poses[p]['flags'] else '-':>{len(p)}}" for p in turned
        ]
        false = ", ".join(poses["as it is"]["flags"]) or "-"
        lines.append(
            f"{row['scan'][-50:]:50} {row['grid']:>14} {values}  {'  '.join(cells)}  {false}"
        )
        lines += [
            f"{'':50} {name}: {', '.join(part['flags'])}"
            for name, part in row["parts"].items()
            if part["flags"]
        ]
    scans, grids = found["scans"], found["rows"]
    lines.append(
        f"{scans} scans as they are: {found['false_flags']} false flags on {grids} grids, "
        f"{found['false_flags_of_parts']} on {found['parts']} parts; "
        f"at most {found['most_ms']:.1f} ms a scan"
    )
    lines += [
        f"{pose}: {n['own']} of {scans} found, {n['all']} of {grids} on all grids"
        for pose, n in found["found"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="folders with more scans")
    parser.add_argument("--quick", action="store_true", help="the files' own grids only")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--json", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for scan in real_scans(arguments.cache, arguments.more, Path(name)):
            try:
                rows += measured(scan, quick=arguments.quick)
            except VocoDataError as error:
                print(f"left out: {scan.id}, {error}")
    found = summary(rows)
    print(table(rows, found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"rows": rows, "summary": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
