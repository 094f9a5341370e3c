"""Which files are one archive.

Known are `x.zip.001, x.zip.002, ...` (also of tar), `x.z01, ..., x.zip` (a zip that knows of its
parts), and raw pieces whose names only differ at the end, joined in lexical order: no ending tells
what they are, so the first of them must begin as an archive does, and the second must not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.archives.zips import parts_before
from vocodata.errors import ManifestError, RemoteError, RemoteRefusedError
from vocodata.readers import is_file_name
from vocodata.remote.objects import AT_ONCE, children, many
from vocodata.remote.path import RemotePath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BESIDE = {".txt", ".md", ".json", ".csv", ".tsv", ".pdf", ".xlsx", ".html", ".sha256", ".md5"}
_MAGIC = (b"PK\x03\x04", b"PK\x07\x08", b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
_NUMBERED = re.compile(r"(.+)\.(\d{2,})$")
_SPANNED = re.compile(r"\.z\d{2,}$")
_MOST_PARTS = 1000
"""That a web server is asked for: some answer to any name, and a damaged zip names any number."""
_PIECE = re.compile(r"(\d+|[.-]?[a-z]{2,3})$")


def find_parts(root: Path) -> list[tuple[Path, tuple[Path, ...]]]:
    """Archives that a root stands for: the path each seems to lie at, and its files in order.

    Args:
        root: An archive, its first part or piece, its name without `.001`, or a folder that holds
            nothing but archives, or their parts or pieces (and texts). A web server does not list,
            so there it is an archive, or one of numbered parts, which are asked for by name.

    Returns:
        Nothing if the root is a folder of other things.

    Raises:
        ManifestError: A part is missing between others.
    """
    if isinstance(root, RemotePath) and root.scheme != "s3":
        return _of_web_server(root)
    if root.is_file():
        numbered = _NUMBERED.fullmatch(root.name)
        if numbered:
            return [(root, _numbered(root.with_name(numbered[1])))]
        return [(root, _pieces_of(root) or _spanned(root))]
    if root.is_dir():
        return _of_folder(root)
    parts = _numbered(root)
    return [(root, parts)] if parts else []


def stands_for_archives(root: Path) -> bool:
    """Whether `find_parts` finds any; a web server is not asked for that."""
    if isinstance(root, RemotePath) and root.scheme != "s3":
        return is_archive_name(root.name)
    return bool(find_parts(root))


def is_archive_name(name: str) -> bool:
    """Whether a file's name says that it is an archive, or a part of one.

    >>> [is_archive_name(name) for name in ("a.tar.gz", "a.zip.002", "a.z01", "NLST_v188")]
    [True, True, True, False]
    """
    numbered = _NUMBERED.fullmatch(name)
    whole = (numbered[1] if numbered else name).lower()
    return whole.endswith(SUFFIXES) or _SPANNED.search(whole) is not None


def is_part_name(name: str) -> bool:
    """Whether a file's name says that others of its archive follow it.

    >>> [is_part_name(name) for name in ("a.tar.gz", "a.zip.002", "a.z01", "NLST_v188")]
    [False, True, True, False]
    """
    return is_archive_name(name) and not name.lower().endswith(SUFFIXES)


def first_parts(files: Iterable[Path]) -> list[Path]:
    """Of files in one folder, that of each archive which may be its root; parts may be missing."""
    files = sorted(files)
    whole = {file.name.lower() for file in files}
    first: dict[tuple[str, bool], Path] = {}
    rest = []
    for file in files:
        numbered = _NUMBERED.fullmatch(file.name)
        if not is_archive_name(file.name):
            rest.append(file)
        elif not _SPANNED.search(file.name.lower()):
            first.setdefault((numbered[1] if numbered else file.name, bool(numbered)), file)
        elif f"{file.stem.lower()}.zip" not in whole:
            first.setdefault((file.stem, True), file)
    return sorted([*first.values(), *(pieces[0] for pieces in find_pieces(rest))])


def find_pieces(
    files: Iterable[Path], *, may_be: Callable[[Path], bool] = lambda _: True
) -> list[tuple[Path, ...]]:
    """Of files in one folder, the pieces of each archive that no ending tells of, in order.

    Args:
        files: On a disk or in a bucket.
        may_be: Asked of the first of some that are called alike, before it is opened.
    """
    alike: dict[str, list[Path]] = {}
    for file in sorted(files):
        stem = _stem_of_piece(file)
        if stem is not None:
            alike.setdefault(stem, []).append(file)
    groups = [group for group in alike.values() if len(group) > 1 and may_be(group[0])]
    return [tuple(group) for group in groups if _are_pieces(group)]


def _of_web_server(root: RemotePath) -> list[tuple[Path, tuple[Path, ...]]]:
    numbered = _NUMBERED.fullmatch(root.name)
    whole = root.with_name(numbered[1]) if numbered else root
    if not whole.name.lower().endswith(SUFFIXES):
        return []
    if numbered is None and _is_there(root):
        return [(root, (*_spanned_before(root), root))]
    digits = numbered[2] if numbered else "001"
    return [(root, _asked_for(whole, len(digits)) or (root,))]


def _spanned_before(root: RemotePath) -> list[Path]:
    """The parts that a zip on a web server says it is the last of."""
    if root.suffix.lower() != ".zip":
        return []
    with root.open("rb") as file:
        count = parts_before(file)
    if count > _MOST_PARTS:
        msg = (
            f"{root} says that {count} parts come before it; expected {_MOST_PARTS} at most. "
            "Fetch it again."
        )
        raise ManifestError(msg)
    return [root.with_name(f"{root.stem}.z{number:02}") for number in range(1, count + 1)]


def _asked_for(whole: RemotePath, digits: int) -> tuple[Path, ...]:
    """`whole.001` and on of a web server: asked for by name, some at a time, until one is not."""
    found: dict[int, Path] = {}
    for begin in range(0, _MOST_PARTS, AT_ONCE):
        numbers = range(begin, begin + AT_ONCE)
        paths = [whole.with_name(f"{whole.name}.{number:0{digits}}") for number in numbers]
        are_there = many(_is_there, paths)
        beside = zip(numbers, paths, are_there, strict=True)
        found |= {number: path for number, path, is_there in beside if is_there}
        if not are_there[-1]:
            return _without_gap(whole, found)
    msg = (
        f"{whole}: the server answers to more than {_MOST_PARTS} names of parts; expected an end. "
        "Fetch the archive, and name the file."
    )
    raise ManifestError(msg)


def _is_there(path: RemotePath) -> bool:
    try:
        return path.is_file()
    except RemoteRefusedError:
        # So are names that are not there where nobody may list, or all but the one that is signed.
        return False


def _of_folder(root: Path) -> list[tuple[Path, tuple[Path, ...]]]:
    shown = {name: kind for name, kind in names_in(root).items() if not name.startswith(".")}
    if any(is_folder for is_folder in shown.values()):
        return []
    files = sorted(root / name for name in shown if Path(name).suffix.lower() not in _BESIDE)
    found: dict[Path, tuple[Path, ...]] = {}
    rest = []
    for file in files:
        numbered = _NUMBERED.fullmatch(file.name)
        if file.name.lower().endswith(SUFFIXES):
            found[file] = _spanned(file)
        elif numbered and numbered[1].lower().endswith(SUFFIXES):
            whole = file.with_name(numbered[1])
            found.setdefault(whole, _numbered(whole))
        elif not _SPANNED.search(file.name.lower()):
            rest.append(file)
    pieces = find_pieces(rest)
    if sum(map(len, pieces)) < len(rest):
        return []
    if len(pieces) == 1 and not found:
        return [(root, pieces[0])]
    return sorted([*found.items(), *((group[0], group) for group in pieces)])


def _pieces_of(root: Path) -> tuple[Path, ...]:
    """The pieces that a file is the first of, if it is one."""
    stem = _stem_of_piece(root)
    if stem is None:
        return ()
    beside = [
        root.parent / name for name, is_other in names_in(root.parent).items() if not is_other
    ]
    groups = find_pieces(file for file in beside if _stem_of_piece(file) == stem)
    return groups[0] if groups and groups[0][0] == root else ()


def _stem_of_piece(file: Path) -> str | None:
    """What a file's name has in common with other pieces', or None if it cannot be one."""
    end = _PIECE.search(file.name)
    is_other = is_archive_name(file.name) or is_file_name(file) or file.name.startswith(".")
    if end is None or is_other or file.suffix.lower() in _BESIDE:
        return None
    return file.name[: end.start()]


def _are_pieces(files: Sequence[Path]) -> bool:
    """Whether files that are called alike are one archive cut up."""
    if not (files[0].name[-1].isdigit() or files[0].name.endswith("aa")):
        return False
    try:
        begins = [_begins_as_archive(file) for file in files[:2]]
    except (FileNotFoundError, NotADirectoryError):
        # A link that leads nowhere, or a member of an archive.
        return False
    except (OSError, RemoteError):
        # Whoever lists it says why it cannot be read.
        return True
    return begins == [True, False]


def _begins_as_archive(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(512)
    return start.startswith(_MAGIC) or start[257:262] == b"ustar"


def names_in(root: Path) -> dict[str, bool]:
    """Names in a folder, and whether each is something else than a file."""
    if isinstance(root, RemotePath):
        return children(root)
    with os.scandir(root) as entries:
        return {entry.name: not _is_file(entry) for entry in entries}


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        # A link that leads to itself.
        return False


def _numbered(whole: Path) -> tuple[Path, ...]:
    """`whole.001` and on; nothing if there is none."""
    return _in_a_row(whole, rf"{re.escape(whole.name)}\.(\d{{2,}})", ())


def _spanned(file: Path) -> tuple[Path, ...]:
    """`x.z01` and on before `x.zip`, or the file alone."""
    if file.suffix.lower() != ".zip":
        return (file,)
    return _in_a_row(file, rf"(?i:{re.escape(file.stem)}\.z(\d{{2,}}))", (file,))


def _in_a_row(whole: Path, pattern: str, last: tuple[Path, ...]) -> tuple[Path, ...]:
    if not whole.parent.is_dir():
        return last
    matches = ((re.fullmatch(pattern, path.name), path) for path in whole.parent.iterdir())
    number = {int(match[1]): path for match, path in matches if match}
    return (*_without_gap(whole, number), *last)


def _without_gap(whole: Path, number: Mapping[int, Path]) -> tuple[Path, ...]:
    """Parts by their numbers, from 0 or 1 on, in order."""
    missing = sorted(set(range(1, max(number, default=0) + 1)) - set(number))
    if missing:
        msg = (
            f"{whole}: part {missing[0]} is missing of parts {min(1, *number)} to {max(number)}; "
            "expected all of them beside each other. Fetch it."
        )
        raise ManifestError(msg)
    return tuple(number[n] for n in sorted(number))
