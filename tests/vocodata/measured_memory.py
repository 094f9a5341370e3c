"""How far a process grows over one scan; a program of its own, so that nothing else is in it.

    python -m tests.vocodata.measured_memory FORMAT KIND SLOPE LABELS X Y Z FOLDER

FORMAT is nii.gz, leaning.nii.gz, nrrd or dicom; stored numbers of KIND (of 12 bits in DICOM) times
SLOPE are HU.

Prints as JSON the growth of the resident size at its highest and what was predicted, bytes.
"""

import gc
import json
import pathlib
import sys

import nibabel as nib
import numpy as np
import SimpleITK

from tests.vocodata.dicom_series import write_series
from vocodata.discover import Scan
from vocodata.ingest import predicted_bytes, process_scan
from vocodata.presets import preset
from vocodata.readers import read_header
from vocodata.store.writer import write_scan

AFFINE = np.diag([-0.75, -0.75, 1.25, 1.0])
LEAN_MM = 0.35


def write(folder, name, ending, kind, slope, label_kind, size):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    slice_XY = rng.normal(60, 5, size[:2]).astype(kind)
    slice_XY[:9] = slice_XY[:, :9] = -1000
    data = np.empty(size, kind, order="F")
    data[:] = slice_XY[:, :, None]
    data[0, 0, :] = 900
    if np.dtype(kind).kind == "f":
        data[5, 5] += kind(0.25)
    image = folder / f"{name}.{ending}"
    if ending == "dicom":
        bits = {"BitsStored": 12, "HighBit": 11, "PixelSpacing": [0.75, 0.75]}
        scaling = {"RescaleSlope": slope, "RescaleIntercept": -1024}
        write_series(image, data, change=lambda _: bits | scaling)
    elif ending == "nrrd":
        made = SimpleITK.GetImageFromArray(data.T)
        made.SetSpacing(np.abs(np.diag(AFFINE)[:3]))
        SimpleITK.WriteImage(made, image, useCompression=True)
    else:
        affine = AFFINE.copy()
        affine[1, 2] = LEAN_MM if ending.startswith("leaning") else 0
        made = nib.Nifti1Image(data, affine)
        made.header.set_slope_inter(slope, 0)
        made.to_filename(image)
    labels = None
    if label_kind is not None:
        labels = folder / f"{name}-labels.nii.gz"
        nib.save(nib.Nifti1Image((data > 50).astype(label_kind), AFFINE), labels)
    return Scan(f"a/{name}", "a", name, image, labels, None, "abdomen")


def resident_bytes(which):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":\t") for line in lines)[which].split()[0]) * 1024


def store(scan, root):
    write_scan(root, scan, process_scan(scan, preset(scan.preset)), "zstd")


if __name__ == "__main__":
    ending, kind, slope, label_kind, *size, place = sys.argv[1:]
    kind = np.dtype(kind).type
    label_kind = None if label_kind == "none" else np.dtype(label_kind)
    folder = pathlib.Path(place)
    how = (ending, kind, float(slope), label_kind)
    small = write(folder, "small", *how, (64, 64, 40))
    large = write(folder, "large", *how, tuple(map(int, size)))
    store(small, folder / "store")  # what is imported and compiled is the process's own
    gc.collect()
    # The kernel forgets the highest mark, so that making the files above does not count.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    store(large, folder / "store")
    predicted = predicted_bytes(large, read_header(large.image), preset(large.preset))
    grown = resident_bytes("VmHWM") - before
    sys.stdout.write(json.dumps({"grown": grown, "predicted": predicted}))
