"""What a MetaImage's or NRRD's own text says, where SimpleITK guesses or follows."""

import json
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from tests.vocodata.packing import write_zip
from vocodata.archives import unpacked
from vocodata.discover import find_scans
from vocodata.errors import GeometryError, UnreadableScanError, VocoDataError
from vocodata.manifest import load_manifest
from vocodata.readers import read_header, read_volume

HU = np.random.default_rng(0).integers(-1024, 3000, (9, 7, 5)).astype(np.int16)
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 2\n"
    "DimSize = 9 7 5\nElementType = MET_SHORT\nElementDataFile = {}\n"
)
NRRD = (
    "NRRD0005\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 9 7 5\n"
    "space directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little\nencoding: raw\n"
    "space origin: (0,0,0)\n"
)


def raw(data_XYZ=HU):
    return data_XYZ.transpose(2, 1, 0).astype("<i2").tobytes()


def refused(path, match, code):
    with pytest.raises(VocoDataError, match=match) as caught:
        read_volume(path)
    assert caught.value.code == code


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_voxels_may_be_called_otherwise_than_their_header(tmp_path, ending):
    # More than the header could ever inflate to.
    large = np.tile(HU, (9, 9, 9))
    size = " ".join(map(str, large.shape))
    text = NRRD + "data file: sub/voxels.bin\n" if ending == ".nhdr" else META
    text = text.replace("9 7 5", size).format("sub/voxels.bin")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "voxels.bin").write_bytes(raw(large))
    (tmp_path / f"a{ending}").write_text(text)
    assert np.array_equal(read_volume(tmp_path / f"a{ending}").data_XYZ, large)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mhd", META.format("LIST") + "s1.raw\ns2.raw\ns3.raw\ns4.raw\ns5.raw\n"),
        ("a.mhd", META.format("s%d.raw 1 5 1")),
        ("a.nhdr", NRRD + "data file: LIST\ns1.raw\ns2.raw\ns3.raw\ns4.raw\ns5.raw\n"),
        ("a.nhdr", NRRD + "data file: s%01d.raw 1 5 1\n"),
    ],
    ids=["meta list", "meta pattern", "nrrd list", "nrrd pattern"],
)
def test_voxels_may_lie_in_a_file_for_each_slice(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    for z in range(5):
        (tmp_path / f"s{z + 1}.raw").write_bytes(raw(HU[:, :, z : z + 1]))
    assert np.array_equal(read_volume(tmp_path / name).data_XYZ, HU)
    (tmp_path / "s3.raw").write_bytes(b"")
    refused(tmp_path / name, "do not fit", "truncated_file")
    (tmp_path / "s3.raw").unlink()
    refused(tmp_path / name, "s3.raw, which is not there", "file_missing")


@pytest.mark.parametrize("where", ["absolute", "../voxels.raw", "C:\\voxels.raw"])
@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_voxels_elsewhere_on_the_disk_are_not_read(tmp_path, where, ending):
    (tmp_path / "voxels.raw").write_bytes(raw())
    where = str(tmp_path / "voxels.raw") if where == "absolute" else where
    text = NRRD + f"data file: {where}\n" if ending == ".nhdr" else META.format(where)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a{ending}").write_text(text)
    refused(tmp_path / "in" / f"a{ending}", "expected a file beside it", "corrupt_header")


def test_a_header_that_counts_files_without_end_is_refused(tmp_path):
    (tmp_path / "a.mhd").write_text(META.format("s%d.raw 1 99999999 1"))
    refused(tmp_path / "a.mhd", "names 99999999 files", "corrupt_header")


@pytest.mark.parametrize("axes", ["NDims = 543", "NDims : 99", "NDims = 9e9", "NDims = 3u"])
def test_more_axes_than_simpleitk_has_memory_for_are_refused(tmp_path, axes):
    (tmp_path / "a.raw").write_bytes(raw())
    (tmp_path / "a.mhd").write_text(META.format("a.raw").replace("NDims = 3", axes))
    refused(tmp_path / "a.mhd", r"axes \(NDims\); expected 3, at most 10", "corrupt_header")


@pytest.mark.parametrize(("scaling", "is_plain"), [("2", False), ("x", False), ("1.0", True)])
def test_a_scaling_that_simpleitk_passes_over_is_refused(tmp_path, scaling, is_plain):
    (tmp_path / "a.raw").write_bytes(raw())
    field = f"ElementToIntensityFunctionSlope = {scaling}\nElementType"
    (tmp_path / "a.mhd").write_text(META.format("a.raw").replace("ElementType", field))
    if is_plain:
        assert np.array_equal(read_volume(tmp_path / "a.mhd").data_XYZ, HU)
        return
    refused(tmp_path / "a.mhd", f"Slope '{scaling}', which one reader applies", "corrupt_header")


def test_an_axis_without_voxels_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(raw())
    (tmp_path / "a.mhd").write_text(META.format("a.raw").replace("= 9 7 5", "= 9 0 5"))
    refused(tmp_path / "a.mhd", r"axes \(9, 0, 5\); expected counts above 0", "corrupt_header")


def test_a_file_of_voxels_with_a_name_longer_than_any_is_missing(tmp_path):
    (tmp_path / "a.mhd").write_text(META.format("a" * 300))
    refused(tmp_path / "a.mhd", "which is not there", "file_missing")


@pytest.mark.parametrize(("cut", "code"), [(0, "corrupt_gzip"), (9, "truncated_gzip")])
def test_compressed_voxels_beside_their_header_are_proved(tmp_path, cut, code):
    sitk.WriteImage(sitk.GetImageFromArray(HU.transpose(2, 1, 0)), str(tmp_path / "a.mhd"), True)
    content = bytearray((tmp_path / "a.zraw").read_bytes())
    content[-2] ^= 1
    (tmp_path / "a.zraw").write_bytes(content[: len(content) - cut])
    refused(tmp_path / "a.mhd", "a.zraw (are damaged|end too early)", code)


PACKED = META.replace("TransformM", "CompressedData = True\nTransformM")


def test_compressed_voxels_are_those_that_were_packed_however_the_header_tells(tmp_path):
    for order, kind in (("False", "<i2"), ("True", ">i2")):
        voxels = zlib.compress(HU.transpose(2, 1, 0).astype(kind).tobytes())
        text = PACKED.replace("MSB = False", f"MSB = {order}")
        sized = text.replace("TransformM", f"CompressedDataSize = {len(voxels)}\nTransformM")
        (tmp_path / "a.zraw").write_bytes(voxels)
        (tmp_path / "a.mhd").write_text(text.format("a.zraw"))
        (tmp_path / "b.mha").write_bytes(text.format("LOCAL").encode() + voxels)
        (tmp_path / "c.mha").write_bytes(sized.format("LOCAL").encode() + voxels)
        for name in ("a.mhd", "b.mha", "c.mha"):
            assert np.array_equal(read_volume(tmp_path / name).data_XYZ, HU), (name, order)


def test_compressed_voxels_of_another_length_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vocodata.readers.itk.MAX_REST_BYTES", 1000)
    text = PACKED.format("LOCAL").encode()
    (tmp_path / "a.mha").write_bytes(text + zlib.compress(raw()[:-2]))
    refused(
        tmp_path / "a.mha", "holds 628 bytes of voxels; its header promises 630", "truncated_file"
    )
    (tmp_path / "a.mha").write_bytes(text + zlib.compress(raw() + bytes(1100)))
    refused(tmp_path / "a.mha", "go on for more than 1000 bytes", "overlong_gzip")
    (tmp_path / "a.mha").write_bytes(text + zlib.compress(raw() + bytes(900)))
    assert np.array_equal(read_volume(tmp_path / "a.mha").data_XYZ, HU)


@pytest.mark.parametrize(
    ("field", "other"),
    [("TransformMatrix", "Rotation"), ("ElementSpacing", None)],
)
def test_a_metaimage_without_axes_or_spacing_is_refused(tmp_path, field, other):
    (tmp_path / "a.raw").write_bytes(raw())
    lines = META.format("a.raw").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(field)]
    (tmp_path / "a.mhd").write_text("".join(kept))
    with pytest.raises(GeometryError, match=f"no field {field}") as caught:
        read_header(tmp_path / "a.mhd")
    assert caught.value.code == "no_geometry"
    if other:
        (tmp_path / "a.mhd").write_text(META.format("a.raw").replace(field, other))
        assert np.array_equal(read_volume(tmp_path / "a.mhd").data_XYZ, HU)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Offset = 0 0 0", "Offset = 5"),
        ("ElementSpacing = 1 1 2", "ElementSpacing = 1 1 2 7"),
        ("Matrix = 1 0 0 0", "Matrix = 1 0 0"),
    ],
)
def test_a_metaimage_with_more_or_fewer_numbers_than_axes_is_refused(tmp_path, before, after):
    (tmp_path / "a.raw").write_bytes(raw())
    (tmp_path / "a.mhd").write_text(META.format("a.raw").replace(before, after))
    refused(tmp_path / "a.mhd", r"expected \d numbers", "corrupt_header")


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ("left-posterior-superior", "scanner-xyz", "LPS, RAS or LAS"),
        ("left-posterior-superior", "3D-right-handed", "LPS, RAS or LAS"),
        ("space directions: (1,0,0) (0,1,0) (0,0,2)\n", "", "no field space directions"),
        ("(0,0,2)", "none", "no field space directions of three axes"),
        ("endian", 'space units: "um" "um" "um"\nendian', "measured in um; expected mm"),
    ],
)
def test_a_nrrd_that_does_not_say_how_it_lies_is_refused(tmp_path, before, after, match):
    text = NRRD.replace(before, after) + "\n"
    (tmp_path / "a.nrrd").write_bytes(text.encode() + raw())
    refused(tmp_path / "a.nrrd", match, "no_geometry")


def test_the_spaces_that_are_known_agree(tmp_path):
    for name, space, directions in (
        ("lps", "LPS", "(1,0,0) (0,1,0) (0,0,2)"),
        ("ras", "right-anterior-superior", "(-1,0,0) (0,-1,0) (0,0,2)"),
        ("las", "left-anterior-superior", "(1,0,0) (0,-1,0) (0,0,2)"),
    ):
        text = NRRD.replace("left-posterior-superior", space)
        text = text.replace("(1,0,0) (0,1,0) (0,0,2)", directions) + "\n"
        (tmp_path / f"{name}.nrrd").write_bytes(text.encode() + raw())
        affine = read_volume(tmp_path / f"{name}.nrrd").affine
        assert affine == pytest.approx(np.diag([-1, -1, 2, 1])), name


def test_an_archive_brings_compressed_voxels_and_gives_none_from_the_disk(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(HU.transpose(2, 1, 0)), str(tmp_path / "a.nhdr"), True)
    (tmp_path / "secret.raw").write_bytes(raw())
    files = {name: (tmp_path / name).read_bytes() for name in ("a.nhdr", "a.raw.gz")}
    files["b.mhd"] = META.format(tmp_path / "secret.raw").encode()
    path = write_zip(tmp_path / "a.zip", files)
    row = {"name": "a", "root": str(path), "preset": "demo"}
    (tmp_path / "m.json").write_text(json.dumps({"version": 1, "sources": [row]}))
    good, bad = find_scans(load_manifest(tmp_path / "m.json"))
    with unpacked(good) as files:
        assert np.array_equal(read_volume(files.image).data_XYZ, HU)
    with pytest.raises(UnreadableScanError, match="beside it"), unpacked(bad) as files:
        read_volume(files.image)
