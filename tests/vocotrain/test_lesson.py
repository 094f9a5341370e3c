"""What a run learns, put together from task, store, weights and manifest."""

import json

import nibabel
import numpy as np
import pytest

from tests.vocodata.dicom_series import write_series
from vocodata.building import build
from vocotrain.errors import ConfigError
from vocotrain.finetune_config import load_finetune_config
from vocotrain.finetuning import finetune
from vocotrain.lesson import look_up_lesson

SCANS = 3


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Oblique, left-facing scans with two organs, their manifest, and the store built of it."""
    folder = tmp_path_factory.mktemp("sources")
    affine = np.array([[-3.0, 0.2, 0, 90], [0.2, 3.0, 0, -60], [0, 0, 4.0, 30], [0, 0, 0, 1]])
    for kind in ("images", "labels"):
        (folder / "organs" / kind).mkdir(parents=True)
    for k in range(SCANS):
        hu = np.full((50, 48, 40), -1000, np.int16)
        hu[3:-3, 3:-3, 2:-2] = np.random.default_rng(k).normal(0, 10, (44, 42, 36))
        labels = np.zeros(hu.shape, np.uint8)
        labels[8:24, 10:30, 8:24], labels[30:40, 20:34, 12:26] = 5, 9
        hu[labels == 5], hu[labels == 9] = 90, 180
        for kind, data in (("images", hu), ("labels", labels)):
            nibabel.save(
                nibabel.Nifti1Image(data, affine), folder / "organs" / kind / f"{k}.nii.gz"
            )
    source = {
        "name": "organs",
        "root": "organs",
        "layout": "glob",
        "images": "images/*.nii.gz",
        "labels": "labels/{id}.nii.gz",
        "label_names": {5: "liver", 9: "spleen"},
        "preset": "demo",
    }
    manifest = folder / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [source]}))
    assert build(manifest, folder / "ct.zarr", workers=0).stored == SCANS
    return folder


def config(sources, out, *sets):
    given = {"task.name": "demo-organs", "data.store": str(sources / "ct.zarr"), "out": str(out)}
    usual = ("model.size=tiny", "task.roi_vox=[16,16,16]", "threads=1", "data.holdout=[organs/1]")
    return load_finetune_config(None, (*usual, *sets), values=given)


def test_dice_is_measured_on_the_grids_of_store_and_scan(sources, tmp_path):
    words = (
        f"data.sources={sources / 'manifest.yaml'}",
        "train.steps=40",
        "optim.lr=1e-2",
        "task.crops_per_volume=3",
        "task.pos_neg=[3,1]",
        "task.balance_classes=true",
    )
    report = finetune(config(sources, tmp_path / "run", *words))
    (on_store,), (on_native,) = report.dice_store_grid, report.dice_native
    assert on_store.scan == on_native.scan == "organs/1"
    # the same labels, once on 5 mm and once on 3 x 3 x 4 mm: near each other, not the same
    for name in ("liver", "spleen"):
        assert on_store.scores[name] > 0.3
        assert on_native.scores[name] == pytest.approx(on_store.scores[name], abs=0.15)
    assert on_native.scores != on_store.scores
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dice_native"]["mean"] == pytest.approx(on_native.mean)


def test_a_manifest_without_the_held_out_scan_is_refused(sources, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "7.nii.gz").write_bytes(b"")
    source = {"name": "other", "root": "other", "layout": "glob", "preset": "demo"}
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [source | {"images": "*.nii.gz"}]}))
    words = "does not have 1 of the held-out scans, such as 'organs/1'; expected the manifest"
    with pytest.raises(ConfigError, match=words):
        look_up_lesson(config(sources, tmp_path / "run", f"data.sources={manifest}"))


def test_hidden_names_of_another_salt_are_refused_with_what_they_need(sources, tmp_path):
    write_series(tmp_path / "d/p1")
    source = {"name": "other", "root": "d", "layout": "dicom", "preset": "demo"}
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [source]}))
    with pytest.raises(ConfigError, match=r"need the build's salt, .* need names: path there"):
        look_up_lesson(config(sources, tmp_path / "run", f"data.sources={manifest}"))


def test_the_segmenter_knows_the_preset_of_its_scans(sources, tmp_path):
    lesson = look_up_lesson(config(sources, tmp_path / "run"))
    assert lesson.spec.preset == "demo"
    assert lesson.spec.foreground_above_hu == -175
    assert lesson.native == {}
    assert [scan.id for scan in lesson.split.train] == ["organs/0", "organs/2"]
