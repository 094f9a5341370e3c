"""The root of a store: what it says of itself, and how a build's results are published there.

Publishing writes the tables first and the root's zarr.json last. A kill in between leaves each
file whole; the next build writes all of them again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocodata.errors import StoreError
from vocodata.remote.objects import children, listing
from vocodata.remote.path import RemotePath, as_path, redacted
from vocodata.store.atomic import make_folder, remove_tree, write_atomic
from vocodata.store.catalog import (
    CATALOG_NAME,
    EXCLUDED_NAME,
    CatalogRow,
    ExcludedRow,
    read_catalog,
    read_excluded,
    write_catalog,
    write_excluded,
)
from vocodata.store.metadata import (
    DOCUMENT,
    SCHEMA_VERSION,
    STORE_KIND,
    document_bytes,
    group_document,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable


_WORDS = {"schema_version", "recipe_digest", "digest", "complete", "counts"}
_COUNTS = {"found", "stored", "excluded"}


def publish(
    root: Path,
    rows: Iterable[CatalogRow],
    excluded: Collection[ExcludedRow],
    *,
    found: int,
    recipe_digest: str,
    step_hu: int = 1,
) -> str:
    """Write both tables, then the groups that make a Zarr hierarchy of it, the root last.

    Args:
        root: The store.
        rows: Of all scans in the store, ordered by id.
        excluded: All scans that are not.
        found: Scans of the manifest; more than rows and excluded while the build is under way.
        recipe_digest: Of how the store is made.
        step_hu: HU of all scans are multiples of this; 1 if none is lost.

    Returns:
        Digest of the catalogue.
    """
    excluded_digest = write_excluded(root, excluded)
    totals = write_catalog(root, rows)
    sources = sorted({scan.split("/")[0] for scan in stored_folders(root)})
    for folder in group_folders(root, sources):
        make_folder(folder)
        write_atomic(folder / DOCUMENT, document_bytes(group_document()))
    attributes = {
        "kind": STORE_KIND,
        "schema_version": SCHEMA_VERSION,
        "recipe_digest": recipe_digest,
        "step_hu": step_hu,
        "digest": totals.digest,
        "complete": totals.rows + len(excluded) == found,
        "counts": {"found": found, "stored": totals.rows, "excluded": len(excluded)},
        "files": {CATALOG_NAME: totals.file_digest, EXCLUDED_NAME: excluded_digest},
    }
    write_atomic(root / DOCUMENT, root_bytes(attributes))
    return totals.digest


def group_folders(root: Path, sources: Iterable[str]) -> list[Path]:
    """Folders between the root and the scans, each a Zarr group."""
    return [root / "scans", *(root / "scans" / name for name in sources)]


def root_bytes(attributes: dict[str, Any]) -> bytes:
    """The root's document: what the store says of itself, and a digest of that."""
    check = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()
    return document_bytes(group_document({"voco": {**attributes, "check": check}}))


def claim(root: Path) -> None:
    """Say that an empty folder is a store, before anything else is written: it may be resumed."""
    attributes = {
        "kind": STORE_KIND,
        "schema_version": SCHEMA_VERSION,
        "recipe_digest": "",
        "digest": "",
        "complete": False,
        "counts": {"found": 0, "stored": 0, "excluded": 0},
        "files": {},
    }
    write_atomic(root / DOCUMENT, root_bytes(attributes))


def prune(root: Path, wanted: Collection[str]) -> None:
    """Remove the folders of all scans but those wanted, and of sources without any."""
    scans = root / "scans"
    for scan_id in stored_folders(root):
        if scan_id not in wanted:
            remove_tree(scans / scan_id)
    sources = {scan_id.split("/")[0] for scan_id in wanted}
    for name in _folders(scans):
        if name not in sources:
            remove_tree(scans / name)


def prove_accounting(root: Path, found: Collection[str]) -> None:
    """Check the accounting identity in the files as they lie on disk.

    Raises:
        StoreError: Scans found are not those in the catalogue and those excluded, once each.
    """
    stored = read_catalog(root, ["id"])["id"].to_pylist()
    rows = read_excluded(root).to_pylist()
    accounted = Counter(stored + [f"{row['source']}/{row['scan']}" for row in rows])
    expected = Counter(found)
    if accounted != expected:
        lost, extra = sorted(expected - accounted), sorted(accounted - expected)
        msg = (
            f"{len(found)} scans were found, {len(stored)} are in the catalogue and {len(rows)} "
            f"excluded: unaccounted {lost[:5]}, counted beyond {extra[:5]}. This is a fault of "
            "the toolkit; please report it with the ledger."
        )
        raise StoreError(msg, code="accounting")


def stored_folders(root: Path) -> list[str]:
    """Ids of all scan folders that lie in the store, in the catalogue or not."""
    scans = root / "scans"
    return [f"{source}/{name}" for source in _folders(scans) for name in _folders(scans / source)]


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, in order; none if it is not there."""
    if isinstance(path, RemotePath):
        return [name for name, is_folder in children(path).items() if is_folder]
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def store_path(url: str | Path) -> Path:
    """The folder that a path or URL means.

    Raises:
        StoreError: A URL of another kind than `s3://`, or no folder with a name.
    """
    try:
        path = as_path(url)
    except ValueError as error:
        msg = f"{redacted(str(url))} cannot be a store: {error}."
        raise StoreError(msg) from error
    if isinstance(path, RemotePath) and path.scheme != "s3":
        msg = f"{path} cannot be a store: a web server is read only. Give a folder or an s3:// URL."
        raise StoreError(msg)
    if isinstance(path, RemotePath):
        return path
    # Ledger, salt and lock lie beside the store under its name: `.` has none of its own, and a
    # link is another name of a store that two builds might take for two.
    is_other_name = path.name in {"", ".."} or path.is_symlink()
    named = path.resolve() if is_other_name and str(url) else path
    if not named.name:
        msg = f"{str(url)!r} cannot be a store: it has no name. Give a folder."
        raise StoreError(msg)
    return named


def file_sizes(root: Path) -> Callable[[Path], int | None]:
    """A function that says how large a file of the store is, None if it is not there.

    A store in a bucket is listed once, for all answers.
    """
    if not isinstance(root, RemotePath):
        return _local_size
    found = listing(root / "scans")
    sizes: dict[Path, int] = {root / "scans" / name: found[name].size for name in found}
    return sizes.get


def _local_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def step_of(attributes: dict[str, Any]) -> int:
    """What a store's HU are multiples of, by its root: 1 where that does not say."""
    return int(attributes.get("step_hu", 1))


def _what_is_wrong(root: Path) -> str:
    """Why there is no document in a root."""
    if isinstance(root, RemotePath) or root.is_dir():
        return f"it has no {DOCUMENT}"
    if root.exists():
        return "it is a file"
    return "it is not there" if root.is_absolute() else f"it is not there, seen from {Path.cwd()}"


def read_attributes(root: Path) -> dict[str, Any]:
    """The `voco` attributes of a store's root.

    Raises:
        StoreError: The folder is no store of ours.
    """
    try:
        document = json.loads((root / DOCUMENT).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{root} is no store: {_what_is_wrong(root)}. Give the folder that a build wrote."
        raise StoreError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{root / DOCUMENT} cannot be read ({error}). Build again with --resume."
        raise StoreError(msg) from error
    own = document.get("attributes", {}).get("voco") if isinstance(document, dict) else None
    if not isinstance(own, dict) or own.get("kind") != STORE_KIND:
        msg = f"{root} is a Zarr group, but not a store of this toolkit."
        raise StoreError(msg)
    counts = own.get("counts")
    lacking = sorted(_WORDS - own.keys())
    if lacking or not isinstance(counts, dict) or counts.keys() != _COUNTS:
        msg = (
            f"{root / DOCUMENT} is damaged: it says nothing of {', '.join(lacking) or 'counts'}. "
            "Build again with --resume, or restore the file."
        )
        raise StoreError(msg)
    return own
