"""A first manifest for a folder: what lies there, how it is laid out, and how many scans it has.

Only what can be seen is written down. What cannot, the body region above all, stands there as a
choice with its alternatives beside it; a source whose scans and labels cannot be told apart is
written so that the build refuses it and says what to fill in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vocodata.archives.parts import find_parts, first_parts
from vocodata.dataset_json import read_json
from vocodata.errors import ManifestError
from vocodata.layouts import find_entries, looks_like_labels
from vocodata.manifest import Source
from vocodata.pairings import pairings
from vocodata.passed_over import over_words
from vocodata.presets import load_presets
from vocodata.readers import is_file_name, suffix_of
from vocodata.remote.path import RemotePath
from vocodata.scan_lists import find_lists, list_doubts, other_lists
from vocodata.source_catalog import as_yaml, quoted
from vocodata.tree import Tree, open_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vocodata.scan_lists import ScanList

_FIRST_PRESET = "abdomen"
_DICOM_NAME = "dicom"
"""A folder or archive of DICOM series may itself be called as a patient is."""


@dataclass(frozen=True)
class Guess:
    """One source as it looks.

    Attributes:
        name: From its folder, but of DICOM series a general one.
        root: Folder or archive.
        layout: What fits.
        images: Pattern, for layout glob.
        labels: Template, for layout glob with labels.
        count: Scans found, 0 if scans and labels cannot be told apart.
        labelled: Of those, how many have labels.
        doubt: What to decide or to know, or "".
        scans: List of them, for layout datalist.
        has_dicom: Whether there are DICOM series among its scans.
    """

    name: str
    root: Path
    layout: str
    images: str | None
    labels: str | None
    count: int
    labelled: int
    doubt: str = ""
    scans: Path | None = None
    has_dicom: bool = False


def guess_sources(root: Path) -> list[Guess]:
    """Sources below a folder: the folder itself, or its subfolders and archives.

    Raises:
        ManifestError: The folder is not there, or holds no scan.
    """
    root = root.absolute()
    guesses = _structured(root)
    if not guesses:
        inside: list[Path] = []
        if root.is_dir() and not find_parts(root):
            shown = (path for path in sorted(root.iterdir()) if not path.name.startswith("."))
            places = [path for path in shown if not is_file_name(path)]
            folders = [path for path in places if path.is_dir()]
            inside = sorted([*folders, *first_parts(set(places) - set(folders))])
        parts = [guess for path in inside for guess in _tolerant(_structured, path)]
        if any(guess.count for guess in parts):
            known = {guess.root for guess in parts}
            rest = [path for path in inside if path.is_dir() and path not in known]
            parts += [guess for path in rest for guess in _tolerant(_loose, path)]
            guesses = sorted([*parts, *_beside(root)], key=lambda guess: guess.name.casefold())
        else:
            guesses = [*_loose(root), *parts]
    if not guesses:
        msg = (
            f"{root} holds no scan; expected NIfTI, MHA, NRRD or DICOM files, or archives of them."
        )
        raise ManifestError(msg)
    return _named_apart(guesses)


def _tolerant(look: Callable[[Path], list[Guess]], path: Path) -> list[Guess]:
    """What a look gives; what cannot be looked into is a doubt, so that others are written down."""
    try:
        return look(path)
    except ManifestError as error:
        return [Guess(_name(path), path, "auto", None, None, 0, 0, error.detail)]


def _named_apart(guesses: list[Guess]) -> list[Guess]:
    """The same, those with a name that is taken numbered."""
    taken: set[str] = set()
    apart = []
    for guess in guesses:
        names = (guess.name, *(f"{guess.name}-{number}" for number in range(2, len(guesses) + 2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        apart.append(replace(guess, name=name))
    return apart


def first_manifest(guesses: list[Guess], *, folder: Path) -> str:
    """A manifest, as YAML with comments.

    Args:
        guesses: Its sources.
        folder: Where it will lie; roots below it are written relative to it.
    """
    presets = ", ".join(load_presets())
    lines = [
        "# Written by `voco data init`. Look at each preset: no file says which region it shows.",
        f"# Presets: {presets}.",
        "version: 1",
        "sources:",
    ]
    for guess in guesses:
        lines += _lines(guess, folder.absolute())
    return "\n".join(lines) + "\n"


def _lines(guess: Guess, folder: Path) -> list[str]:
    said = "  # a folder of the store; call it after nobody" if guess.has_dicom else ""
    lines = [f"  - name: {as_yaml(guess.name)}{said}", f"    root: {_place(guess.root, folder)}"]
    if isinstance(guess.root, RemotePath) and (guess.root.access.user or guess.root.access.query):
        lines.append(
            "    # Put the URL's user and query back into root: they are not written down here."
        )
    if guess.doubt:
        lines.append(f"    # {guess.doubt if guess.doubt.isprintable() else ascii(guess.doubt)}")
    lines.append(f"    layout: {guess.layout}")
    lines += [f"    scans: {_place(guess.scans, folder)}"] if guess.scans else []
    lines += [f"    images: {quoted(guess.images)}"] if guess.images else []
    lines += [f"    labels: {quoted(guess.labels)}"] if guess.labels else []
    if guess.has_dicom:
        lines += [
            "    # DICOM folders are often called after patients: scans get keyed hashes as names,",
            "    # and the ledger beside the store knows which is which. `names: path` keeps what",
            "    # folders are called; only where that tells nobody's name, number or date.",
            "    names: hashed",
        ]
    if guess.count:
        lines.append(f"    expected: {guess.count}  # found now, {guess.labelled} with labels")
    if guess.labelled and guess.layout == "glob":
        lines.append("    # label_names: {1: liver}     what labels mean; fine-tuning needs it")
    return [
        *lines,
        f"    preset: {_FIRST_PRESET}  # choose the region's",
        "    # weight: 1     how often training draws from it",
        "    # licence: CC-BY-4.0     kept with every scan and every model",
    ]


def _place(path: Path, folder: Path) -> str:
    """A path in a manifest: relative where it lies below the manifest's folder."""
    inside = path.is_relative_to(folder)
    return quoted(path.relative_to(folder).as_posix() if inside else str(path))


def _structured(root: Path) -> list[Guess]:
    """The source whose own files say how it is laid out, or an archive; none for another folder."""
    if not (root.is_dir() or find_parts(root)):
        return []
    tree = open_tree(root.name, root)
    lists = [one for one in find_lists(_source(root), tree) if not one.fault]
    for layout, sign in (
        ("nnunet", "imagesTr/*_0000.*"),
        ("msd", "dataset.json"),
        ("bids", "sub-*"),
    ):
        if tree.glob(sign) and (guess := _tried(root, tree, layout)) is not None:
            return [_doubted(guess, other_lists(lists))]
    if lists:
        return [_listed(root, tree, lists)]
    return _loose(root) if find_parts(root) else []


def _listed(root: Path, tree: Tree, lists: list[ScanList]) -> Guess:
    """The source of the first of some lists."""
    chosen, source = lists[0], _source(root)
    labelled = sum(entry.labels is not None for entry in chosen.entries)
    count = len(chosen.entries)
    has_dicom = any(entry.is_dicom for entry in chosen.entries)
    name = _DICOM_NAME if has_dicom else _name(root)
    guess = Guess(name, root, "datalist", None, None, count, labelled, scans=chosen.path)
    doubts = [*list_doubts(source, tree, chosen), *other_lists(lists[1:])]
    return replace(_doubted(guess, doubts), has_dicom=has_dicom)


def _doubted(guess: Guess, sentences: Sequence[str]) -> Guess:
    return replace(guess, doubt=" ".join(filter(None, [guess.doubt, *sentences])))


def _source(root: Path, layout: str = "auto", **keys: str) -> Source:
    return Source(name=_name(root), root=root, layout=layout, preset=_FIRST_PRESET, **keys)  # type: ignore[arg-type]


def _tried(root: Path, tree: Tree, layout: str, **keys: str) -> Guess | None:
    """The source by one layout, if that finds any scan."""
    source = _source(root, layout, **keys)
    try:
        entries = find_entries(source, tree)
    except ManifestError:
        return None
    if not entries:
        return None
    labelled = sum(entry.labels is not None for entry in entries)
    images, labels = keys.get("images"), keys.get("labels")
    doubt, has_dicom = over_words(source, tree, entries), any(entry.is_dicom for entry in entries)
    name = _DICOM_NAME if has_dicom else _name(root)
    guess = Guess(name, root, layout, images, labels, len(entries), labelled, doubt)
    return replace(guess, has_dicom=has_dicom)


def _loose(root: Path) -> list[Guess]:
    """Scan files and DICOM folders that no list describes: one source, or one of each."""
    tree = open_tree(root.name, root)
    files = [path for path in tree.files() if is_file_name(path)]
    below = [path.relative_to(tree.root) for path in files]
    suspects = [path for path in below if looks_like_labels(path)]
    faults = [one.fault for one in find_lists(_source(root), tree) if one.fault]
    if not suspects:
        guess = _tried(root, tree, "auto" if files else "dicom") or _damaged(root, tree, files)
        return [_doubted(guess, faults)] if guess else []
    series = _tried(root, tree, "dicom")
    scans = _doubted(_with_labels(root, tree, below, suspects), faults)
    return [scans, *([series] if series else [])]


def _damaged(root: Path, tree: Tree, files: list[Path]) -> Guess | None:
    """A doubt about scan files beside a dataset.json that cannot be read."""
    try:
        read_json(_source(root), root / "dataset.json", tree, needed=False)
    except ManifestError as error:
        return Guess(_name(root), root, "auto", None, None, 0, 0, error.detail) if files else None
    return None


def _with_labels(root: Path, tree: Tree, files: list[Path], suspects: list[Path]) -> Guess:
    """A source of scan files and labels, if only as a doubt."""
    scans = sorted(set(files) - set(suspects))
    for images, labels in pairings(scans, suspects):
        guess = _tried(root, tree, "glob", images=images, labels=labels)
        # All or nothing: what a pattern leaves out would be lost.
        if guess and (guess.count, guess.labelled) == (len(scans), len(suspects)):
            return guess
    return _doubtful(root, suspects[0])


def _doubtful(root: Path, suspect: Path) -> Guess:
    doubt = (
        f"Scans and labels cannot be told apart ({suspect} looks like labels): say layout: "
        "glob, and give images and labels."
    )
    return Guess(_name(root), root, "auto", None, None, 0, 0, doubt)


def _beside(root: Path) -> list[Guess]:
    """Sources of the scan files that lie in a folder beside its subfolders: one each ending."""
    tree = open_tree(root.name, root)
    shown = [path for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    files = [path for path in shown if is_file_name(path)]
    names = [path.relative_to(root) for path in files]
    suspects = [name for name in names if looks_like_labels(name)]
    if suspects:
        return [_doubtful(root, suspects[0])]
    endings = sorted({ending for path in files if (ending := suffix_of(path)) is not None})
    guesses = [_tried(root, tree, "glob", images=f"*{ending}") for ending in endings]
    return [
        replace(guess, name=f"{guess.name}{ending.replace('.', '-')}")
        for guess, ending in zip(guesses, endings, strict=True)
        if guess is not None
    ]


def _name(root: Path) -> str:
    name = re.sub(r"(\.(zip|tar|tgz|gz|xz|bz2|\d+))+$", "", root.name, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name).strip(".-_").lower()[:64]
    return name or "source"
