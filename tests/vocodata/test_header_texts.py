"""Texts of NIfTI, NRRD and MHA headers are not read on: none reaches the store."""

import json

import nibabel as nib
import numpy as np
import pytest

from tests.vocodata.told_words import told
from vocodata.building import build

X, Y, Z = np.indices((24, 22, 16))
BODY = ((X - 12) ** 2 + (Y - 11) ** 2 < 64) & (Z > 1) & (Z < 15)
HU = np.where(BODY, 40 + X, -1000).astype("<i2")


def _nifti(path):
    image = nib.Nifti1Image(HU, np.diag([4.0, 4.0, 4.0, 1.0]))
    header = image.header
    header["descrip"], header["aux_file"] = b"Zebulon Doe 19570412", b"MRN00123456"
    header["db_name"], header["intent_name"] = b"DOE_JOHN", b"Zebulon"
    for code in (0, 4, 6, 44):
        content = b"Zebulon^John 19570412 20190304"
        header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    nib.save(image, path)


def _itk(path, lines):
    head = "\n".join(lines) + ("\n\n" if path.suffix == ".nrrd" else "\n")
    path.write_bytes(head.encode() + np.ascontiguousarray(HU.T).tobytes())


def _nrrd(path):
    lines = [
        "NRRD0005",
        "# made for Zebulon John Doe",
        "type: short",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 24 22 16",
        "space directions: (4,0,0) (0,4,0) (0,0,4)",
        "space origin: (0,0,0)",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        "content: Zebulon^John",
        "DICOM_0010_0010:=DOE_JOHN Zebulon",
        "PatientID:=MRN00123456",
        "StudyDate:=20190304",
    ]
    _itk(path, lines)


def _mha(path):
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "Comment = Zebulon John 19570412",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1",
        "Offset = 0 0 0",
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI",
        "ElementSpacing = 4 4 4",
        "DimSize = 24 22 16",
        "0010|0010 = DOE_JOHN Zebulon",
        "PatientID = MRN00123456",
        "Name = Zebulon",
        "ElementType = MET_SHORT",
        "ElementDataFile = LOCAL",
    ]
    _itk(path, lines)


@pytest.mark.parametrize("kept_out", [False, True], ids=["stored", "excluded"])
def test_no_text_of_a_nifti_nrrd_or_mha_header_reaches_the_store(tmp_path, kept_out):
    (tmp_path / "d").mkdir()
    for name, make in (("a.nii", _nifti), ("b.nrrd", _nrrd), ("c.mha", _mha)):
        make(tmp_path / "d" / name)
        assert b"Zebulon" in (tmp_path / "d" / name).read_bytes()
        if kept_out:
            content = (tmp_path / "d" / name).read_bytes()
            (tmp_path / "d" / name).write_bytes(content[:-500])
    row = {"name": "a", "root": "d", "preset": "demo"}
    (tmp_path / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
    report = build(tmp_path / "m.yaml", tmp_path / "ct.zarr", workers=0)
    assert (report.stored, sum(report.excluded.values())) == ((0, 3) if kept_out else (3, 0))
    assert told(report.store) == set()
