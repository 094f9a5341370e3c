"""Crops are a pure function of (seed, sample index), centred as asked, and labelled in step."""

import dataclasses

import numpy as np
import pytest

from vocodata.geometry import Size
from vocodata.store import open_store
from vocotrain.errors import ScanReadError
from vocotrain.labelled_scans import split_scans, to_classes
from vocotrain.segmentation_data import (
    CropPlan,
    CropSettings,
    CropSource,
    find_sites,
    plan_crops,
    read_crops,
    windowed,
)
from vocotrain.tasks import task

SETTINGS = CropSettings(Size(16, 16, 16), 4, (-175.0, 250.0), positive_share=0.75)


@pytest.fixture
def store(build_labelled_store):
    return open_store(build_labelled_store(3))


@pytest.fixture
def source(store):
    scans = split_scans(store, task("demo-organs"), holdout=[]).train
    sites = {scan.id: find_sites(store, scan, seed=1) for scan in scans}
    return CropSource(store, scans, sites, SETTINGS, seed=1, batch_size=1)


def planned(source, settings, index):
    return plan_crops(source.scans, source.sites, settings, seed=1, sample_index=index)


def changed(**values):
    return dataclasses.replace(SETTINGS, **values)


def whole(store, scan):
    return to_classes(store.read_label(scan.id, (0, 0, 0), scan.shape_XYZ), scan.class_of)


def test_the_same_sample_is_drawn_twice(source):
    first, again = planned(source, SETTINGS, 12), planned(source, SETTINGS, 12)
    assert [p.start_XYZ for p in first] == [p.start_XYZ for p in again]
    assert [p.start_XYZ for p in first] != [p.start_XYZ for p in planned(source, SETTINGS, 13)]


def test_every_scan_comes_once_in_each_round(source):
    drawn = [planned(source, SETTINGS, index)[0].scan.id for index in range(9)]
    for k in range(0, 9, 3):
        assert sorted(drawn[k : k + 3]) == [scan.id for scan in source.scans]


def test_crops_stay_inside_the_scan(source):
    for index in range(20):
        for plan in planned(source, SETTINGS, index):
            last = np.subtract(plan.scan.shape_XYZ, SETTINGS.roi_vox)
            assert (np.array(plan.start_XYZ) >= 0).all()
            assert (plan.start_XYZ <= last).all()


@pytest.mark.parametrize(("share", "is_labelled"), [(1.0, True), (0.0, False)])
def test_crops_are_centred_on_the_kind_of_voxel_asked_for(store, source, share, is_labelled):
    settings = changed(roi_vox=Size(1, 1, 1), positive_share=share)
    classes = {scan.id: whole(store, scan) for scan in source.scans}
    for index in range(6):
        for plan in planned(source, settings, index):
            assert (classes[plan.scan.id][plan.start_XYZ] > 0) == is_labelled


def test_small_organs_are_drawn_as_often_as_large_ones_where_asked(store, source):
    settings = changed(roi_vox=Size(1, 1, 1), positive_share=1.0, crops=100, balance_classes=True)
    classes = {scan.id: whole(store, scan) for scan in source.scans}
    plans = [plan for index in range(3) for plan in planned(source, settings, index)]
    drawn = np.bincount([classes[plan.scan.id][plan.start_XYZ] for plan in plans], minlength=3)
    assert drawn[0] == 0
    assert abs(drawn[1] - drawn[2]) < 60


def test_sites_are_all_labelled_voxels_where_they_are_few(store, source):
    scan = source.scans[0]
    expected = np.argwhere(whole(store, scan))
    np.testing.assert_array_equal(source.sites[scan.id].labelled_S3, expected)


def test_sites_of_a_large_label_are_drawn_evenly(store, source, monkeypatch):
    monkeypatch.setattr("vocotrain.segmentation_data._SITES", 200)
    scan = source.scans[0]
    sites = find_sites(store, scan, seed=1).labelled_S3
    all_sites = np.argwhere(whole(store, scan))
    assert len(np.unique(sites, axis=0)) == 200 < len(all_sites)
    np.testing.assert_allclose(sites.mean(axis=0), all_sites.mean(axis=0), atol=1.0)


def test_a_scan_smaller_than_the_crop_lies_in_its_middle(source):
    plan = planned(source, changed(roi_vox=Size(48, 48, 48)), 0)[0]
    assert plan.start_XYZ == (-4, -6, -7)
    batch = read_crops(source.store, [plan], changed(roi_vox=Size(48, 48, 48)))
    assert batch.image_NCXYZ[0, 0, 0].max() == 0
    assert batch.image_NCXYZ[0, 0, 24, 24, 24] > 0


def test_image_and_labels_move_together(store, source):
    scan = source.scans[0]
    settings = changed(roi_vox=Size(24, 24, 20))
    base = CropPlan(scan, Size(5, 4, 3), (False, False, False), 0, 0.0)
    plain = read_crops(store, [base], settings)
    moved = read_crops(
        store, [base._replace(flips=(True, False, True), turns=1, shift=0.1)], settings
    )
    for name, shift in (("image_NCXYZ", 0.1), ("class_NCXYZ", 0)):
        expected = getattr(plain, name).flip(2, 4).rot90(1, (2, 3)) + shift
        np.testing.assert_allclose(getattr(moved, name), expected, atol=1e-6)
    assert plain.class_NCXYZ.max() == 2


def test_chances_of_zero_change_nothing_and_chances_of_one_change_all(source):
    assert {(p.flips, p.turns, p.shift) for p in planned(source, SETTINGS, 3)} == {
        ((False, False, False), 0, 0.0)
    }
    wild = changed(flip=1.0, turn=1.0, shift_probability=1.0, shift_range=0.1)
    for plan in planned(source, wild, 3):
        assert plan.flips == (True, True, True)
        assert plan.turns in {1, 2, 3}
        assert 0 < abs(plan.shift) <= 0.1


def test_threads_give_the_batches_of_the_plain_loop_in_order(source):
    plain = list(source.batches(2, 9, workers=0))
    ahead = list(source.batches(2, 9, workers=2))
    assert len(plain) == len(ahead) == 7
    for a, b in zip(plain, ahead, strict=True):
        assert a.scans == b.scans
        np.testing.assert_array_equal(a.image_NCXYZ, b.image_NCXYZ)
        np.testing.assert_array_equal(a.class_NCXYZ, b.class_NCXYZ)


def test_a_scan_that_cannot_be_read_is_named(store, source):
    shard = next((store.root / "scans/phantom/01/0").rglob("*.0.0"))
    shard.write_bytes(b"")
    plan = CropPlan(source.scans[1], Size(0, 0, 0), (False,) * 3, 0, 0.0)
    with pytest.raises(ScanReadError, match="Crop of scan 'phantom/01' cannot be read"):
        read_crops(store, [plan], SETTINGS)


def test_the_window_clips_at_both_ends():
    assert windowed(np.array([-1000, -175, 250, 3000], np.int16), (-175, 250)).tolist() == [
        0,
        0,
        1,
        1,
    ]
