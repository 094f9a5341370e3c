import shutil
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import StoreError
from vocodata.forecast import forecast_build, forecast_scan, peak_bytes
from vocodata.geometry import Header, Size
from vocodata.ingest import process_scan
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.store.writer import write_scan


def test_disk_is_an_upper_guess_of_what_the_build_writes(make_sources, tmp_path):
    manifest = make_sources(4, size=(60, 50, 40))
    forecast = forecast_build(load_manifest(manifest), tmp_path / "ct.zarr")
    assert not (tmp_path / "ct.zarr").exists()
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert report.bytes_written <= forecast.bytes <= 12 * report.bytes_written
    assert (forecast.scans, forecast.headers_read, forecast.unreadable) == (4, 4, {})
    assert forecast.fits
    assert forecast.largest.startswith("btcv/case")


def test_headers_that_keep_scans_out_are_counted_by_reason(make_sources, tmp_path):
    manifest = make_sources(4, broken=[1, 2])
    forecast = forecast_build(load_manifest(manifest), tmp_path / "ct.zarr")
    assert forecast.unreadable == {"wrong_magic": 2}


def test_some_headers_stand_for_all(make_sources, tmp_path):
    manifest = load_manifest(make_sources(9))
    every = forecast_build(manifest, tmp_path / "s")
    some = forecast_build(manifest, tmp_path / "s", headers=3)
    assert (every.headers_read, some.headers_read) == (9, 3)
    assert some.bytes == every.bytes


def test_another_count_is_told(make_sources, tmp_path):
    path = make_sources(2)
    path.write_text(path.read_text().replace('"weight"', '"expected": 30, "weight"'))
    forecast = forecast_build(load_manifest(path), tmp_path / "s")
    assert forecast.count_faults == ("Source 'btcv' holds 2 scans; expected 30.",)
    assert forecast.sources[0].expected == 30


def test_a_full_disk_is_foreseen(make_sources, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10_000, 9_000, 1_000)
    monkeypatch.setattr("vocodata.forecast.shutil.disk_usage", lambda _: usage)
    forecast = forecast_build(load_manifest(make_sources(2)), tmp_path / "s")
    assert (forecast.free_bytes, forecast.fits) == (1_000, False)


def test_an_unknown_codec_is_refused(make_sources, tmp_path):
    with pytest.raises(StoreError, match="zip"):
        forecast_build(load_manifest(make_sources(1)), tmp_path / "s", codec="zip")


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("labels", [False, True])
def test_memory_is_foreseen_within_half_and_never_too_low(make_sources, tmp_path, labels, kind):
    manifest = make_sources(1, size=(100, 90, 80), labels=labels)
    (scan,) = find_scans(load_manifest(manifest))
    image = nib.load(scan.image)
    data = np.asarray(image.dataobj) + (kind(0.25) if kind == np.float32 else kind(0))
    nib.save(nib.Nifti1Image(np.maximum(data.astype(kind), -170), image.affine), scan.image)
    (tmp_path / "st").mkdir()
    _store(scan, tmp_path / "st")  # what is compiled and imported stays out of it
    tracemalloc.start()
    _store(scan, tmp_path / "st")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    foreseen = forecast_scan(scan).peak_bytes
    assert 0.98 * peak <= foreseen <= 1.5 * peak, (peak, foreseen)


def _store(scan, root):
    write_scan(root, scan, process_scan(scan, preset("abdomen")), "zstd")


def test_memory_grows_with_the_kind_of_numbers():
    small = Header(Size(10, 10, 10), np.eye(4), np.dtype("i2"))
    large = Header(Size(10, 10, 10), np.eye(4), np.dtype("f8"))
    one, other = (peak_bytes(h, 100, has_labels=False) for h in (small, large))
    assert (one, other) == (4000, 14000)
