import shutil

import pytest

from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import StoreError
from vocodata.forecast import expect, forecast_build, forecast_scan
from vocodata.ingest import predicted_bytes
from vocodata.manifest import load_manifest
from vocodata.memory import room_bytes
from vocodata.presets import preset
from vocodata.readers import read_header


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
    (fault,) = forecast.count_faults
    assert fault.startswith("Source 'btcv' holds 2 scans; expected 30.")
    assert forecast.sources[0].expected == 30


def test_a_full_disk_is_foreseen(make_sources, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10_000, 9_000, 1_000)
    monkeypatch.setattr("vocodata.forecast.shutil.disk_usage", lambda _: usage)
    forecast = forecast_build(load_manifest(make_sources(2)), tmp_path / "s")
    assert (forecast.free_bytes, forecast.fits) == (1_000, False)


def test_an_unknown_codec_is_refused(make_sources, tmp_path):
    with pytest.raises(StoreError, match="zip"):
        forecast_build(load_manifest(make_sources(1)), tmp_path / "s", codec="zip")


def test_time_and_memory_are_foretold(make_sources, tmp_path):
    manifest = load_manifest(make_sources(2, size=(60, 50, 40)))
    forecast = forecast_build(manifest, tmp_path / "s")
    (scan, _) = find_scans(manifest)
    one = forecast_scan(scan)
    assert one.seconds == pytest.approx(60 * 50 * 40 * 5e-9 + one.voxels * 10e-9)
    assert forecast.seconds == pytest.approx(2 * one.seconds)
    assert (
        forecast.peak_bytes
        == one.peak_bytes
        == predicted_bytes(scan, read_header(scan.image), preset(scan.preset))
    )
    assert room_bytes(forecast.worker_bytes) >= forecast.peak_bytes


def test_an_expectation_is_a_forecast_of_some_headers(make_sources, tmp_path):
    manifest = load_manifest(make_sources(9, broken=[0]))
    expected, forecast = expect(find_scans(manifest), "zstd"), forecast_build(manifest, tmp_path)
    assert (expected.scans, expected.headers_read) == (9, 9)
    assert expected.bytes == pytest.approx(forecast.bytes, abs=9)
    assert expected.seconds == pytest.approx(forecast.seconds)
    few = expect(find_scans(manifest), "zstd", headers=3)
    assert few.headers_read == 3
    assert expect([], "zstd").bytes == 0


def test_a_header_that_nobody_foresaw_ends_no_build(make_sources, tmp_path, monkeypatch):
    def trip(*_, **__):
        msg = "cannot reshape"
        raise ValueError(msg)

    monkeypatch.setattr("vocodata.forecast.read_header", trip)
    manifest = make_sources(2)
    forecast = forecast_build(load_manifest(manifest), tmp_path / "ct.zarr")
    assert forecast.unreadable == {"unexpected_error": 2}
    assert build(manifest, tmp_path / "ct.zarr", workers=0).stored == 2
