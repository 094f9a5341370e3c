"""How data sets lie on disk: one function a layout, from a source to its entries.

nnunet    imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz, dataset.json
msd       dataset.json with `training` (and `validation`): {"image": ..., "label": ...}
datalist  the same lists in a JSON file of its own, images may be DICOM folders
bids      sub-*/**/*_ct.nii.gz
dicom     every series, in a folder or over several; names never come from the header
glob      images by a pattern, labels by a template
auto      the first of nnunet, msd, bids that fits; else all scan files and all of dicom

The root may be a folder or an archive; a layout sees both through a `Tree`.
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocodata.dataset_json import label_names_of, read_json, refuse_not_ct
from vocodata.errors import ManifestError
from vocodata.readers import is_file_name, suffix_of
from vocodata.series import find_series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vocodata.manifest import Source
    from vocodata.tree import Tree

_LABEL_WORDS = re.compile(
    r"(^|[^a-z])(labels?|labelstr|labelsts|seg|segs|segmentations?|masks?)"
    r"([^a-z]|$)"
)

_SECTIONS = ("training", "validation")
_WORD = re.compile(r"\{(id|folder)\}")


@dataclass(frozen=True)
class Entry:
    """A scan as a layout sees it.

    Attributes:
        name: Path below the root, without ending and fixed folders; not yet made safe.
        image: File or DICOM folder.
        labels: Label file, or None.
        label_names: Label value -> structure if the data set says so, else None.
        files: The slices, below the folder, where that holds more than this series, or slices lie
            in several folders of it.
        series: Then also its SeriesInstanceUID; it names a patient's visit, so only a keyed hash
            of it may become part of a scan's name.
        scattered: Why slices that lie in several folders make no scan, or "".
    """

    name: str
    image: Path
    labels: Path | None = None
    label_names: Mapping[int, str] | None = None
    files: tuple[str, ...] = ()
    series: str = ""
    scattered: str = ""

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series, in whichever layout: files of other formats say so."""
        return not is_file_name(self.image)


def find_entries(source: Source, tree: Tree) -> list[Entry]:
    """Entries of one source, in order of their paths.

    Raises:
        ManifestError: A list is not there, or not what the layout needs.
    """
    return sorted(
        _FINDERS[source.layout](source, tree), key=lambda entry: (entry.name, entry.series)
    )


def _auto(source: Source, tree: Tree) -> list[Entry]:
    if tree.glob("imagesTr/*_0000.*"):
        return _nnunet(source, tree)
    if "training" in read_json(source, source.root / "dataset.json", tree, needed=False):
        return _msd(source, tree)
    if bids := _bids(source, tree):
        return bids
    files = [path for path in tree.files() if is_file_name(path)]
    suspects = [path for path in files if looks_like_labels(path.relative_to(source.root))]
    if suspects:
        msg = (
            f"Source '{source.name}': layout 'auto' cannot tell scans from labels ("
            f"{suspects[0].relative_to(source.root)} looks like labels). "
            "Say layout: glob, with images and labels."
        )
        raise ManifestError(msg)
    return [Entry(_stem(source, path), path) for path in files] + _dicom(source, tree)


def _nnunet(source: Source, tree: Tree) -> list[Entry]:
    about = read_json(source, source.root / "dataset.json", tree, needed=False)
    refuse_not_ct(source, about.get("channel_names") or about.get("modality"))
    names = label_names_of(about)
    entries = []
    for image in sorted(tree.glob("imagesTr/*_0000.*")):
        suffix = suffix_of(image)
        if suffix is None or _is_hidden(image.name):
            continue
        case = image.name[: -len(suffix)].removesuffix("_0000")
        labels = source.root / "labelsTr" / f"{case}{image.name[-len(suffix) :]}"
        has_labels = tree.exists(labels)
        entries.append(
            Entry(case, image, labels if has_labels else None, names if has_labels else None)
        )
    return entries


def _msd(source: Source, tree: Tree) -> list[Entry]:
    path = source.root / "dataset.json"
    return _listed(source, path, read_json(source, path, tree, needed=True))


def _datalist(source: Source, _: Tree) -> list[Entry]:
    assert source.scans is not None
    return _listed(source, source.scans, read_json(source, source.scans, None, needed=True))


def _listed(source: Source, path: Path, about: dict[str, Any]) -> list[Entry]:
    """Entries of a JSON file with the lists `training` and `validation`."""
    refuse_not_ct(source, about.get("modality"))
    names = label_names_of(about)
    entries = []
    if not about.keys() & set(_SECTIONS):
        msg = (
            f"Source '{source.name}': {path.name} has the keys {', '.join(about) or 'none'}; "
            f"expected scans under {' or '.join(_SECTIONS)}."
        )
        raise ManifestError(msg)
    for section in _SECTIONS:
        items = about.get(section, [])
        if not isinstance(items, list):
            msg = f"Source '{source.name}': {path.name}: {section} is no list; expected one."
            raise ManifestError(msg)
        for index, item in enumerate(items):
            entries.append(_listed_entry(source, item, names, f"{path.name}: {section}[{index}]"))
    return entries


def _listed_entry(
    source: Source, item: object, names: Mapping[int, str] | None, where: str
) -> Entry:
    image = item if isinstance(item, str) else item.get("image") if isinstance(item, dict) else None
    label = item.get("label") if isinstance(item, dict) else None
    # An empty text would be the root itself.
    if not _is_file_text(image) or not (label is None or _is_file_text(label)):
        msg = (
            f"Source '{source.name}': {where} is {item!r}; expected an image and at most one "
            'label, such as {"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}.'
        )
        raise ManifestError(msg)
    assert isinstance(image, str)
    path = source.root / image
    labels = None if label is None else source.root / label
    name = _stem(source, path).removeprefix("imagesTr/")
    return Entry(name, path, labels, None if labels is None else names)


def _is_file_text(value: object) -> bool:
    return isinstance(value, str) and value.strip(" ./") != ""


def _bids(source: Source, tree: Tree) -> list[Entry]:
    paths = [p for p in tree.files() if re.search(r"_ct\.nii(\.gz)?$", p.name.lower())]
    return [
        Entry(path.name[: -len(suffix_of(path) or "")], path)
        for path in paths
        if path.relative_to(source.root).parts[0].startswith("sub-")
    ]


def _dicom(source: Source, tree: Tree) -> list[Entry]:
    """One entry a series, or a copy of it."""
    return [
        Entry(
            _stem(source, found.folder),
            found.folder,
            files=found.files,
            series=found.uid,
            scattered=found.fault,
        )
        for found in find_series(source, tree)
    ]


def _glob(source: Source, tree: Tree) -> list[Entry]:
    pattern = (source.images or "**/*.nii.gz").removeprefix("./")
    paths = [
        path for path in _matches(source, tree, pattern) if not _is_hidden_below(path, source.root)
    ]
    labels = {path: _label_of(source, tree, path, pattern) for path in paths}
    taken = set(labels.values())
    if source.labels is not None and not any(path is not None for path in taken):
        msg = (
            f"Source '{source.name}': no scan has labels at {source.labels}; expected some. "
            "Correct the template ({id}, {folder}), or take the key labels out."
        )
        raise ManifestError(msg)
    scans = [path for path in paths if path not in taken]
    if source.labels is not None and len(scans) > 1 and not _WORD.search(source.labels):
        msg = (
            f"Source '{source.name}': labels is {source.labels!r}, one file for {len(scans)} "
            "scans; expected a template that tells them apart, such as labels/{id}.nii.gz or "
            "{folder}/labels.nii.gz."
        )
        raise ManifestError(msg)
    fixed = re.match(r"(?:[^*?\[/]+/)*", pattern)
    base = source.root / (fixed.group() if fixed else "")
    return [
        Entry(_stem_below(path, base), path, labels[path])
        for path in scans
        if (is_file_name(path) or tree.is_dir(path))
    ]


def _matches(source: Source, tree: Tree, pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if not parts or Path(pattern).is_absolute() or any("**" in part != "**" for part in parts):
        msg = (
            f"Source '{source.name}': images is {pattern!r}; expected a pattern below the root, "
            "such as images/**/*.nii.gz, with ** for whole folders only."
        )
        raise ManifestError(msg)
    return tree.glob(pattern)


def _label_of(source: Source, tree: Tree, image: Path, pattern: str) -> Path | None:
    """The label file that the source's template gives for an image, if it is there."""
    if source.labels is None:
        return None
    before, star, after = pattern.rpartition("/")[2].rpartition("*")
    expression = fnmatch.translate(before).removesuffix(r"\Z").removesuffix(r"\z")
    found = re.match(f"{expression}(.*){re.escape(after)}$", image.name) if star else None
    stem = image.name[: -len(suffix_of(image) or "") or None]
    words = {
        "id": found.group(1) if found else stem,
        "folder": image.parent.relative_to(source.root).as_posix(),
    }
    path = source.root / _WORD.sub(lambda word: words[word.group(1)], source.labels)
    return path if tree.exists(path) and not tree.is_dir(path) else None


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_hidden_below(path: Path, root: Path) -> bool:
    return any(_is_hidden(part) for part in path.relative_to(root).parts)


def looks_like_labels(path: Path) -> bool:
    """Whether a path's words are those of label files."""
    return _LABEL_WORDS.search(path.as_posix().lower()) is not None


def _stem(source: Source, path: Path) -> str:
    return _stem_below(path, source.root)


def _stem_below(path: Path, base: Path) -> str:
    """Path below a folder without its ending; what lies elsewhere keeps its last two parts."""
    path, base = Path(os.path.normpath(str(path))), Path(os.path.normpath(str(base)))
    inside = path.is_relative_to(base)
    text = (path.relative_to(base) if inside else Path(*path.parts[-2:])).as_posix()
    text = base.name if text == "." else text
    suffix = suffix_of(path)
    return text[: -len(suffix)] if suffix else text


_FINDERS: dict[str, Callable[[Source, Tree], list[Entry]]] = {
    "auto": _auto,
    "glob": _glob,
    "nnunet": _nnunet,
    "msd": _msd,
    "datalist": _datalist,
    "bids": _bids,
    "dicom": _dicom,
}
