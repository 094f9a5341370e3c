"""Tiny DICOM series, written slice by slice."""

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

HU = np.random.default_rng(0).integers(-1024, 2000, (6, 5, 8)).astype(np.int16)
AXIAL = (1, 0, 0, 0, 1, 0)
GAP_MM = 2.5


def dataset(pixels_YX, position_mm, series="1.2.3", **changes):
    """One slice; a change of None takes the attribute out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID, made.Modality = series, "CT"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.Rows, made.Columns = pixels_YX.shape
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 15, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelSpacing, made.ImageOrientationPatient = [0.8, 0.7], list(AXIAL)
    made.ImagePositionPatient = [round(float(p), 6) for p in position_mm]
    made.SliceThickness = 3
    made.RescaleSlope, made.RescaleIntercept = 1, -1024
    made.PixelData = (pixels_YX.astype(np.int32) + 1024).astype("<u2").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def write_series(folder, hu_XYZ=HU, positions_mm=None, change=None, names=None):
    """A folder with one file a slice; `change(z)` gives attributes for slice z."""
    folder.mkdir(parents=True, exist_ok=True)
    count = hu_XYZ.shape[2]
    if positions_mm is None:
        positions_mm = [(-10, 20, -300 + GAP_MM * z) for z in range(count)]
    for z in range(count):
        made = dataset(hu_XYZ[:, :, z].T, positions_mm[z], **(change(z) if change else {}))
        made.save_as(folder / (names[z] if names else f"{z:04}.dcm"), enforce_file_format=True)
    return folder


def rewrite(path, **changes):
    """Change attributes of one file in place."""
    made = pydicom.dcmread(path)
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    made.save_as(path, enforce_file_format=True)


def write_enhanced(folder, hu_XYZ=HU, order=None, change=None):
    """A folder with one enhanced (multi-frame) CT file; frames in `order`."""
    folder.mkdir(parents=True, exist_ok=True)
    order = range(hu_XYZ.shape[2]) if order is None else order
    made = dataset(hu_XYZ[:, :, 0].T, (0, 0, 0))
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = EnhancedCTImageStorage
    for keyword in ("ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
        delattr(made, keyword)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_one(PixelSpacing=made.PixelSpacing, SliceThickness=3)]
    plane = _one(ImageOrientationPatient=made.ImageOrientationPatient)
    shared.PlaneOrientationSequence = [plane]
    del made.PixelSpacing, made.ImageOrientationPatient
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [_frame(z) for z in order]
    made.NumberOfFrames = len(order)
    stored = hu_XYZ.astype(np.int32).transpose(2, 1, 0)[list(order)] + 1024
    made.PixelData = stored.astype("<u2").tobytes()
    if change:
        change(made)
    made.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder


def _frame(z):
    group = Dataset()
    group.PlanePositionSequence = [_one(ImagePositionPatient=[-10, 20, -300 + GAP_MM * z])]
    scaling = _one(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")
    group.PixelValueTransformationSequence = [scaling]
    return group


def _one(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
