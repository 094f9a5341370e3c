import collections
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training_store import SHAPES, write_store
from vocodata.geometry import Size
from vocodata.store import open_store
from vocotrain.data import Batches, FieldSource, read_batch
from vocotrain.errors import LoaderDiedError, ScanReadError
from vocotrain.fields import FieldSettings, plan_field
from vocotrain.scan_table import read_scan_table

SETTINGS = FieldSettings(
    grid=Size(2, 2, 1), crop_vox=Size(16, 16, 32), crops=2, shift_probability=1.0, shift_range=0.1
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    shapes = {**SHAPES, "small/e": (20, 40, 12), "squeezed/f": (50, 50, 50)}
    return write_store(tmp_path_factory.mktemp("data") / "ct.zarr", shapes, fields=("squeezed/f",))


@pytest.fixture
def store(folder):
    return open_store(folder)


def source(store, **more):
    table = read_scan_table(store, SETTINGS.field_vox)
    return FieldSource(store, table, SETTINGS, **{"seed": 3, "batch_size": 4, **more})


def source_scans(store, step):
    return [plan.scan.id for plan in source(store).plans(step)]


def equal(a, b):
    names = [name for name, value in vars(a).items() if isinstance(value, torch.Tensor)]
    same = all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)
    return len(names) == 8 and a.scans == b.scans and same


def plan_of(store, scan_id, settings=SETTINGS):
    table = read_scan_table(store, settings.field_vox)
    return plan_field(table.only(store.ids().index(scan_id)), settings, seed=0, sample_index=5)


def test_a_field_is_the_planned_box_of_the_scan(store):
    plan = plan_of(store, "clinic/b")
    batch = read_batch(store, [plan], SETTINGS)
    whole = store.read("clinic/b", (0, 0, 0), SHAPES["clinic/b"])
    x, y, z = plan.start_XYZ
    assert min(plan.start_XYZ) >= 0
    np.testing.assert_array_equal(batch.field_BXYZ[0], whole[x : x + 32, y : y + 32, z : z + 32])


def test_a_small_scan_lies_in_air_in_the_middle(store):
    field = read_batch(store, [plan_of(store, "small/e")], SETTINGS).field_BXYZ[0].numpy()
    y = plan_of(store, "small/e").start_XYZ.y
    inside = field[6:26, :, 10:22]
    np.testing.assert_array_equal(inside, store.read("small/e", (0, y, 0), (20, 32, 12)))
    outside = np.ones(field.shape, bool)
    outside[6:26, :, 10:22] = False
    assert (field[outside] == -1024).all()


def test_a_squeezed_scan_is_taken_whole(store):
    plan = plan_of(store, "squeezed/f")
    batch = read_batch(store, [plan], SETTINGS)
    np.testing.assert_array_equal(batch.field_BXYZ[0], store.read_field("squeezed/f"))


def test_a_squeezed_field_of_another_size_is_not_used(store):
    settings = FieldSettings(grid=Size(2, 2, 1), crop_vox=Size(8, 8, 16), crops=1)
    table = read_scan_table(store, settings.field_vox)
    row = table.rows[store.ids().index("squeezed/f")]
    assert not row.is_squeezed
    assert row.shape_XYZ == Size(50, 50, 50)


def test_mirroring_the_whole_field_mirrors_what_crops_show(store):
    settings = FieldSettings(
        grid=Size(2, 2, 1), crop_vox=Size(16, 16, 32), crops=2, field_flips=(1.0, 0.0, 1.0)
    )
    plain = FieldSettings(grid=Size(2, 2, 1), crop_vox=Size(16, 16, 32), crops=2)
    mirrored = read_batch(store, [plan_of(store, "clinic/a", settings)], settings)
    straight = read_batch(store, [plan_of(store, "clinic/a", plain)], plain)
    assert torch.equal(mirrored.field_BXYZ, straight.field_BXYZ.flip(1, 3))
    assert torch.equal(mirrored.label_BNK, straight.label_BNK)


def test_rows_are_random_crops_of_all_volumes_then_cells_of_all_volumes(store):
    batch = source(store)[0]
    marks = torch.arange(4 * 6).view(4, 6)
    assert batch.rows(marks).tolist() == [
        *(0, 1, 6, 7, 12, 13, 18, 19),
        *(2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 16, 17, 20, 21, 22, 23),
    ]
    crops = batch.crop_rows()
    assert crops.shape == (24, 1, 16, 16, 32)
    start, field = batch.start_BM3[1, 0].tolist(), batch.field_BXYZ[1].float()
    window = field[start[0] : start[0] + 16, start[1] : start[1] + 16]
    expected = ((window + 175) / 425).clamp(0, 1) + batch.shift_BM[1, 0]
    torch.testing.assert_close(crops[2, 0], expected)


def test_processes_share_the_batch_that_one_process_makes(store):
    whole = source(store)[7]
    parts = [source(store, rank=rank, world=2)[7] for rank in (0, 1)]
    assert parts[0].scans + parts[1].scans == whole.scans
    for name in ("field_BXYZ", "start_BM3", "label_BNK", "shift_BM"):
        together = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(together, getattr(whole, name))


def test_batches_come_in_order_from_any_step(store):
    batches = Batches(source(store), range(3, 6), device=CPU, workers=0, prefetch_batches=2)
    for step in (3, 4, 5):
        assert equal(batches.next(), source(store)[step])
    assert batches.waited_s > 0
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fields")]


def test_closing_early_leaves_no_thread(store):
    batches = Batches(source(store), range(100), device=CPU, workers=0, prefetch_batches=3)
    batches.next()
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("fields")]


@pytest.mark.slow
def test_loader_processes_make_the_same_batches(store):
    batches = Batches(source(store), range(2, 6), device=CPU, workers=2, prefetch_batches=1)
    try:
        for step in range(2, 6):
            assert equal(batches.next(), source(store)[step])
    finally:
        batches.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_loader_process_that_was_killed_is_told_with_what_to_do(store):
    batches = Batches(source(store), range(200), device=CPU, workers=1, prefetch_batches=1)
    try:
        batches.next()
        (worker,) = batches._made._workers
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(LoaderDiedError, match=r"was killed, mostly because memory .*--resume"):
            collections.deque((batches.next() for _ in range(50)), maxlen=0)
    finally:
        batches.close()


TRAINS = """
import sys, time
import torch
from tests.vocotrain.test_data import source
from vocodata.store import open_store
from vocotrain.data import Batches
if __name__ == "__main__":
    made = source(open_store(sys.argv[1]))
    batches = Batches(made, range(9), device=torch.device("cpu"), workers=1, prefetch_batches=1)
    batches.next()
    print(batches._made._workers[0].pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_no_loader_process(folder):
    words = [sys.executable, "-c", TRAINS, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        worker = Path(f"/proc/{run.stdout.readline().strip()}")
        assert worker.exists()
        run.kill()
    for _ in range(100):
        if not worker.exists():
            return
        time.sleep(0.1)
    os.kill(int(worker.name), signal.SIGKILL)
    pytest.fail("the loader process lives on")


def test_other_faults_of_a_loader_stay_what_they_are(store):
    def made():
        yield source(store)[0]
        msg = "stack expects each tensor to be equal size"
        raise RuntimeError(msg)

    batches = Batches(source(store), range(1), device=CPU, workers=0, prefetch_batches=1)
    batches._made = made()
    batches.next()
    with pytest.raises(RuntimeError, match="equal size") as caught:
        batches.next()
    assert not isinstance(caught.value, LoaderDiedError)
    batches.close()


def test_a_source_travels_to_another_process(store):
    there = pickle.loads(pickle.dumps(source(store)))
    assert equal(there[4], source(store)[4])


def test_a_scan_that_cannot_be_read_is_named(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "ct.zarr")
    for shard in (copy / "scans/trial/d").rglob("c*"):
        if shard.is_file():
            shard.unlink()
    store = open_store(copy)
    with pytest.raises(ScanReadError, match=r"Scan 'trial/d' cannot be read .* `voco data verify`"):
        read_batch(store, [plan_of(store, "trial/d")], SETTINGS)
    lost = next(step for step in range(50) if "trial/d" in source_scans(store, step))
    batches = Batches(source(store), range(lost, 60), device=CPU, workers=0, prefetch_batches=1)
    with pytest.raises(ScanReadError, match="trial/d"):
        batches.next()
    batches.close()
