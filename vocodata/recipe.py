"""What a scan's entry in the store depends on, as a digest.

That is its row of the manifest, the preset's numbers, the layout's version, the codec, the step
of HU, and size and time of its files. Weight is left out, being a word in the catalogue only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from vocodata.hu_steps import checked_step
from vocodata.presets import load_presets, preset
from vocodata.store.metadata import SCHEMA_VERSION
from vocodata.store.shard import codec_named

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vocodata.discover import Scan


def scan_recipe(scan: Scan, codec: str, *, step_hu: int = 1) -> str:
    """Digest of all that a scan's entry in the store depends on."""
    common = _rules(scan, codec, step_hu)
    if scan.packed is not None:
        return _digest({**common, "packed": scan.packed.state()})
    labels = None if scan.labels is None else file_state(scan.labels)
    files = [(scan.image / name, name) for name in scan.files]
    image = [_one_state(path, name) for path, name in files if path.is_file()]
    if not files:
        image = file_state(scan.image)
    return _digest({**common, "image": image, "labels": labels})


def store_recipe(scans: Sequence[Scan], codec: str, *, step_hu: int = 1) -> str:
    """Digest of how a store is made: the same for the same scans wherever their files lie."""
    ordered = sorted(scans, key=lambda scan: scan.id)
    return _digest([_rules(scan, codec, step_hu) for scan in ordered])


def toolkit_version() -> str:
    """Of the toolkit as it is installed; "" where it is only lying there."""
    try:
        return version("voco-toolkit")
    except PackageNotFoundError:
        return ""


@cache
def rules_digest() -> str:
    """Digest of what this machine's copy of the toolkit does to scans: its version and presets."""
    rows = [asdict(row) for row in load_presets().values()]
    return _digest([toolkit_version(), SCHEMA_VERSION, rows])


def _rules(scan: Scan, codec: str, step_hu: int) -> dict[str, Any]:
    names = {str(value): name for value, name in (scan.label_names or {}).items()}
    # Stores were built before there were steps, and go on.
    loss = {} if checked_step(step_hu) == 1 else {"step_hu": step_hu}
    return {
        "schema": SCHEMA_VERSION,
        "codec": codec_named(codec),
        "id": scan.id,
        "label_names": names,
        "has_labels": scan.labels is not None,
        "licence": scan.licence,
        "preset": asdict(preset(scan.preset)),
        "quality": dict(scan.quality),
        "is_listed": scan.is_listed,
        # Not where it is empty: the digests of all other scans would be new.
        **({"scattered": scan.scattered} if scan.scattered else {}),
        **loss,
    }


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_state(path: Path) -> list[Any]:
    """Names, sizes and times of a file or of all files below a folder; [] if it is not there.

    A detached header (.mhd) stands for the files of the same stem beside it as well.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return [_one_state(file, str(file.relative_to(path))) for file in files]
    if not path.exists():
        return []
    files = [path]
    if path.suffix.lower() in {".mhd", ".nhdr"}:
        files += sorted(
            file for file in path.parent.iterdir() if file.stem == path.stem and file != path
        )
    return [_one_state(file, file.name) for file in files]


def _one_state(path: Path, name: str) -> list[Any]:
    state = path.stat()
    return [name, state.st_size, state.st_mtime_ns]
