"""Predicting: labels lie where the anatomy is, in the scan's own file geometry, whatever it is."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from vocodata.discover import Scan
from vocodata.errors import ImplausibleScanError, UnreadableScanError
from vocodata.geometry import Size, Spacing, Volume, orient_ras
from vocodata.store import open_store
from vocotrain.device import PRECISIONS
from vocotrain.errors import (
    CheckpointError,
    ConfigError,
    LabelsError,
    RunExistsError,
    WeightsFileError,
)
from vocotrain.evaluation import evaluate_native, evaluate_store_grid
from vocotrain.labelled_scans import split_scans
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.prediction import predict
from vocotrain.segmenter import Segmenter, SegmenterSpec, load_segmenter, save_segmenter
from vocotrain.tasks import task
from vocotrain.weights import save_weights

AIR, TISSUE, BLOCK = -1000, 0, 200
CPU, FP32 = torch.device("cpu"), PRECISIONS["fp32"]
SPEC = SegmenterSpec(
    task="demo-organs",
    classes=("background", "block"),
    spacing_mm=Spacing(2.0, 2.0, 2.0),
    window_hu=(-200.0, 300.0),
    roi_vox=Size(16, 16, 16),
    overlap=0.25,
    blending="constant",
    preset="demo",
    foreground_above_hu=-175.0,
    steps=1,
)


class BrightIsBlock(nn.Module):
    """A network that thresholds half-way between tissue and block."""

    def forward(self, x_WCXYZ):
        half = ((TISSUE + BLOCK) / 2 + 200) / 500
        return torch.cat([half - x_WCXYZ, x_WCXYZ - half], dim=1) * 100


FAKE = Segmenter(BrightIsBlock(), SPEC, CPU, FP32)


def phantom(codes: str, spacing, degrees=0.0, shape=(48, 42, 36)):
    """A body with a bright block off its middle: (volume, block), block in the file's voxels."""
    signs = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    axes = np.zeros((3, 3))
    for column, code in enumerate(codes):
        axes[signs[code][0], column] = signs[code][1]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = turn @ axes * np.array(spacing)
    affine[:3, 3] = (-81.5, 40.25, -310.0)
    hu = np.full(shape, AIR, np.int16)
    hu[3:-5, 6:-2, 2:-4] = TISSUE
    block = np.zeros(shape, bool)
    block[8:24, 10:34, 6:18] = True
    hu[block] = BLOCK
    return Volume(hu, affine), block


def nifti(path, volume):
    image = nibabel.Nifti1Image(volume.data_XYZ, np.asarray(volume.affine))
    image.set_qform(volume.affine, code=1)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SLA", "AIL"])
@pytest.mark.parametrize("degrees", [0, 9])
def test_labels_lie_exactly_on_the_block_in_the_file_of_any_orientation(tmp_path, codes, degrees):
    volume, block = phantom(codes, (2.0, 2.0, 2.0), degrees)
    scan = nifti(tmp_path / "scan.nii.gz", volume)
    report = predict(FAKE, scan, tmp_path / "out")
    written, read = nibabel.load(report.labels), nibabel.load(scan)
    np.testing.assert_array_equal(np.asarray(written.dataobj), block)
    np.testing.assert_allclose(written.affine, read.affine, atol=1e-6)
    assert nibabel.aff2axcodes(written.affine) == nibabel.aff2axcodes(read.affine)
    assert (written.shape, written.get_data_dtype()) == (read.shape, np.uint8)


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
@pytest.mark.parametrize("spacing", [(0.8, 0.8, 2.5), (1.5, 1.1, 4.0), (3.0, 2.5, 3.5)])
def test_uneven_spacing_moves_no_border_by_half_a_voxel_of_the_grid(tmp_path, codes, spacing):
    volume, block = phantom(codes, spacing, 6)
    report = predict(FAKE, volume, tmp_path)
    labels = np.asarray(nibabel.load(report.labels).dataobj)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found, truth = (np.flatnonzero(m.any(axis=others)) for m in (labels, block))
        off_mm = np.abs(found[[0, -1]] - truth[[0, -1]]) * spacing[axis]
        assert off_mm.max() <= 1.0 + spacing[axis] / 2
    expected_ml = block.sum() * np.prod(spacing) / 1000
    assert report.volumes_ml["block"] == pytest.approx(expected_ml, rel=0.2)
    assert labels[tuple(np.argwhere(block).mean(axis=0).astype(int))] == 1


def test_the_report_has_names_and_volumes_in_millilitres(tmp_path):
    volume, block = phantom("LPS", (2.0, 2.0, 2.0))
    seen = []
    report = predict(FAKE, volume, tmp_path / "a" / "liver.nii", on_event=seen.append)
    assert report.report == tmp_path / "a" / "liver.json"
    kept = json.loads(report.report.read_text())
    assert kept == json.loads(json.dumps(report.as_json()))
    assert kept["classes"] == {"0": "background", "1": "block"}
    assert kept["volumes_ml"] == {"block": pytest.approx(block.sum() * 8 / 1000)}
    assert kept["shape_XYZ"] == [48, 42, 36]
    assert kept["seconds"] > 0
    assert (seen[-1].stage, seen[-1].step) == ("predict", seen[-1].total)


def test_labels_that_are_there_are_not_replaced_unless_told(tmp_path):
    volume, _ = phantom("RAS", (2.0, 2.0, 2.0))
    scan = nifti(tmp_path / "scan.nii", volume)
    first = predict(FAKE, scan, tmp_path)
    assert first.labels.name == "scan_seg.nii.gz"
    with pytest.raises(RunExistsError, match=r"scan_seg\.nii\.gz is there already; expected a new"):
        predict(FAKE, scan, tmp_path)
    predict(FAKE, scan, tmp_path, overwrite=True)
    with pytest.raises(RunExistsError, match="is the scan itself; expected a new name"):
        predict(FAKE, scan, scan, overwrite=True)


def test_the_figures_do_not_replace_what_a_data_set_says_of_its_scan(tmp_path):
    """BIDS and dcm2niix keep `ct.json` beside `ct.nii.gz`."""
    volume, _ = phantom("RAS", (2.0, 2.0, 2.0))
    (tmp_path / "ct.json").write_text("{}")
    with pytest.raises(RunExistsError, match=r"ct\.json is there already; expected a new name"):
        predict(FAKE, volume, tmp_path / "ct.nii.gz")
    assert (tmp_path / "ct.json").read_text() == "{}"


def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(tmp_path, monkeypatch):
    volume, _ = phantom("RAS", (2.0, 2.0, 2.0))
    monkeypatch.setattr("vocotrain.prediction.os.access", lambda _path, _mode: False)
    monkeypatch.setattr("vocotrain.prediction.segment_scan", None)
    with pytest.raises(PermissionError, match="The labels cannot be written there"):
        predict(FAKE, volume, tmp_path)


@pytest.mark.parametrize("stack", [0, 1, 2])
@pytest.mark.parametrize("lean", [2.0, -3.1])
def test_labels_of_a_tilted_gantry_lie_in_the_leaning_slices_of_the_file(tmp_path, stack, lean):
    spacing = [2.0, 2.0, 2.0]
    spacing[stack] = 8.0
    straight, block = phantom("LPS", spacing)
    affine = np.array(straight.affine)
    affine[(stack + 1) % 3, stack] += lean
    scan = nifti(tmp_path / "scan.nii.gz", Volume(straight.data_XYZ, affine))
    report = predict(FAKE, scan, tmp_path / "out")
    written = nibabel.load(report.labels)
    assert written.shape == block.shape
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    off = np.asarray(written.dataobj) != block
    # parts of a voxel by which a slice was moved may cost its border, and no more
    assert off.sum() == 0 if lean == 2.0 else off.mean() < 0.01
    assert report.volumes_ml["block"] == pytest.approx(block.sum() * 32 / 1000, rel=0.05)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda hu: np.clip(hu, -1000, 500) / 1500 + 2 / 3, "grey levels, not HU"),
        (lambda hu: hu + 1024, "1024 was not subtracted"),
    ],
)
def test_values_that_are_no_hu_are_told(tmp_path, change, words):
    volume, _ = phantom("RAS", (2.0, 2.0, 2.0))
    seen = []
    values = np.asarray(change(volume.data_XYZ), np.float32)
    report = predict(FAKE, Volume(values, volume.affine), tmp_path, on_event=seen.append)
    assert words in str(seen[0].values["message"])
    assert words in json.loads(report.report.read_text())["warnings"][0]
    assert predict(FAKE, volume, tmp_path / "hu").warnings == ()


def test_a_file_is_not_taken_for_the_folder_of_the_labels(tmp_path):
    (tmp_path / "labels").write_text("x")
    with pytest.raises(RunExistsError, match=r"labels is a file; expected a folder"):
        predict(tmp_path, tmp_path / "scan.nii.gz", tmp_path / "labels")


def test_a_name_of_another_format_is_not_taken_for_a_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.mha; labels are written as NIfTI"):
        predict(tmp_path, tmp_path / "scan.nii.gz", tmp_path / "labels.mha")
    assert not list(tmp_path.iterdir())


def test_an_overlap_of_one_is_refused(tmp_path):
    volume, _ = phantom("RAS", (2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="overlap is 1; expected a share from 0 to below 1"):
        predict(FAKE, volume, tmp_path, overlap=1)


def test_a_scan_of_air_is_refused(tmp_path):
    air = Volume(np.full((20, 20, 20), AIR, np.int16), np.eye(4))
    with pytest.raises(ImplausibleScanError, match="No voxel is above -175 HU"):
        predict(FAKE, air, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UnreadableScanError, match="is not there; expected a scan"):
        predict(FAKE, tmp_path / "none.nii.gz", tmp_path)


def test_a_file_of_weights_is_all_that_predicting_needs(tmp_path):
    torch.manual_seed(1)
    model = SwinUNETR("tiny", out_channels=2).eval()
    path = save_segmenter(model, SPEC, tmp_path / "segmenter.safetensors", dice=0.5)
    loaded = load_segmenter(path, device=CPU, precision=FP32)
    assert loaded.spec == SPEC
    volume, _ = phantom("LPS", (2.0, 2.0, 2.0), shape=(20, 20, 20))
    from_file = predict(path, volume, tmp_path / "a", device="cpu")
    in_memory = predict(Segmenter(model, SPEC, CPU, FP32), volume, tmp_path / "b")
    assert from_file.volumes_ml == in_memory.volumes_ml


def test_the_scores_do_not_depend_on_the_mode_the_network_was_left_in(tmp_path):
    model = SwinUNETR("tiny", out_channels=2).train()
    volume, _ = phantom("LPS", (2.0, 2.0, 2.0), shape=(20, 20, 20))
    predict(Segmenter(model, SPEC, CPU, FP32), volume, tmp_path)
    assert model.training


def test_a_pretrained_encoder_is_refused_with_what_to_do(tmp_path):
    run = tmp_path / "run"
    save_weights(VoCoEncoder("tiny"), run / "checkpoints" / "final" / "encoder.safetensors")
    words = r"holds a pretrained encoder without a decoder; .*voco train finetune --from"
    with pytest.raises(CheckpointError, match=words):
        predict(run, tmp_path / "scan.nii.gz", tmp_path / "out")


def test_a_network_that_does_not_name_its_classes_is_refused(tmp_path):
    path = save_weights(SwinUNETR("tiny"), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="weights without the names of classes, a grid and"):
        predict(path, tmp_path / "scan.nii.gz", tmp_path / "out")


def test_a_damaged_description_is_refused_with_its_keys(tmp_path):
    spec = replace(SPEC, blending="cubic")
    path = save_segmenter(SwinUNETR("tiny", out_channels=2), spec, tmp_path / "s.safetensors")
    with pytest.raises(CheckpointError, match="makes no sense: blending: Input should be 'const"):
        load_segmenter(path, device=CPU, precision=FP32)


def test_no_weights_at_all_are_refused(tmp_path):
    with pytest.raises(WeightsFileError, match="There is no file or run folder of weights"):
        predict(tmp_path / "none", tmp_path / "scan.nii.gz", tmp_path / "out")


def measured_scan(tmp_path, labels=None, names=None):
    volume, block = phantom("LPS", (1.5, 1.5, 3.0), 5)
    truth = Volume(block.astype(np.uint8) * 7, volume.affine) if labels is None else labels
    return Scan(
        id="a/scan",
        source="a",
        name="scan",
        image=nifti(tmp_path / "scan.nii.gz", volume),
        labels=nifti(tmp_path / "labels.nii.gz", truth),
        label_names={7: "Block"} if names is None else names,
        preset="demo",
    )


def test_native_dice_compares_with_the_labels_of_the_file(tmp_path):
    volume, block = phantom("LPS", (1.5, 1.5, 3.0), 5)
    two_further = np.roll(block, 2, axis=0).astype(np.uint8) * 7
    scan = measured_scan(tmp_path, labels=Volume(two_further, volume.affine))
    result = evaluate_native(FAKE, scan)
    # 14 of the block's 16 planes are where the labels have them
    assert result.scan == "a/scan"
    assert result.scores == {"block": pytest.approx(14 / 16)}


def test_native_dice_takes_labels_whose_voxels_come_in_another_order(tmp_path):
    """As those that dcm2niix and most tools write for a DICOM series."""
    volume, block = phantom("LPS", (1.5, 1.5, 3.0), 5)
    turned = orient_ras(Volume(block.astype(np.uint8) * 7, volume.affine))
    assert np.abs(turned.affine - volume.affine).max() > 1
    as_it_is = evaluate_native(FAKE, measured_scan(tmp_path))
    assert evaluate_native(FAKE, measured_scan(tmp_path, labels=turned)).scores == as_it_is.scores


def test_native_dice_is_one_on_the_grid_of_the_model(tmp_path):
    same = replace(SPEC, spacing_mm=Spacing(1.5, 1.5, 3.0))
    segmenter = Segmenter(BrightIsBlock(), same, CPU, FP32)
    assert evaluate_native(segmenter, measured_scan(tmp_path)).scores == {"block": 1.0}


def test_labels_of_another_grid_are_refused(tmp_path):
    other = Volume(np.zeros((48, 42, 36), np.uint8), np.eye(4))
    with pytest.raises(LabelsError, match=r"'a/scan' cannot be measured: Labels lie up to .* from"):
        evaluate_native(FAKE, measured_scan(tmp_path, labels=other))


def test_labels_that_lack_a_class_are_refused(tmp_path):
    with pytest.raises(LabelsError, match="'a/scan' cannot be measured: its labels do not name bl"):
        evaluate_native(FAKE, measured_scan(tmp_path, names={7: "liver"}))


def test_a_scan_without_labels_is_refused(tmp_path):
    scan = replace(measured_scan(tmp_path), labels=None)
    with pytest.raises(LabelsError, match="has no labels with names in the manifest"):
        evaluate_native(FAKE, scan)


def test_dice_on_the_grid_of_the_store(build_labelled_store):
    store = open_store(build_labelled_store(2))
    row = replace(task("demo-organs"), classes=("background", "spleen"), out_channels=2)
    spec = replace(SPEC, classes=row.classes)
    scans = split_scans(store, row, holdout=[]).train
    results = evaluate_store_grid(Segmenter(BrightIsBlock(), spec, CPU, FP32), store, scans)
    # the spleen of the phantoms is at 120 HU, all else below: a threshold finds it
    assert [result.scan for result in results] == ["phantom/00", "phantom/01"]
    assert all(result.scores["spleen"] > 0.95 for result in results)
