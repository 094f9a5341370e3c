"""The manifest: which sources there are, where, and how their scans are named.

YAML, loaded safely (a tag that would run code is refused), checked strictly: an unknown key, a
text where a number belongs, a preset that does not exist. All faults are told at once, each with
its key. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from vocodata.errors import ManifestError
from vocodata.expectations import KEYS_AND_VALUES, expected, shown
from vocodata.plain_yaml import read_plain_yaml
from vocodata.presets import load_presets, unknown_preset
from vocodata.quality import CHECKS, Policy
from vocodata.remote.path import RemotePath, as_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

Layout = Literal["auto", "glob", "nnunet", "msd", "datalist", "bids", "dicom"]
LAYOUTS: tuple[str, ...] = ("auto", "glob", "nnunet", "msd", "datalist", "bids", "dicom")
_UNREAD_ARCHIVES = (".7z", ".rar")
_KEY_OF_LAYOUT = {"images": "glob", "labels": "glob", "scans": "datalist"}


def _known_preset(name: str) -> str:
    if name not in load_presets():
        raise ValueError(unknown_preset(name))
    return name


def _place(value: object) -> Path:
    """A path or a URL, from a text."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        msg = f"a path or URL is needed, got {shown(value)}"
        raise ValueError(msg)
    if value.lower().endswith(_UNREAD_ARCHIVES):
        msg = "7z and rar are not read. Unpack it to a folder, and name that"
        raise ValueError(msg)
    path = as_path(value)
    try:
        path.expanduser()
    except RuntimeError:
        msg = f"{path.parts[0]} is no home folder of this machine; write the whole path"
        raise ValueError(msg) from None
    return path


def _known_checks(policies: dict[str, Policy]) -> dict[str, Policy]:
    for check in policies:
        if check not in CHECKS:
            msg = f"{check!r} is no check{_did_you_mean(check, tuple(CHECKS))}"
            raise ValueError(msg)
    return policies


class Source(BaseModel):
    """One data set of the manifest.

    Attributes:
        name: Unique; becomes a folder of the store. Letters, digits, `.`, `_`, `-`.
        root: Folder with the scans, or an archive of them: zip or tar, whole or in parts:
            the first of them, or a folder of them (vocodata/archives/parts.py). Also by `s3://` or
            `https://`.
        layout: How scans are found below the root; `auto` looks, and refuses when in doubt.
        preset: Row of presets.yaml.
        weight: How often training draws a scan of this source, relative to others.
        expected: Scans that should be there; another count is reported.
        licence: For the record of what a model was trained on.
        images: Layout `glob`: which files are scans, such as `images/**/*.nii.gz`.
        labels: Layout `glob`: the label file of a scan, below the root, such as
            `labels/{id}.nii.gz`; `{id}` is what the last `*` of `images` stands for, `{folder}`
            the scan's folder below the root.
        label_names: Label value -> structure; before what a dataset.json says.
        quality: Check of vocodata/quality.py -> `keep`, `flag` or `exclude`.
        scans: Layout `datalist`: JSON file with lists `training` and `validation` of
            `{"image": ..., "label": ...}`, paths below the root. Also by URL.
        anonymous: An `s3://` root is asked without credentials, as public buckets allow.
        endpoint: Of an `s3://` root on another server than Amazon's; else what the environment
            says (AWS_ENDPOINT_URL).
        names: `path` names scans by their paths below the root, `hashed` by a keyed hash of
            those. None is `hashed` for DICOM series, whose folders are often named after
            patients, and `path` for files.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    root: Annotated[Path, PlainValidator(_place)]
    layout: Layout = "auto"
    preset: Annotated[str, AfterValidator(_known_preset)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    expected: Annotated[int, Field(ge=1)] | None = None
    licence: str | None = None
    quality: Annotated[dict[str, Policy], AfterValidator(_known_checks)] = Field(
        default_factory=dict
    )
    images: str | None = None
    labels: str | None = None
    label_names: dict[Annotated[int, Field(ge=0, le=65535)], str] | None = None
    scans: Annotated[Path, PlainValidator(_place)] | None = None
    anonymous: bool = False
    endpoint: str | None = None
    names: Literal["path", "hashed"] | None = None

    @model_validator(mode="after")
    def _keys_fit_the_layout(self) -> Self:
        for key, layout in _KEY_OF_LAYOUT.items():
            if getattr(self, key) is not None and self.layout != layout:
                msg = f"{key} is read with layout '{layout}' only; layout is '{self.layout}'"
                raise ValueError(msg)
        if self.layout == "datalist" and self.scans is None:
            msg = "layout 'datalist' needs the key scans, the JSON list of scans"
            raise ValueError(msg)
        is_bucket = isinstance(self.root, RemotePath) and self.root.scheme == "s3"
        if (self.anonymous or self.endpoint) and not is_bucket:
            msg = "anonymous and endpoint are for s3:// roots only"
            raise ValueError(msg)
        return self

    def hides_names(self, *, of_dicom: bool) -> bool:
        """Whether scans' names are keyed hashes; of a DICOM series, or of a file."""
        return self.names == "hashed" or (self.names is None and of_dicom)


class Manifest(BaseModel):
    """All sources of a build.

    Attributes:
        version: Of this form, 1.
        exclude: File with ids of scans to leave out, one a line, as `voco data dedup` and
            `leak-check` write it; they are accounted for as excluded.
        sources: At least one, names unique (also where upper and lower case are the same).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    version: Literal[1]
    exclude: Path | None = None
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]


def load_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest; roots and lists become absolute paths.

    Raises:
        ManifestError: Everything that is wrong, one fault a line, each with its key.
    """
    path = Path(path)
    document = read_plain_yaml(path)
    faults: list[str] = []
    manifest: Manifest | None = None
    try:
        manifest = Manifest.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        faults.extend(_fault(details) for details in _first_hand(error))
    faults.extend(_repeated_names(document))
    if faults or manifest is None:
        lines = "\n  ".join(faults)
        msg = f"{path}: {len(faults)} fault{'s' * (len(faults) != 1)}:\n  {lines}"
        raise ManifestError(msg)
    base = path.resolve().parent
    update: dict[str, object] = {
        "sources": tuple(_anchored(source, base) for source in manifest.sources)
    }
    if manifest.exclude is not None:
        update["exclude"] = base / manifest.exclude.expanduser()
    return manifest.model_copy(update=update)


def _anchored(source: Source, base: Path) -> Source:
    update: dict[str, Path] = {"root": _below(base, source.root)}
    if isinstance(source.root, RemotePath):
        anonymous, endpoint = source.anonymous, source.endpoint
        update["root"] = source.root.reached(anonymous=anonymous, endpoint=endpoint)
    if source.scans is not None:
        update["scans"] = _below(base, source.scans)
    return source.model_copy(update=update)


def _below(base: Path, path: Path) -> Path:
    return path if isinstance(path, RemotePath) else base / path.expanduser()


def _first_hand(error: ValidationError) -> list[ErrorDetails]:
    """Without the echo that a list of only faulty sources is also a list of none."""
    faults = error.errors()
    is_echo = len({fault["loc"][:2] for fault in faults if fault["loc"][:1] == ("sources",)}) > 1
    return [fault for fault in faults if not (is_echo and fault["loc"] == ("sources",))]


def _fault(details: ErrorDetails) -> str:
    location, value = details["loc"], details["input"]
    is_key = location[-1:] == ("[key]",)
    key = _key(location[:-1] if is_key else location)
    if not location and value is None:
        return f"the file is empty; expected {KEYS_AND_VALUES}: version and sources"
    match details["type"]:
        case "extra_forbidden":
            fields = list(Source.model_fields if len(location) > 1 else Manifest.model_fields)
            return f"{key}: unknown key{_did_you_mean(str(location[-1]), fields)}"
        case "missing":
            return f"{key}: this key is needed; expected {_needed(str(location[-1]))}"
        case "literal_error" if location[-1] == "layout":
            return f"{key}: {value!r} is no layout{_did_you_mean(str(value), LAYOUTS)}"
        case "value_error":
            return f"{key}: {details['ctx']['error']}"
        case "string_pattern_mismatch":
            words: str | None = "letters, digits, '.', '_' and '-', the first a letter or digit"
        case _:
            words = expected(details)
    came = f"{': this key' * is_key} is {shown(value)}"
    if words is None:
        return f"{key}{came}: {details['msg']}"
    return f"{key}{came}; expected {words}"


def _needed(key: str) -> str:
    """What to write for a key that is not there."""
    return {
        "version": "version: 1, of this form",
        "sources": "a list of data sets; `voco data init DIR` writes one",
        "name": "a name of its own, which becomes a folder of the store",
        "root": "the folder, archive or URL with the scans",
        "preset": f"one of {', '.join(load_presets())}",
    }[key]


def _did_you_mean(word: str, words: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; expected one of {', '.join(words)}"


def _key(location: tuple[int | str, ...]) -> str:
    """`sources[0].preset` from ("sources", 0, "preset").

    >>> _key(("sources", 0, "preset"))
    'sources[0].preset'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "manifest"


def _repeated_names(document: object) -> Iterator[str]:
    """Found before the model is built, so that they are told along with other faults."""
    sources = document.get("sources") if isinstance(document, dict) else None
    first_of: dict[str, int] = {}
    for index, source in enumerate(sources if isinstance(sources, list) else []):
        name = source.get("name") if isinstance(source, dict) else None
        if not isinstance(name, str):
            continue
        first = first_of.setdefault(name.casefold(), index)
        if first != index:
            yield f"sources[{index}].name: '{name}' is also the name of sources[{first}]"
