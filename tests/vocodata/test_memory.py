"""The memory that a header foretells is enough, and not far too much."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.vocodata.dicom_series import write_enhanced, write_series
from vocodata.discover import find_scans
from vocodata.errors import NotEnoughMemoryError
from vocodata.geometry import Header, Size
from vocodata.ingest import predicted_bytes, process_scan
from vocodata.manifest import load_manifest
from vocodata.memory import PROCESS_BYTES, limit_for, peak_bytes, room_bytes, usable_memory
from vocodata.presets import preset
from vocodata.readers import read_header

PROGRAM = "tests.vocodata.measured_memory"
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
@pytest.mark.parametrize(
    ("ending", "kind", "slope", "labels", "size"),
    [
        ("nii.gz", "int16", 1, "none", (320, 320, 160)),
        ("nii.gz", "int16", 0.999, "none", (320, 320, 160)),
        ("leaning.nii.gz", "int16", 1, "none", (320, 320, 160)),
        ("nii.gz", "float32", 1, "uint8", (256, 256, 160)),
        ("nii.gz", "int16", 1, "float64", (256, 256, 160)),
        ("dicom", "int16", 1, "none", (320, 320, 80)),
        ("dicom", "int16", 0.999, "none", (320, 320, 80)),
        ("nrrd", "int32", 1, "none", (256, 256, 160)),
    ],
)
def test_what_is_measured_is_at_most_what_was_predicted_and_at_least_half(
    tmp_path, ending, kind, slope, labels, size
):
    how = map(str, (ending, kind, slope, labels, *size, tmp_path))
    command = [sys.executable, "-m", PROGRAM, *how]
    # An allocator told to keep what is freed would have the memory before it is measured.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=clean, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["grown"] <= found["predicted"] <= 2 * found["grown"], found


def test_memory_grows_with_the_kind_of_numbers_the_grid_the_field_and_the_labels():
    def peak(hu="i2", read=2, grid=1000, tilt=0.0, order=(0, 1, 2, 3), **more):
        kinds = (np.dtype("i2"), tilt, np.dtype(hu), read)
        return peak_bytes(Header(Size(99, 99, 99), np.eye(4)[list(order)], *kinds), grid, **more)

    labels = Header(Size(99, 99, 99), np.eye(4), np.dtype("f8"))
    assert peak() < peak("f4") < peak("f4", read=12)
    assert peak() < peak(tilt=9.0) < peak("f4", tilt=9.0)
    assert peak("f4", grid=500_000) < peak("f4", grid=500_000, order=(1, 2, 0, 3))
    assert peak() < peak(grid=9_000_000) < peak(grid=9_000_000, field_voxels=1_000_000)
    assert peak() < peak(labels=labels) < peak(labels=replace(labels, read_bytes=16))


@pytest.mark.parametrize(
    ("kind", "slope", "intercept", "hu_kind", "read_bytes"),
    [
        ("<i2", 1, 0, "i2", 2),
        ("<i2", 0.999, 0, "f4", 4),
        (">i2", 1, -1024, "f4", 4),
        ("<u1", 2, -100, "i2", 3),
        ("<u1", 1, 0.5, "f4", 4),
        ("<f8", 1, 0, "f4", 10),
    ],
)
def test_a_nifti_header_says_what_hu_may_come_to(
    tmp_path, kind, slope, intercept, hu_kind, read_bytes
):
    data = np.zeros((4, 5, 6), kind)
    made = nib.Nifti1Image(data, np.eye(4), nib.Nifti1Header(endianness=kind[0]), dtype=kind)
    made.header.set_slope_inter(slope, intercept)
    made.to_filename(tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii")
    assert (header.hu_dtype, header.read_bytes) == (np.dtype(hu_kind), read_bytes)


@pytest.mark.parametrize(
    ("bits", "slope", "hu_kind"), [(12, 1, "i2"), (12, 0.5, "f4"), (16, 1, "f4")]
)
@pytest.mark.parametrize("frames", [1, 6])
def test_a_dicom_header_says_what_hu_may_come_to(tmp_path, bits, slope, hu_kind, frames):
    stored = {"BitsStored": bits, "HighBit": bits - 1}
    if frames == 1:
        folder = write_series(tmp_path / "d", change=lambda _: stored | {"RescaleSlope": slope})
    else:

        def change(made):
            made.BitsStored, made.HighBit = stored.values()
            for group in made.PerFrameFunctionalGroupsSequence:
                group.PixelValueTransformationSequence[0].RescaleSlope = slope

        folder = write_enhanced(tmp_path / "d", change=change)
    header = read_header(folder)
    assert header.hu_dtype == np.dtype(hu_kind)
    assert header.read_bytes == header.hu_dtype.itemsize + (0 if frames == 1 else 2)


def test_a_scan_too_large_for_the_room_is_told_before_it_is_read(make_sources):
    (scan,) = find_scans(load_manifest(make_sources(1, size=(60, 50, 40), labels=True)))
    needed = predicted_bytes(scan, read_header(scan.image), preset(scan.preset))
    assert process_scan(scan, preset(scan.preset), room_bytes=needed).stats.hu_max > 0
    with pytest.raises(NotEnoughMemoryError, match=r"case0: Processing takes up to 0\.\d+ GB") as e:
        process_scan(scan, preset(scan.preset), room_bytes=needed - 1)
    assert e.value.needed_bytes == needed
    assert (e.value.code, pickle.loads(pickle.dumps(e.value)).needed_bytes) == (
        "out_of_memory",
        needed,
    )


def test_labels_that_cannot_be_read_are_not_the_predictions_business(make_sources):
    (scan,) = find_scans(load_manifest(make_sources(1, labels=True)))
    header = read_header(scan.image)
    with_labels = predicted_bytes(scan, header, preset(scan.preset))
    scan.labels.write_bytes(b"no labels")
    assert predicted_bytes(scan, header, preset(scan.preset)) <= with_labels


def test_a_containers_limit_is_what_may_be_used(tmp_path):
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "some").write_text("123456789\n")
    whole = usable_memory([str(tmp_path / "none"), str(tmp_path / "absent")])
    assert whole > 2**28
    assert usable_memory([str(tmp_path / name) for name in ("none", "some")]) == 123456789
    assert usable_memory() <= whole


def test_room_is_what_the_process_itself_leaves():
    assert room_bytes(PROCESS_BYTES) == 0
    assert room_bytes(10 * PROCESS_BYTES) == 8 * PROCESS_BYTES
    for needed in (0, 1, 12_345_678, 3 << 30):
        assert room_bytes(limit_for(needed)) >= needed > room_bytes(limit_for(needed) - 9) - 9
