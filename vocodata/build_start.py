"""Before a build's first scan: its salt, its folder, its ledger, and what changed since the last.

Whatever lies at the place of the store is left as it is, unless it is empty, or a store of ours
that the user wants to go on with or to throw away.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vocodata.discover import is_hashed_name
from vocodata.errors import LedgerError, ManifestError, StoreError, StoreExistsError
from vocodata.forecast import expect
from vocodata.hu_steps import checked_step
from vocodata.identifiers import Salt, take_salt
from vocodata.ledger import STORED, Ledger
from vocodata.readers import is_file_name
from vocodata.store.atomic import discard_tree, make_folder, sweep
from vocodata.store.metadata import SCHEMA_VERSION
from vocodata.store.root import claim, read_attributes, step_of, stored_folders
from vocodata.store.shard import codec_named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from vocodata.discover import Scan
    from vocodata.manifest import Manifest
    from vocodata.plan import BuildPlan


class VoxelForm(NamedTuple):
    """How voxels are kept.

    Attributes:
        codec: Key of `shard.CODECS`.
        step_hu: One of `hu_steps.STEPS_HU`.
    """

    codec: str
    step_hu: int


def salt_of(ledger: Path, file: str | Path | None, *, resume: bool) -> Salt:
    """The build's salt; one that goes on needs the salt that it began with."""
    known = None
    if resume and ledger.exists():
        with Ledger(ledger, read_only=True) as book:
            known = book.note("salt")
    return take_salt(ledger, file=None if file is None else Path(file), known=known)


def prepare(root: Path, ledger: Path, *, resume: bool, overwrite: bool) -> bool:
    """Make the folder ready to be written; whether it starts empty.

    A store whose own document is lost or damaged is known by its ledger.
    """
    sweep(root)
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        make_folder(root)
        claim(root)
        return True
    try:
        attributes = read_attributes(root)
    except StoreError as error:
        if (resume or overwrite) and _belongs_to(ledger, root):
            claim(root)
            return prepare(root, ledger, resume=resume, overwrite=overwrite)
        msg = (
            f"{root} is there and is not a store of this toolkit; expected a new or empty folder. "
            "Give another --out."
        )
        raise StoreExistsError(msg) from error
    if overwrite:
        discard_tree(root)
        make_folder(root)
        claim(root)
        return True
    if not resume:
        msg = (
            f"{root} holds a store of {attributes['counts']['stored']} scans; expected a new or "
            "empty folder. Go on with it by --resume, or throw it away by --overwrite."
        )
        raise StoreExistsError(msg)
    if attributes["schema_version"] != SCHEMA_VERSION:
        msg = (
            f"{root} has schema {attributes['schema_version']}, this version writes "
            f"{SCHEMA_VERSION}. Build again with --overwrite."
        )
        raise StoreError(msg)
    return False


def _belongs_to(ledger: Path, root: Path) -> bool:
    if not ledger.exists():
        return False
    with Ledger(ledger, read_only=True) as book:
        return book.note("store") == str(root.resolve())


def own_ledger(book: Ledger, root: Path, *, is_default: bool) -> None:
    """Refuse a ledger that was made for another store; beside its store it may move along."""
    here, owner = str(root.resolve()), book.note("store")
    if owner not in {None, here} and not is_default:
        msg = f"Ledger {book.path} belongs to the store {owner}, not to {here}. Give another one."
        raise LedgerError(msg)
    if owner != here:
        book.note("store", here)


def lost_ledger(book: Ledger, root: Path) -> str:
    """What a resumed build says of a store whose ledger knows none of its scans; "" otherwise."""
    stored = read_attributes(root)["counts"]["stored"]
    if not stored or book.counts()[STORED]:
        return ""
    return (
        f"{root} holds {stored} scans of which the ledger {book.path} knows none: all are "
        "processed again. If their ledger lies elsewhere, end this build and give it by --ledger."
    )


def voxel_form(book: Ledger, root: Path, *, codec: str | None, step_hu: int | None) -> VoxelForm:
    """What is asked for, else as it was, else zstd and every HU; noted for the builds to come.

    A ledger that is lost does not turn a lossy store into a lossless one: the root knows, too.

    Raises:
        StoreError: No such codec or step.
    """
    kept = codec or book.note("codec") or "zstd"
    before = int(book.note("step_hu") or step_of(read_attributes(root)))
    form = VoxelForm(codec_named(kept).name, checked_step(before if step_hu is None else step_hu))
    book.note("codec", form.codec)
    book.note("step_hu", str(form.step_hu))
    return form


def refuse_dropped_sources(root: Path, scans: Iterable[Scan]) -> None:
    """A source that is gone is rather a wrong manifest than a wish to delete its scans.

    Raises:
        StoreError: The store holds scans of a source that the manifest does not name.
    """
    there = {scan.split("/")[0] for scan in stored_folders(root)}
    gone = sorted(there - {scan.source for scan in scans})
    if gone:
        msg = (
            f"{root} holds scans of {', '.join(gone)}, which the manifest does not name. "
            "Name them again, or remove their folders under scans/, then resume."
        )
        raise StoreError(msg)


def refuse_other_names(book: Ledger, root: Path, manifest: Manifest, scans: Sequence[Scan]) -> None:
    """DICOM series that were named by their paths get no other names unasked.

    Earlier versions did so where the manifest said nothing; now it has to say it.

    Raises:
        ManifestError: There are such series of a source without the key `names`.
    """
    faults = [
        f"Source '{source.name}': {len(plain)} DICOM series were named by their paths, the first "
        f"{plain[0]}; expected keyed hashes, as the manifest says nothing of names. Say names: "
        "path there to go on with the names they have. If those name patients, say names: hashed: "
        "the series are built again, and lists of their old ids no longer fit."
        for source in manifest.sources
        if source.names is None and (plain := _named_by_paths(book, root, source.name, scans))
    ]
    if faults:
        raise ManifestError("\n".join(faults))


def _named_by_paths(book: Ledger, root: Path, source: str, scans: Sequence[Scan]) -> list[str]:
    """Ids of a source's DICOM series that are no keyed hashes, by the ledger, else by the store."""
    known = book.places(source)
    if not known and any(scan.hides_names for scan in scans if scan.source == source):
        # A ledger was lost: what is in the store and is not found by its name was a series.
        there = {scan for scan in stored_folders(root) if scan.startswith(f"{source}/")}
        gone = sorted(there - {scan.id for scan in scans})
        known = [(scan, scan.rpartition("/")[2], "") for scan in gone]
    return [
        scan
        for scan, name, image in known
        if not is_file_name(Path(image)) and not is_hashed_name(name)
    ]


def note_expected(book: Ledger, plan: BuildPlan, form: VoxelForm) -> bool:
    """Note what headers foretell, once for the scans and the recipe of a build; whether it was."""
    known = json.loads(book.note("plan") or "{}")
    if not plan.jobs or known.get("recipe") == plan.recipe_digest:
        return False
    expected = asdict(expect(plan.found, form.codec, step_hu=form.step_hu))
    book.note("plan", json.dumps({"recipe": plan.recipe_digest, **expected}))
    book.note("worker_bytes", "0")
    return True


def comings_and_goings(plan: BuildPlan, known: Collection[str], found_before: int) -> list[str]:
    """What a resumed build says of scans that are there now and were not, or the other way round.

    Scans are told apart by where they lie: files that moved are others.

    Args:
        plan: Of the build.
        known: Ids in the ledger: all of the last build, unless that was interrupted.
        found_before: Scans of the last build; 0 if there was none.
    """
    sentences = []
    if plan.dropped:
        sentences.append(
            f"scans that are not found any more leave the store: {len(plan.dropped)}, the first "
            f"{min(plan.dropped)}. If their files should be there, bring them back and resume."
        )
    came = len(plan.found) + len(plan.dropped) - found_before
    if found_before and came > 0:
        new = {scan.id for scan in plan.found}.difference(known)
        first = f", the first {min(new)}" if len(new) == came else ""
        sentences.append(
            f"scans that were not found when it was built last: {came}{first}. They are built too."
        )
    return sentences
