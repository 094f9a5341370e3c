"""From a manifest to a list of scans: one row a scan, the only place with paths.

A scan's name comes from its path below the source's root, so it stays when others come or go, and
holds nothing that the user did not put into a file name; less where a name is a DICOM UID, and
nothing of it where the scan is a DICOM series or the manifest says `names: hashed`. Hidden files
(`._scan.nii.gz`) are passed over. The layouts themselves are in vocodata/layouts.py.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vocodata.errors import ManifestError
from vocodata.exclusions import read_exclusions
from vocodata.identifiers import hide_uids, keyed_hash
from vocodata.layouts import find_entries
from vocodata.passed_over import over_words
from vocodata.tree import open_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vocodata.archives import Packed
    from vocodata.layouts import Entry
    from vocodata.manifest import Manifest, Source
    from vocodata.quality import Policy
    from vocodata.tree import Tree

_log = logging.getLogger(__name__)
_MAX_NAME = 120
_HASHED_NAME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{8})*")


@dataclass(frozen=True)
class Scan:
    """One scan to be read.

    Attributes:
        id: `source/name`, unique in a manifest, safe as a path.
        source: Name of the manifest's source.
        name: The scan's own name, from its path below the source's root.
        image: NIfTI, MHA, MHD or NRRD file, or a folder with one DICOM series; in an archive,
            where it would lie if the archive were a folder.
        labels: Label file on the image's grid, or None.
        label_names: Label value -> structure, or None if nobody said.
        preset: Row of presets.yaml.
        weight: How often training draws from this source, relative to others.
        licence: As the manifest has it, or None.
        files: The slices below a DICOM folder that holds more than this series, or folders of it,
            else ().
        packed: Where the scan lies in an archive; None where image and labels are files.
        quality: Check -> what is done about it, where the manifest says.
        scattered: Why it cannot be put together, where slices of its series lie in several folders
            that neither add up nor are copies; else "".
        is_listed: A list of scans to leave out names it.
        hides_names: Its files may be named after a patient, so no word of theirs is told.
    """

    id: str
    source: str
    name: str
    image: Path
    labels: Path | None
    label_names: Mapping[int, str] | None
    preset: str
    weight: float = 1.0
    licence: str | None = None
    files: tuple[str, ...] = ()
    packed: Packed | None = None
    quality: Mapping[str, Policy] = field(default_factory=dict)
    scattered: str = ""
    is_listed: bool = False
    hides_names: bool = False


def find_scans(manifest: Manifest, *, salt: bytes = b"") -> list[Scan]:
    """Every scan of every source, sorted by id; no scan is opened.

    A source whose count is not the expected one is logged as a warning, see `count_faults`; so are
    ids of the list of scans to leave out that no scan has.

    Args:
        manifest: The sources.
        salt: For names that hide identifiers (vocodata/identifiers.py); none is for looking only.

    Raises:
        ManifestError: Sources whose root or list is not there, that hold no scan, or whose layout
            cannot be told; all of them at once.
        RemoteError: A server refuses, or does not answer.
    """
    scans: list[Scan] = []
    faults: list[str] = []
    for source in manifest.sources:
        try:
            scans.extend(_scans_of(source, salt))
        except ManifestError as error:
            faults.append(error.detail)
    if faults:
        raise ManifestError("\n".join(faults))
    for fault in count_faults(manifest, scans):
        _log.warning(fault)
    listed = frozenset() if manifest.exclude is None else read_exclusions(manifest.exclude)
    unknown = listed - {scan.id for scan in scans}
    if unknown:
        what = f"{len(unknown)} of its {len(listed)} ids, the first {min(unknown)}"
        _log.warning(f"{manifest.exclude}: {what}, are no scan of the manifest.")
    marked = [replace(scan, is_listed=scan.id in listed) for scan in scans]
    return sorted(marked, key=lambda scan: scan.id)


def count_faults(manifest: Manifest, scans: Iterable[Scan]) -> list[str]:
    """A sentence for each source that holds another number of scans than it says."""
    found = Counter(scan.source for scan in scans)
    return [
        f"Source '{source.name}' holds {found[source.name]} scans; expected {source.expected}. "
        f"{_remedy(source, found[source.name], source.expected)}"
        for source in manifest.sources
        if source.expected is not None and found[source.name] != source.expected
    ]


def _remedy(source: Source, found: int, expected: int) -> str:
    """What to do about another number of scans than a source says."""
    if found < expected:
        return f"Fetch those that are missing, or set its expected to {found} if none is."
    kinds = " Layout 'auto' takes scan files and DICOM folders." if source.layout == "auto" else ""
    return f"Set its expected to {found} if all belong there, else correct root or layout.{kinds}"


def _scans_of(source: Source, salt: bytes) -> list[Scan]:
    tree = open_tree(source.name, source.root)
    entries = find_entries(source, tree)
    _tell_passed_over(source, tree, entries)
    tree.look_up(path for entry in entries for path in (entry.image, entry.labels) if path)
    if not entries:
        msg = (
            f"Source '{source.name}': no scan in {source.root} with layout '{source.layout}'; "
            "expected at least one. Correct root or layout, or take the source out."
        )
        raise ManifestError(msg)
    images = Counter((entry.image, entry.files) for entry in entries)
    repeated = [path for (path, _), count in images.items() if count > 1]
    if repeated:
        msg = (
            f"Source '{source.name}': {len(repeated)} scans are listed more than once, the first "
            f"is {repeated[0]}. List each once; weight says how often it is drawn."
        )
        raise ManifestError(msg)
    names = scan_names(_told_apart(source, entries, salt))
    return [_scan(source, tree, entry, name) for entry, name in zip(entries, names, strict=True)]


def _tell_passed_over(source: Source, tree: Tree, entries: list[Entry]) -> None:
    """Warn of files that may hold scans, where the layout claims to know which do."""
    told = "" if source.layout == "datalist" else over_words(source, tree, entries)
    if told:
        _log.warning(told)


def _told_apart(source: Source, entries: list[Entry], salt: bytes) -> list[str]:
    """What each entry is called; entries that are called alike get a piece of their path's hash.

    `a.nii.gz` and `a.nrrd` are, and files of a list whose last two parts are the same.
    """
    shown = [_shown(source, entry, salt) for entry in entries]
    count = Counter(shown)
    return [
        name if count[name] == 1 else f"{name}-{keyed_hash(salt, _place(source, entry), digits=8)}"
        for name, entry in zip(shown, entries, strict=True)
    ]


def _place(source: Source, entry: Entry) -> str:
    """Where the entry lies, seen from the root, so that a root may move."""
    first = entry.image.joinpath(*entry.files[:1])
    return os.path.relpath(str(first), str(source.root))


def _shown(source: Source, entry: Entry, salt: bytes) -> str:
    """The entry's name without what may name a patient."""
    name = hide_uids(entry.name, salt)
    if source.hides_names(of_dicom=entry.is_dicom):
        name = keyed_hash(salt, f"{source.name}/{entry.name}", digits=16)
    if entry.series:
        name += f"-{keyed_hash(salt, f'{entry.name}/{entry.series}', digits=8)}"
    return name


def is_hashed_name(name: str) -> bool:
    """Whether a scan's name is a keyed hash, as far as can be seen.

    >>> is_hashed_name("0123456789abcdef-89abcdef"), is_hashed_name("p1-ct")
    (True, False)
    """
    return _HASHED_NAME.fullmatch(name) is not None


def _scan(source: Source, tree: Tree, entry: Entry, name: str) -> Scan:
    return Scan(
        id=f"{source.name}/{name}",
        source=source.name,
        name=name,
        image=entry.image,
        labels=entry.labels,
        label_names=source.label_names if source.label_names is not None else entry.label_names,
        preset=source.preset,
        weight=source.weight,
        licence=source.licence,
        files=entry.files,
        scattered=entry.scattered,
        quality=source.quality,
        hides_names=source.hides_names(of_dicom=entry.is_dicom),
        packed=tree.packed(entry.image, entry.files, entry.labels),
    )


def scan_names(paths: list[str]) -> list[str]:
    """Names that are safe as one folder name on any file system, one for each distinct path.

    `/` becomes `-`, other signs than letters, digits, `.`, `_`, `-` become `_`. Where that makes
    two alike (also where case does not count), each of them gets a piece of its path's hash.

    >>> scan_names(["s0001/ct", "a b", "a_b"])
    ['s0001-ct', 'a_b-c8687a08', 'a_b-648fa9b3']
    """
    plain = [_safe(path) for path in paths]
    count = Counter(name.casefold() for name in plain)
    return [
        name if count[name.casefold()] == 1 and len(name) <= _MAX_NAME else _hashed(name, path)
        for name, path in zip(plain, paths, strict=True)
    ]


def _safe(path: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.strip("/").replace("/", "-"))
    return name.strip(".-") or "scan"


def _hashed(name: str, path: str) -> str:
    # A file's name need not be text: Linux takes any bytes.
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{name[:_MAX_NAME]}-{digest[:8]}"
