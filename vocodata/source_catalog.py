"""Known collections of sources (catalog/prect160k.yaml), typed, and manifests of them."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from vocodata.catalog_places import find_places
from vocodata.errors import ManifestError
from vocodata.presets import preset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vocodata.catalog_places import Place

CATALOGS = ("prect160k",)
SUBSETS = ("10k",)
Count = Annotated[int, Field(ge=0)]


class Counts(BaseModel):
    """How many scans a source has, by whom.

    Attributes:
        paper: Row of the paper's table 1; None if it has none.
        loader: What the released loader reads in a pass, repeats included.
        on_disk: What the row's pattern should find in a complete copy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    paper: Count | None
    loader: Count
    on_disk: Annotated[int, Field(ge=1)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    region: str
    preset: str
    folder: str
    images: str
    labels: str | None
    counts: Counts
    weight: Annotated[int, Field(ge=1)]
    used: bool
    subset_10k: bool
    licence: str
    licence_checked: bool
    gated: bool | None
    citation: Annotated[str, Field(min_length=1)]
    note: str | None


@dataclass(frozen=True)
class CatalogSource:
    """One source of a collection.

    Attributes:
        name: As a manifest has it.
        title: For people.
        region: Part of the body.
        preset: Row of presets.yaml.
        folder: Where it lies below the collection's root.
        images: Pattern of its scans below its folder.
        labels: Template of their labels, or None.
        counts: Scans by paper, by loader, on disk.
        weight: How often training draws from it.
        used: Whether the released loader reads it.
        subset_10k: Whether the 10K subset has it.
        licence: As far as is known.
        licence_checked: Whether a file of the source says so itself.
        gated: Whether its owner must give access; None if not known.
        citation: What who uses it is to name: authors, title, venue, year; or whose it is, and
            where.
        note: What to know before using it, or None.
    """

    name: str
    title: str
    region: str
    preset: str
    folder: str
    images: str
    labels: str | None
    counts: Counts
    weight: int
    used: bool
    subset_10k: bool
    licence: str
    licence_checked: bool
    gated: bool | None
    citation: str
    note: str | None


@cache
def load_catalog(name: str) -> Mapping[str, CatalogSource]:
    """All sources of a collection by name, in the order of the table.

    Raises:
        ManifestError: No such collection.
    """
    if name not in CATALOGS:
        near = difflib.get_close_matches(name, CATALOGS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(CATALOGS)}."
        msg = f"Catalog '{name}' is not known; {hint}"
        raise ManifestError(msg)
    text = resources.files("vocodata").joinpath(f"catalog/{name}.yaml").read_text(encoding="utf-8")
    rows = TypeAdapter(dict[str, _Row]).validate_python(yaml.safe_load(text))
    return MappingProxyType({key: _source(key, row) for key, row in rows.items()})


def _source(name: str, row: _Row) -> CatalogSource:
    preset(row.preset)
    return CatalogSource(name=name, **{key: getattr(row, key) for key in _Row.model_fields})


def catalog_manifest(name: str, root: Path, *, subset: str | None = None) -> str:
    """A manifest, as YAML, of a collection below a folder.

    What is there, unpacked or as an archive (vocodata/catalog_places.py), is listed with the counts
    expected; what is not is kept as a comment, and so is what no released loader reads.

    Args:
        name: Of the collection.
        root: Folder that holds the sources' folders, or archives of them.
        subset: `10k`, or None for all that the released loader reads.

    Raises:
        ManifestError: An unknown collection or subset, or none of its sources below the root.
    """
    if subset not in {None, *SUBSETS}:
        msg = f"Subset '{subset}' is not known; expected {', '.join(SUBSETS)}."
        raise ManifestError(msg)
    rows = load_catalog(name).values()
    wanted = [row for row in rows if (row.subset_10k if subset else row.used)]
    places = find_places(rows, root)
    there = [row for row in wanted if row.name in places]
    if not there:
        folders = ", ".join(row.folder for row in wanted[:4])
        msg = (
            f"{root} holds no source of {name}; expected folders such as {folders}, or archives "
            "called so."
        )
        raise ManifestError(msg)
    away = [row for row in wanted if row not in there]
    loader, on_disk = (
        sum(getattr(row.counts, by) for row in there) for by in ("loader", "on_disk")
    )
    lines = [
        f"# {name}{f', subset {subset}' if subset else ''}: {len(there)} of {len(wanted)} sources.",
        f"# {on_disk} scans expected on disk; the released loader reads {loader} of them a pass.",
        "version: 1",
        "sources:",
    ]
    for row in there:
        lines += _lines(row, places[row.name])
    unread = [] if subset else [row for row in rows if not row.used and row.name in places]
    if unread:
        lines += ["# There, but read by no released loader; to take one, take its # away:"]
        lines += [f"#{line}" for row in unread for line in _lines(row, places[row.name])]
    if away:
        lines += ["# Not below the root:"]
        lines += [f"#   {row.folder}: {row.title}, {row.counts.on_disk} scans" for row in away]
    return "\n".join(lines) + "\n"


def _lines(row: CatalogSource, place: Place) -> list[str]:
    gated = {True: "; access by its owner", False: "", None: "; access not known"}[row.gated]
    counts = f"paper {row.counts.paper or 'none'}, loader {row.counts.loader}"
    checked = "" if row.licence_checked else "  # verify at the source"
    lines = [f"  # {row.title}: {row.region}{gated}. Counts: {counts}."]
    lines += [f"  # {row.note}"] if row.note else []
    lines.append(f"  # Cite: {row.citation}")
    lines += [f"  # {told if told.isprintable() else ascii(told)}" for told in place.told]
    lines += [
        f"  - name: {row.name}",
        f"    root: {quoted(str(place.root))}",
        "    layout: glob",
        f"    images: {quoted(place.images)}",
    ]
    lines += [f"    labels: {quoted(place.labels)}"] if place.labels else []
    return [
        *lines,
        f"    preset: {row.preset}",
        f"    weight: {row.weight}",
        f"    expected: {row.counts.on_disk}",
        f"    licence: {quoted(row.licence)}{checked}",
    ]


def quoted(text: str) -> str:
    """Text as a YAML scalar in quotes.

    Raises:
        ManifestError: The name of a file or folder that is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"{text!r} is no UTF-8 text, which a manifest is; rename the folder."
        raise ManifestError(msg) from error
    if not text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def as_yaml(name: str) -> str:
    """In quotes only where YAML would take it for a number, a date or a truth."""
    return name if yaml.safe_load(name) == name else quoted(name)
