"""HU in steps: what becomes of them, where that is written, and what it leaves as it was."""

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.vocodata.bodies import body, save_body
from vocodata.building import build, build_status
from vocodata.curation_report import write_curation_report
from vocodata.discover import find_scans
from vocodata.errors import StoreError
from vocodata.forecast import expect, forecast_build
from vocodata.geometry import Volume
from vocodata.hu_steps import STEPS_HU, checked_step, in_steps
from vocodata.ingest import scan_stats
from vocodata.leaks import find_leaks
from vocodata.ledger import Ledger
from vocodata.manifest import load_manifest
from vocodata.plan import make_plan, predict_size
from vocodata.recipe import scan_recipe, store_recipe
from vocodata.statistics import store_statistics
from vocodata.store import open_store, verify
from vocodata.store.catalog import CATALOG_NAME
from vocodata.store.root import read_attributes, root_bytes

EVERY_HU = np.arange(-32768, 32768).astype(np.int16).reshape(64, 32, 32)
LOSSY = [step_hu for step_hu in STEPS_HU if step_hu > 1]


def _stepped(data_XYZ, step_hu):
    return in_steps(Volume(data_XYZ, np.eye(4)), step_hu).data_XYZ


def _whole(store, scan):
    return store.read(scan, (0, 0, 0), store.info(scan).shape_XYZ)


@pytest.fixture
def both(make_sources, tmp_path):
    """A lossless store and one at a step of 4, of the same scans, with labels and a field."""
    make_sources(2, labels=True)
    manifest = make_sources(1, name="abdo", preset="abdomen-squeezed", size=(48, 40, 30))
    stores = [
        build(manifest, tmp_path / f"{step_hu}.zarr", workers=0, step_hu=step_hu).store
        for step_hu in (1, 4)
    ]
    return [open_store(store) for store in stores]


@pytest.mark.parametrize("step_hu", LOSSY)
def test_every_hu_becomes_the_nearest_multiple_as_rint_has_it(step_hu):
    expected = np.rint(EVERY_HU.astype(np.float64) / step_hu) * step_hu
    fits = expected <= 32767
    stepped = _stepped(EVERY_HU, step_hu)
    np.testing.assert_array_equal(stepped[fits], expected[fits])
    assert (stepped % step_hu == 0).all()
    off_hu = np.abs(stepped.astype(int) - EVERY_HU)
    assert off_hu[fits].max() == step_hu / 2
    # The last values of int16 have no multiple above them.
    assert set(stepped[~fits]) == {32768 - step_hu}
    # On average nothing is moved.
    assert abs(stepped[fits].mean() - EVERY_HU[fits].mean()) < 1e-3


@pytest.mark.parametrize("step_hu", STEPS_HU)
def test_the_fill_value_stays_and_steps_are_not_taken_twice(step_hu):
    once = _stepped(EVERY_HU, step_hu)
    assert set(once[EVERY_HU == -1024]) == {-1024}
    np.testing.assert_array_equal(_stepped(once, step_hu), once)


def test_negative_hu_and_ties_go_to_the_even_multiple():
    hu = np.array([-1025, -1023, -7, -6, -5, -2, -1, 1, 2, 5, 6, 7], np.int16).reshape(-1, 1, 1)
    two = [-1024, -1024, -8, -6, -4, -2, 0, 0, 2, 4, 6, 8]
    four = [-1024, -1024, -8, -8, -4, 0, 0, 0, 0, 4, 8, 8]
    assert _stepped(hu, 2).ravel().tolist() == two
    assert _stepped(hu, 4).ravel().tolist() == four


def test_a_mirrored_view_is_read_as_it_is_seen():
    view = EVERY_HU[::-1, :, ::-1]
    np.testing.assert_array_equal(_stepped(view, 4), _stepped(view.copy(), 4))


def test_a_step_of_1_is_the_volume_itself():
    volume = Volume(EVERY_HU, np.eye(4))
    assert in_steps(volume, 1) is volume


def test_image_and_field_are_in_steps_and_labels_grid_and_provenance_are_not(both):
    fine, coarse = both
    assert fine.ids() == coarse.ids()
    for scan in fine.ids():
        np.testing.assert_array_equal(_whole(coarse, scan), _stepped(_whole(fine, scan), 4))
        one, other = fine.row(scan), coarse.row(scan)
        assert one.digest != other.digest
        same = ("shape_xyz", "affine", "fingerprint", "source_digest", "label_digest", "quality")
        assert all(getattr(one, name) == getattr(other, name) for name in same)
        assert other.bytes < one.bytes
    field = fine.read_field("abdo/case0")
    np.testing.assert_array_equal(coarse.read_field("abdo/case0"), _stepped(field, 4))
    size = coarse.info("btcv/case1").shape_XYZ
    labels = [store.read_label("btcv/case1", (0, 0, 0), size) for store in both]
    np.testing.assert_array_equal(*labels)
    assert coarse.read("btcv/case1", (-3, 0, 0), (2, 2, 2)).max() == -1024


def test_the_step_is_written_in_the_root_the_catalogue_and_every_scan(both, tmp_path):
    for store, step_hu in zip(both, (1, 4), strict=True):
        assert read_attributes(store.root)["step_hu"] == step_hu
        assert {store.row(scan).step_hu for scan in store.ids()} == {step_hu}
        assert build_status(store.root)["step_hu"] == step_hu
        assert store_statistics(store)["step_hu"] == store.summary()["step_hu"] == step_hu
        scan = json.loads((store.root / "scans/btcv/case0/zarr.json").read_text())
        assert scan["attributes"]["voco"].get("step_hu", 1) == step_hu
        page = write_curation_report(store.root, tmp_path / "page.html").read_text()
        assert ("rounded to multiples of 4" in page) is (step_hu == 4)
        assert verify(store).ok


def test_statistics_are_of_the_voxels_that_are_stored(both):
    coarse = both[1]
    row = coarse.row("btcv/case0")
    stats = scan_stats(Volume(_whole(coarse, "btcv/case0"), np.eye(4)))
    assert (row.hu_min, row.hu_max, row.hu_p50) == (stats.hu_min, stats.hu_max, stats.hu_p50)
    assert (row.hu_mean, row.hu_std) == pytest.approx((stats.hu_mean, stats.hu_std))


def test_the_step_is_part_of_the_recipe_and_1_is_the_recipe_of_before(make_sources):
    scans = find_scans(load_manifest(make_sources(2)))
    steps = {step_hu: scan_recipe(scans[0], "zstd", step_hu=step_hu) for step_hu in STEPS_HU}
    assert len(set(steps.values())) == 3
    assert steps[1] == scan_recipe(scans[0], "zstd")
    assert store_recipe(scans, "zstd", step_hu=1) == store_recipe(scans, "zstd")
    assert store_recipe(scans, "zstd", step_hu=2) != store_recipe(scans, "zstd")
    with pytest.raises(StoreError, match="A step of 3 HU is not known; expected one of 1, 2, 4"):
        scan_recipe(scans[0], "zstd", step_hu=3)


def test_another_step_builds_all_anew_and_none_goes_on_as_it_was(
    make_sources, tmp_path, tree, caplog
):
    manifest = make_sources(2)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    with caplog.at_level("WARNING"):
        again = build(manifest, out, workers=0, resume=True, step_hu=4)
    assert "2 scans of" in caplog.text
    assert "another preset, step of HU, codec or version; they are made again" in caplog.text
    assert (again.skipped_done, again.stored) == (0, 2)
    assert build(manifest, out, workers=0, resume=True).skipped_done == 2
    assert tree(out) == tree(build(manifest, tmp_path / "4.zarr", workers=0, step_hu=4).store)
    # The root knows when the ledger is lost, and the ledger when the root is.
    (tmp_path / "ct.zarr.ledger.sqlite").unlink()
    build(manifest, out, workers=0, resume=True)
    assert build_status(out)["step_hu"] == 4
    (out / "zarr.json").write_text("{")
    build(manifest, out, workers=0, resume=True)
    assert tree(out) == tree(tmp_path / "4.zarr")
    assert build_status(build(manifest, out, workers=0, overwrite=True).store)["step_hu"] == 1


def test_an_unknown_step_is_refused_before_anything_is_noted(make_sources, tmp_path):
    manifest = make_sources(1)
    with pytest.raises(StoreError, match="A step of 3 HU is not known"):
        build(manifest, tmp_path / "ct.zarr", workers=0, step_hu=3)
    with pytest.raises(StoreError, match="A step of 8 HU is not known"):
        forecast_build(load_manifest(manifest), tmp_path / "ct.zarr", step_hu=8)
    build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert build_status(tmp_path / "ct.zarr")["step_hu"] == 1
    for wrong in ({"step_hu": 3}, {"codec": "gzip"}):
        with pytest.raises(StoreError, match="is not known"):
            build(manifest, tmp_path / "ct.zarr", workers=0, overwrite=True, **wrong)
    assert len(open_store(tmp_path / "ct.zarr")) == 1


def test_what_equals_a_step_is_that_step():
    assert [type(checked_step(step)) for step in (True, 2.0, 4)] == [int] * 3


def _as_it_was_written_before_steps(store):
    """Take the word away everywhere: from the root, the catalogue and the ledger."""
    table = pq.read_table(store / CATALOG_NAME).drop_columns(["step_hu"])
    pq.write_table(table, store / CATALOG_NAME)
    attributes = read_attributes(store)
    del attributes["step_hu"], attributes["check"]
    digest = hashlib.sha256((store / CATALOG_NAME).read_bytes()).hexdigest()
    attributes["files"][CATALOG_NAME] = digest
    (store / "zarr.json").write_bytes(root_bytes(attributes))
    with Ledger(store.with_name(f"{store.name}.ledger.sqlite")) as book:
        book._db.execute("UPDATE scans SET row = json_remove(row, '$.step_hu')")
        book._db.execute("DELETE FROM meta WHERE key = 'step_hu'")


def test_a_store_that_says_nothing_of_steps_has_every_hu_and_goes_on(make_sources, tmp_path):
    manifest = make_sources(2)
    out = build(manifest, tmp_path / "ct.zarr", workers=0).store
    _as_it_was_written_before_steps(out)
    store = open_store(out)
    assert (store.row("btcv/case0").step_hu, store.summary()["step_hu"]) == (1, 1)
    assert (build_status(out)["step_hu"], verify(out).problems) == (1, [])
    again = build(manifest, out, workers=0, resume=True)
    assert (again.skipped_done, again.bytes_written, again.digest) == (2, 0, store.digest)
    assert verify(out).ok


def test_a_larger_step_is_foreseen_to_take_less(make_sources, tmp_path):
    manifest = load_manifest(make_sources(2, size=(60, 50, 40)))
    scans = find_scans(manifest)
    foreseen = [
        [
            forecast_build(manifest, tmp_path / "s", step_hu=step_hu).bytes,
            expect(scans, "zstd", step_hu=step_hu).bytes,
            predict_size(make_plan(scans, {}, tmp_path / "s", "zstd", step_hu=step_hu)).bytes,
        ]
        for step_hu in STEPS_HU
    ]
    assert (np.diff(foreseen, axis=0) < 0).all()
    report = build(manifest, tmp_path / "ct.zarr", workers=0, step_hu=4)
    assert report.bytes_written <= foreseen[2][0]


def test_copies_are_found_between_a_lossless_and_a_lossy_store(doubled, tmp_path):
    """Fingerprints are of the files, so a step takes nothing from them: copies stay exact."""
    lossy = build(doubled / "a.yaml", tmp_path / "lossy.zarr", workers=0, step_hu=4).store
    report = find_leaks(doubled / "a.zarr", lossy)
    kinds = {(leak.kind, leak.scan, leak.against) for leak in report.leaks}
    assert kinds == {("exact", f"a/s{seed}", f"a/s{seed}") for seed in range(3)}
    shards = [
        {open_store(s).info(f"a/s{n}").digest for s in (doubled / "a.zarr", lossy)}
        for n in range(3)
    ]
    assert [len(digests) for digests in shards] == [2, 2, 2]


def test_a_file_whose_own_hu_are_in_steps_is_a_near_copy(doubled, tmp_path):
    """As when voxels of a lossy store were written to files: other voxels, so not exact."""
    for step_hu in LOSSY:
        save_body(tmp_path / "there", f"s{step_hu}", _stepped(body(1).data_XYZ, step_hu))
    report = find_leaks(doubled / "a.zarr", tmp_path / "there")
    found = [(leak.kind, leak.scan, leak.against) for leak in report.leaks]
    assert found == [("near", "a/s1", f"against/s{step_hu}") for step_hu in LOSSY]
