"""The loader's benchmark: what is compared is equal, and a wrong or dead peer is no number."""

import os

import numpy as np
import pytest

from vocodata.geometry import Size
from vocotrain.bench_loader import LoaderSettings, bench_loader, goals, resolve_settings, table
from vocotrain.bench_loader import readers as peers
from vocotrain.bench_loader import scaling as scaling_module
from vocotrain.bench_loader.measuring import Row, differing, measured
from vocotrain.bench_loader.readers import BASELINE, open_all
from vocotrain.bench_loader.running import LoaderReport
from vocotrain.bench_loader.scaling import NOTHING_SHARED, Scaling, scaling
from vocotrain.bench_loader.settings import CROPS
from vocotrain.bench_loader.volumes import ct_like, write_all
from vocotrain.errors import BenchmarkError

# As small as a volume may be that holds every crop.
SIZE = Size(192, 192, 96)
SETTINGS = LoaderSettings((SIZE,), 1, 1, ("default",), 1, 0.01, is_quick=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    write_all(folder, [ct_like(0, SIZE)], is_quick=True)
    return folder


def _zeros(_folder, _volumes):
    return lambda _number, _start, size: np.zeros(size, np.int16)


def _deadly(_folder, _volumes):
    return lambda _number, _start, _size: os._exit(3)


def test_every_reader_gives_the_same_voxels(written):
    readers = open_all(written, 1, {})
    assert {BASELINE, "voco zstd", "voco lz4", "np.memmap float32"} <= set(readers)
    assert differing(readers, written, 1, SIZE) == []


def test_a_peer_whose_package_is_missing_is_left_out(written, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(peers.importlib, "import_module", missing)
    readers = open_all(written, 1, {})
    assert BASELINE in readers
    assert not any("tensorstore" in name or "b2nd" in name for name in readers)


@pytest.mark.parametrize(
    ("other", "words"),
    [({"zeros": _zeros}, "zeros: not the voxels"), ({"deadly": _deadly}, "it died")],
)
def test_a_reader_that_is_wrong_or_dies_gives_no_numbers(written, other, words):
    with pytest.raises(BenchmarkError, match=words):
        measured(written, SIZE, "default", SETTINGS, other)


@pytest.mark.slow
def test_a_run_measures_every_crop_and_cleans_up(tmp_path):
    said = []
    report = bench_loader(SETTINGS, said.append, folder=tmp_path)
    assert {row.crop for row in report.rows} == set(CROPS)
    assert all(row.wall_ms > 0 for row in report.rows)
    assert report.bytes_per_voxel["voco-zstd.zarr"] < 1.2
    assert set(report.scaling) == {"zstd", "lz4", NOTHING_SHARED}
    assert list(tmp_path.iterdir()) == []
    assert any("two processes" in text for text in said)
    header, lines = table(report)
    assert {len(line) for line in lines} == {len(header)}


def test_two_processes_without_a_store_give_no_number(tmp_path):
    with pytest.raises(BenchmarkError, match=r"two that are compared with one \(zstd\) died"):
        scaling(tmp_path, SIZE, 1, window_s=0.01)


class _Process:
    """The end of a pipe behind which somebody works, slower while the other does if both share."""

    working = 0

    def __init__(self, rate, *, is_sharing, is_hanging=False):
        self.rate, self.is_sharing, self.is_hanging = rate, is_sharing, is_hanging

    def send(self, _work):
        _Process.working += 1

    def poll(self, _patience_s):
        return not self.is_hanging

    def recv(self):
        if self.is_sharing and _Process.working == 2:
            return self.rate / 2
        return self.rate


@pytest.mark.parametrize(("is_sharing", "times"), [(False, 2.0), (True, 1.0)])
def test_a_slower_process_is_no_sharing_and_a_lock_is(monkeypatch, is_sharing, times):
    pair = [_Process(rate, is_sharing=is_sharing) for rate in (20.0, 10.0)]
    per_second = scaling_module._per_second

    def counted(pipes, work, window_s):
        monkeypatch.setattr(_Process, "working", 0)
        return per_second(pipes, work, window_s)

    monkeypatch.setattr(scaling_module, "_per_second", counted)
    found = scaling_module.turn(pair, "zstd", 0.1)
    assert found.together == pytest.approx(times)
    # To wait for the slower says less, though it was as slow alone.
    assert found.by_slower == pytest.approx(times * 2 / 3)


def test_a_process_that_hangs_gives_no_number():
    pair = [_Process(1.0, is_sharing=False, is_hanging=True) for _ in range(2)]
    with pytest.raises(BenchmarkError, match="died or hangs"):
        scaling_module.turn(pair, "zstd", 0.1)


def _report(ours_ms):
    rows = [
        Row(SIZE, malloc, crop, reader, ms, ms, 1.0, disk)
        for malloc in ("default", "tuned")
        for crop in CROPS
        for reader, ms, disk in [(BASELINE, 40.0, 65.0), ("voco zstd", ours_ms, 4.0)]
    ]
    scales = {"zstd": 1.9, "lz4": 1.7, NOTHING_SHARED: 1.8}
    found = {work: Scaling(times, 1.0, 2.0, 1.5) for work, times in scales.items()}
    return LoaderReport("a machine", tuple(rows), {}, found)


def test_a_goal_is_met_or_missed_by_what_was_measured():
    def verdicts(ours_ms):
        return {line[0]: line[2:] for line in goals(_report(ours_ms))[1]}

    name = f"voco zstd over {BASELINE}, field, default malloc"
    assert verdicts(5.0)[name] == ("8.00", "met")
    assert verdicts(20.0)[name] == ("2.00", "MISSED")
    assert verdicts(5.0)["bytes from disk for a field, .pt over zstd"] == ("16.25", "met")
    processes = {
        name.partition(" (")[0].rpartition(", ")[2]: line
        for name, line in verdicts(5.0).items()
        if name.startswith("two processes")
    }
    assert processes == {
        "zstd": ("1.90", "met"),
        "lz4": ("1.70", "MISSED"),
        NOTHING_SHARED: ("1.80", "busy machine: measure again"),
    }
    assert not any("tensorstore" in name for name in verdicts(5.0))


def test_a_quick_run_is_a_part_of_the_whole_one():
    quick, whole = resolve_settings(is_quick=True), resolve_settings(is_quick=False)
    assert set(quick.volumes_vox) < set(whole.volumes_vox)
    assert quick.rounds < whole.rounds
