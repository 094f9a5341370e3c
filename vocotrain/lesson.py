"""What a fine-tuning run learns, from what: looked up and checked before anything is written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vocodata.discover import find_scans
from vocodata.identifiers import SALT_VARIABLE, salt_beside
from vocodata.ledger import default_ledger
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.remote import as_path
from vocodata.store import open_store
from vocotrain.errors import ConfigError, LabelsError
from vocotrain.finetune_config import (
    FinetuneConfig,
    OptimPlan,
    check_roi,
    crop_settings,
    resolve_plan,
    resolve_task,
)
from vocotrain.labelled_scans import Split, split_scans
from vocotrain.segmentation_data import CropSettings, CropSites, find_sites
from vocotrain.segmenter import SegmenterSpec
from vocotrain.sizes import ModelSize, model_size, size_from_row
from vocotrain.weights import find_weights, read_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vocodata.discover import Scan
    from vocodata.store import Store
    from vocotrain.tasks import Task

_SITE_THREADS = 4


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learned, from what: looked up and checked before anything is written.

    Attributes:
        store: Where the scans are.
        task: The task, with the recipe's changes.
        size: The network's numbers.
        split: Scans to learn from, to measure on, and left out.
        settings: What a training sample looks like.
        plan: Steps and rates.
        spec: What the segmenter will say of itself.
        native: Held-out scans by id, where the manifest has them with their files.
    """

    store: Store
    task: Task
    size: ModelSize
    split: Split
    settings: CropSettings
    plan: OptimPlan
    spec: SegmenterSpec
    native: Mapping[str, Scan]


def look_up_lesson(config: FinetuneConfig) -> Lesson:
    """Put task, size and store together and check that they fit; writes nothing.

    Raises:
        ConfigError: As `opened_finetune`.
        LabelsError: As `opened_finetune`.
        ManifestError: `data.sources` cannot be read.
        StoreError: No such store.
    """
    row = resolve_task(config.task)
    size = model_size(with_size(config).model.size or "")
    check_roi(row, size)
    store = open_store(config.data.store)
    split = split_scans(store, row, train=config.data.train, holdout=config.data.holdout)
    plan = resolve_plan(config, row, len(split.train))
    assert row.classes is not None, "split_scans refuses a task without class names"
    preset_name = split.train[0].preset
    spec = SegmenterSpec(
        task=row.name,
        classes=row.classes,
        spacing_mm=row.spacing_mm,
        window_hu=row.window_hu,
        roi_vox=row.roi_vox,
        overlap=row.overlap,
        blending=config.task.blending,
        preset=preset_name,
        foreground_above_hu=preset(preset_name).foreground_above_hu,
        steps=plan.steps,
    )
    settings = crop_settings(config.augment, row)
    return Lesson(store, row, size, split, settings, plan, spec, _native_scans(config, split))


def all_sites(store: Store, split: Split, *, seed: int) -> dict[str, CropSites]:
    """Candidate centres of all training scans.

    Raises:
        LabelsError: No scan has a single labelled voxel.
    """
    with ThreadPoolExecutor(_SITE_THREADS, thread_name_prefix="sites") as pool:
        found = pool.map(lambda scan: find_sites(store, scan, seed=seed), split.train)
        sites = {scan.id: place for scan, place in zip(split.train, found, strict=True)}
    if not any(len(place.labelled_S3) for place in sites.values()):
        msg = (
            f"None of the {len(sites)} training scans has a voxel of any class; expected at least "
            "one. The labels may have been cropped away, or their values mean something else: "
            "check label_names in the manifest."
        )
        raise LabelsError(msg)
    return sites


def bill_of(config: FinetuneConfig, lesson: Lesson) -> dict[str, Any]:
    """The bill of materials: what was learned from, measured on and left out, and why."""
    split = lesson.split
    infos = [lesson.store.info(scan.id) for scan in split.train]
    return {
        "store": config.data.store,
        "store_digest": lesson.store.digest,
        "task": lesson.task.name,
        "counts": {
            "trained_on": len(split.train),
            "held_out": len(split.holdout),
            "left_out": len(split.left_out),
        },
        "trained_on": [
            {"id": i.id, "source": i.source, "licence": i.licence, "digest": i.digest}
            for i in infos
        ],
        "held_out": [scan.id for scan in split.holdout],
        "left_out": dict(split.left_out),
    }


def with_size(config: FinetuneConfig) -> FinetuneConfig:
    """The settings with the network's size named, taken from the weights where nobody said it."""
    if config.model.size is not None:
        return config
    if config.model.weights is None:
        msg = (
            "model.size is missing; expected a size such as 'tiny' or 'B', or model.weights. "
            "Give --from with pretrained weights, or --set model.size=tiny to start from scratch."
        )
        raise ConfigError(msg)
    file = find_weights(config.model.weights)
    row = read_metadata(file).get("size")
    if not isinstance(row, dict):
        msg = (
            f"{file} does not say which size it has; expected model.size beside it, such as "
            "'B-released' for the released VoCo_B weights."
        )
        raise ConfigError(msg)
    name = size_from_row(row).name
    return config.model_copy(update={"model": config.model.model_copy(update={"size": name})})


def _native_scans(config: FinetuneConfig, split: Split) -> dict[str, Scan]:
    if config.data.sources is None:
        return {}
    held = {scan.id for scan in split.holdout}
    salt = salt_beside(default_ledger(as_path(config.data.store)))
    scans = find_scans(load_manifest(config.data.sources), salt=salt)
    found = {scan.id: scan for scan in scans if scan.id in held}
    missing = sorted(held - found.keys())
    if missing:
        msg = (
            f"{config.data.sources} does not have {len(missing)} of the held-out scans, such as "
            f"'{missing[0]}'; expected the manifest that the store was built from."
        )
        if any(scan.hides_names for scan in scans):
            msg += (
                " Names that are hashes need the build's salt, beside the ledger or in "
                f"{SALT_VARIABLE}; DICOM series that are named by paths need names: path there."
            )
        raise ConfigError(msg)
    return found
