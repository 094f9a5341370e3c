"""Bad inputs, made by script: each a function that writes one scan, and the reason it must get."""

import gzip
import io
import tarfile
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - its usual name

from tests.vocodata.conftest import _volume
from tests.vocodata.dicom_series import rewrite, write_series
from tests.vocodata.packing import patch_list

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
HU = _volume(0, (24, 22, 20))
SLICES = _volume(1, (24, 22, 20))
FILES, SERIES, MEMBERS = [], [], []


def fault(table, code, suffix=".nii.gz"):
    """Put a maker into a table under its own name."""

    def add(make):
        table.append((make.__name__.replace("_", "-"), suffix, code, make))
        return make

    return add


def nifti(data=HU, affine=AFFINE, kind=nib.Nifti1Image):
    """Bytes of a NIfTI file."""
    return bytearray(kind(data, affine).to_bytes())


def header(data=HU, **fields):
    """Bytes of a NIfTI file with fields of its header changed."""
    image = nib.Nifti1Image(data, AFFINE)
    raw = image.to_bytes()
    changed = nib.Nifti1Header(raw[:348], check=False)
    for field, value in fields.items():
        if field in {"dim", "pixdim"}:
            changed[field][: len(value)] = value
        else:
            changed[field] = value
    return changed.binaryblock + raw[348:]


def put_gz(path, content):
    path.write_bytes(gzip.compress(bytes(content), 1))


def itk(path, data=HU, **settings):
    image = sitk.GetImageFromArray(data.transpose(2, 1, 0))
    image.SetSpacing((2, 2, 2))
    sitk.WriteImage(image, str(path), **settings)
    return path


# Files


@fault(FILES, "truncated_gzip")
def gzip_cut_in_the_middle(path):
    put_gz(path, nifti())
    path.write_bytes(path.read_bytes()[:-900])


@fault(FILES, "truncated_gzip")
def gzip_without_its_checksum(path):
    put_gz(path, nifti())
    path.write_bytes(path.read_bytes()[:-8])


@fault(FILES, "corrupt_gzip")
def gzip_with_a_wrong_checksum(path):
    put_gz(path, nifti())
    content = bytearray(path.read_bytes())
    content[-6] ^= 255
    path.write_bytes(content)


@fault(FILES, "corrupt_gzip")
def gzip_with_a_broken_block(path):
    put_gz(path, nifti())
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)


@fault(FILES, "overlong_gzip")
def gzip_bomb_behind_the_voxels(path):
    # More than the build may take, if it were kept.
    path.write_bytes(gzip.compress(nifti(), 1) + 15 * gzip.compress(bytes(2**26), 1))


@fault(FILES, "wrong_magic")
def plain_file_called_gzip(path):
    path.write_bytes(nifti())


@fault(FILES, "wrong_magic", ".nii")
def gzip_called_plain(path):
    put_gz(path, nifti())


@fault(FILES, "wrong_magic")
def a_web_page(path):
    put_gz(path, b"<html>429 too many requests</html>" * 40)


@fault(FILES, "wrong_magic")
def half_of_an_analyze_pair(path):
    put_gz(path, header(magic=b"ni1"))


@fault(FILES, "empty_file")
def no_bytes(path):
    path.write_bytes(b"")


@fault(FILES, "wrong_magic", ".nii")
def three_bytes(path):
    path.write_bytes(b"abc")


@fault(FILES, "folder_with_file_name")
def folder_with_a_files_name(path):
    path.mkdir()
    (path / "part").write_bytes(b"x")


@fault(FILES, "file_missing")
def dangling_link(path):
    path.symlink_to(path.parent / "nowhere.nii.gz")


@fault(FILES, "file_missing")
def link_to_itself(path):
    path.symlink_to(path.name)


@fault(FILES, "truncated_file", ".nii")
def plain_file_cut(path):
    path.write_bytes(nifti()[:-500])


@fault(FILES, "truncated_file")
def fewer_voxels_than_promised(path):
    put_gz(path, nifti()[:-500])


@fault(FILES, "implausible_size", ".nii")
def huge_dimensions(path):
    path.write_bytes(header(dim=[3, 30000, 30000, 30000]))


@fault(FILES, "implausible_size", ".nii")
def dimensions_that_overflow(path):
    raw = nifti(kind=nib.Nifti2Image)
    raw[24:48] = np.array([2**40, 2**40, 2**40], "<i8").tobytes()
    path.write_bytes(raw)


@fault(FILES, "truncated_file")
def large_dimensions_in_a_small_gzip(path):
    put_gz(path, header(dim=[3, 1000, 1000, 500]))


@fault(FILES, "corrupt_header")
def negative_dimensions(path):
    put_gz(path, header(dim=[3, 24, -22, 20]))


@fault(FILES, "corrupt_header")
def no_dimensions(path):
    put_gz(path, header(dim=[0]))


@fault(FILES, "corrupt_header")
def eleven_axes(path):
    put_gz(path, header(dim=[11]))


@fault(FILES, "corrupt_header")
def voxels_at_a_negative_byte(path):
    put_gz(path, header(vox_offset=-40))


@fault(FILES, "corrupt_header")
def voxels_at_no_byte(path):
    put_gz(path, header(vox_offset=np.nan))


@fault(FILES, "corrupt_header")
def voxels_at_an_infinite_byte(path):
    put_gz(path, header(vox_offset=np.inf))


@fault(FILES, "corrupt_header")
def unknown_data_type(path):
    put_gz(path, header(datatype=77))


@fault(FILES, "corrupt_header")
def infinite_slope(path):
    put_gz(path, header(scl_slope=np.inf))


@fault(FILES, "not_three_dimensional")
def two_dimensional(path):
    put_gz(path, nifti(HU[:, :, 0]))


@fault(FILES, "not_three_dimensional")
def four_dimensional(path):
    put_gz(path, nifti(np.stack([HU, HU], 3)))


@fault(FILES, "implausible_size")
def one_slice(path):
    put_gz(path, nifti(HU[:, :, :1]))


@fault(FILES, "unsupported_dtype")
def colour(path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    put_gz(path, nifti(np.zeros(HU.shape, kind)))


@fault(FILES, "unsupported_dtype")
def complex_numbers(path):
    put_gz(path, nifti(HU.astype(np.complex64)))


@fault(FILES, "implausible_hu")
def normalised_to_one(path):
    put_gz(path, nifti(((HU + 1024) / 4000).astype(np.float64)))


@fault(FILES, "screenshot")
def grey_levels_of_a_screenshot(path):
    put_gz(path, nifti(np.clip(HU / 4 + 100, 0, 255).astype(np.uint8)))


@fault(FILES, "shifted_hu")
def a_thousand_too_high(path):
    put_gz(path, nifti(np.maximum(HU + 1024, 0).astype(np.int16)))


@fault(FILES, "non_finite_hu")
def voxels_that_are_nan(path):
    data = HU.astype(np.float32)
    data[3, 3, 3] = np.nan
    put_gz(path, nifti(data))


@fault(FILES, "non_finite_hu")
def voxels_that_are_infinite(path):
    data = HU.astype(np.float64)
    data[3, 3, 3] = -np.inf
    put_gz(path, nifti(data))


@fault(FILES, "implausible_hu")
def values_of_half_a_billion(path):
    put_gz(path, nifti(HU.astype(np.int32) * 500_000))


@fault(FILES, "constant_volume")
def one_value(path):
    put_gz(path, nifti(np.full(HU.shape, 40, np.int16)))


@fault(FILES, "empty_foreground")
def air_only(path):
    rng = np.random.default_rng(0)
    put_gz(path, nifti(rng.integers(-1020, -700, HU.shape).astype(np.int16)))


@fault(FILES, "bad_affine")
def affine_of_nan(path):
    put_gz(path, header(srow_x=[np.nan, 0, 0, 0]))


@fault(FILES, "bad_affine")
def affine_of_infinity(path):
    put_gz(path, header(srow_y=[0, np.inf, 0, 0]))


@fault(FILES, "bad_affine")
def axes_in_one_plane(path):
    put_gz(path, header(srow_x=[2, 2, 0, 0], srow_y=[0, 0, 2, 0], srow_z=[0, 0, 2, 0]))


@fault(FILES, "zero_spacing")
def affine_of_zeros(path):
    put_gz(path, header(srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4))


@fault(FILES, "zero_spacing")
def zero_spacing_in_the_qform(path):
    put_gz(path, header(sform_code=0, qform_code=1, pixdim=[1, 2, 2, 0]))


@fault(FILES, "negative_spacing")
def spacing_below_zero_in_the_qform(path):
    put_gz(path, header(sform_code=0, qform_code=1, pixdim=[1, 2, -2, 2]))


@fault(FILES, "negative_spacing", ".mha")
def mha_with_spacing_below_zero(path):
    content = itk(path).read_bytes()
    path.write_bytes(content.replace(b"ElementSpacing = 2 2 2", b"ElementSpacing = 2 -2 2"))


@fault(FILES, "bad_affine")
def quaternion_that_is_none(path):
    put_gz(path, header(sform_code=0, qform_code=1, quatern_b=3, quatern_c=3, quatern_d=3))


@fault(FILES, "no_geometry")
def neither_sform_nor_qform(path):
    put_gz(path, header(sform_code=0, qform_code=0))


@fault(FILES, "implausible_spacing")
def spacing_of_a_hair(path):
    put_gz(path, nifti(affine=np.diag([0.001, 2, 2, 1])))


@fault(FILES, "implausible_spacing")
def spacing_of_a_metre(path):
    put_gz(path, nifti(affine=np.diag([2, 2, 1000, 1])))


@fault(FILES, "sheared_grid")
def sheared_every_way(path):
    affine = AFFINE.copy()
    affine[0, 1] = affine[0, 2] = affine[1, 2] = 0.5
    put_gz(path, nifti(affine=affine))


@fault(FILES, "sheared_grid")
def stack_beyond_any_gantry(path):
    affine = AFFINE.copy()
    affine[1, 2] = 2
    put_gz(path, nifti(affine=affine))


@fault(FILES, "truncated_file", ".mha")
def mha_cut(path):
    content = itk(path).read_bytes()
    path.write_bytes(content[:-700])


@fault(FILES, "corrupt_gzip", ".mha")
def mha_with_damaged_zlib(path):
    content = bytearray(itk(path, useCompression=True).read_bytes())
    content[-700:-600] = bytes(100)
    path.write_bytes(content)


@fault(FILES, "implausible_size", ".mha")
def mha_of_huge_dimensions(path):
    content = itk(path).read_bytes()
    path.write_bytes(content.replace(b"DimSize = 24 22 20", b"DimSize = 90000 90000 9000"))


@fault(FILES, "truncated_file", ".mha")
def mha_of_large_dimensions(path):
    content = itk(path).read_bytes()
    path.write_bytes(content.replace(b"DimSize = 24 22 20", b"DimSize = 1000 1000 500"))


@fault(FILES, "corrupt_header", ".mha")
def mha_of_text(path):
    path.write_bytes(b"hello\n" * 9)


@fault(FILES, "file_missing", ".mhd")
def mhd_without_its_voxels(path):
    itk(path)
    path.with_suffix(".raw").unlink()


@fault(FILES, "corrupt_gzip", ".mhd")
def mhd_with_damaged_zlib_beside_it(path):
    itk(path, useCompression=True)
    voxels = path.with_suffix(".zraw")
    content = bytearray(voxels.read_bytes())
    content[-2] ^= 1
    voxels.write_bytes(content)


@fault(FILES, "corrupt_header", ".mhd")
def mhd_with_voxels_elsewhere_on_the_disk(path):
    content = itk(path).read_bytes()
    voxels = path.with_suffix(".raw")
    path.write_bytes(content.replace(voxels.name.encode(), str(voxels.absolute()).encode()))


@fault(FILES, "no_geometry", ".mhd")
def mhd_that_says_nothing_of_its_axes(path):
    lines = itk(path).read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"Transform")))


@fault(FILES, "zero_spacing", ".mha")
def mha_without_spacing_along_z(path):
    content = itk(path).read_bytes()
    path.write_bytes(content.replace(b"ElementSpacing = 2 2 2", b"ElementSpacing = 2 2 0"))


@fault(FILES, "no_geometry", ".nrrd")
def nrrd_without_a_space(path):
    lines = itk(path).read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(b"space")))


@fault(FILES, "corrupt_header", ".nrrd")
def nrrd_of_text(path):
    path.write_bytes(b"NRRD0004\nhello\n\n")


# DICOM series, each in a folder


def series(path, hu=SLICES, change=None, **options):
    """A series of its own, unless the change says which."""
    change = change or (lambda _: {})
    return write_series(
        path, hu, change=lambda z: {"SeriesInstanceUID": _uid(path)} | change(z), **options
    )


def _uid(path):
    return f"1.2.3.{zlib.crc32(path.name.encode())}"


def places(z_mm, y_mm=None):
    return [(-10, y, z) for z, y in zip(z_mm, y_mm or [20] * len(z_mm), strict=True)]


@fault(SERIES, "missing_slices", "")
def missing_slice(path):
    (series(path) / "0007.dcm").unlink()


@fault(SERIES, "duplicate_slices", "")
def slice_twice(path):
    series(path, positions_mm=places([*range(10), 9, *range(10, 19)]))


@fault(SERIES, "uneven_slices", "")
def gaps_that_differ(path):
    series(path, positions_mm=places([*range(10), *(9 + 1.4 * n for n in range(1, 11))]))


@fault(SERIES, "gantry_tilt", "")
def tilted_beyond_any_gantry(path):
    series(path, positions_mm=places(range(20), [0.9 * n for n in range(20)]))


@fault(SERIES, "gantry_tilt", "")
def tilt_that_positions_do_not_show(path):
    series(path, change=lambda _: {"GantryDetectorTilt": 20})


@fault(SERIES, "shifted_slices", "")
def slice_beside_the_others(path):
    series(path, positions_mm=places(range(20), [20 + 3 * (n == 7) for n in range(20)]))


@fault(SERIES, "single_slice", "")
def slice_alone(path):
    series(path, SLICES[:, :, :1])


@fault(SERIES, "not_ct", "")
def magnetic_resonance(path):
    series(path, change=lambda _: {"Modality": "MR"})


@fault(SERIES, "not_ct", "")
def no_modality(path):
    series(path, change=lambda _: {"Modality": None})


@fault(SERIES, "localizer", "")
def scout(path):
    series(path, change=lambda _: {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})


@fault(SERIES, "not_hu", "")
def iodine_map(path):
    series(path, change=lambda _: {"RescaleType": "MGML"})


@fault(SERIES, "mixed_geometry", "")
def slices_of_two_orientations(path):
    series(path)
    rewrite(path / "0005.dcm", ImageOrientationPatient=[0, 1, 0, 1, 0, 0])


@fault(SERIES, "mixed_geometry", "")
def slices_of_two_spacings(path):
    series(path)
    rewrite(path / "0005.dcm", PixelSpacing=[1, 1])


def part(path, z):
    """Some slices of a series that lies in several folders."""
    whole = {"hu": SLICES[:, :, z], "positions_mm": places(range(SLICES.shape[2])[z])}
    series(path, change=lambda _: {"SeriesInstanceUID": "1.2.3.4"}, **whole)


@fault(SERIES, "scattered_series", "")
def a_part_that_overlaps_the_next(path):
    part(path, slice(0, 12))


@fault(SERIES, "scattered_series", "")
def the_next_part_that_overlaps(path):
    part(path, slice(8, 20))


@fault(SERIES, "mixed_patients", "")
def two_patients_under_one_series(path):
    series(path, change=lambda z: {"PatientID": "one" if z < 9 else "other"})


@fault(SERIES, "negative_spacing", "")
def pixels_below_zero(path):
    series(path, change=lambda _: {"PixelSpacing": [0.8, -0.7]})


@fault(SERIES, "zero_spacing", "")
def pixels_of_no_width(path):
    series(path, change=lambda _: {"PixelSpacing": [0.8, 0]})


@fault(SERIES, "corrupt_dicom", "")
def no_position(path):
    series(path, change=lambda z: {"ImagePositionPatient": None} if z == 4 else {})


@fault(SERIES, "corrupt_dicom", "")
def position_of_nan(path):
    series(path)
    content = (path / "0005.dcm").read_bytes()
    (path / "0005.dcm").write_bytes(content.replace(b"-10.0\\20.0\\", b"-10.0\\ nan\\"))


@fault(SERIES, "corrupt_dicom", "")
def no_rescaling(path):
    series(path, change=lambda _: {"RescaleSlope": None})


@fault(SERIES, "corrupt_dicom", "")
def slice_cut_in_its_pixels(path):
    content = (series(path) / "0005.dcm").read_bytes()
    (path / "0005.dcm").write_bytes(content[:-90])


@fault(SERIES, "corrupt_dicom", "")
def slice_cut_in_its_header(path):
    content = (series(path) / "0005.dcm").read_bytes()
    (path / "0005.dcm").write_bytes(content[:350])


@fault(SERIES, "unsupported_dicom", "")
def film(path):
    series(path)
    made = pydicom.dcmread(path / "0004.dcm")
    made.PixelData = pydicom.encaps.encapsulate([b"no picture"])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    made.save_as(path / "0004.dcm", enforce_file_format=True)


@fault(SERIES, "unsupported_dicom", "")
def screenshot(path):
    pixels = bytes(24 * 22 * 3)
    changes = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    changes |= {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": pixels}
    series(path, change=lambda _: changes)


@fault(SERIES, "implausible_size", "")
def slices_of_huge_sides(path):
    series(path, change=lambda _: {"Rows": 65000, "Columns": 65000})


@fault(SERIES, "implausible_spacing", "")
def pixels_of_a_metre(path):
    series(path, change=lambda _: {"PixelSpacing": [1000, 1000]})


@fault(SERIES, "bad_affine", "")
def rows_along_columns(path):
    series(path, change=lambda _: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]})


@fault(SERIES, "non_finite_hu", "")
def slope_beyond_numbers(path):
    series(path, change=lambda _: {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"})


# Members of archives


@fault(MEMBERS, "archive_unsafe_path")
def member_named_out(path):
    return zipped(path, "../../zip-slip.nii.gz")


@fault(MEMBERS, "archive_unsafe_path")
def member_named_from_the_root(path):
    return zipped(path, "/etc/absolute.nii.gz")


@fault(MEMBERS, "archive_link")
def link_in_a_zip(path):
    return patch_list(zipped(path), "scan.nii.gz", 38, "<L", 0o120777 << 16)


@fault(MEMBERS, "archive_link")
def link_in_a_tar(path):
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("scan.nii.gz")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return path


@fault(MEMBERS, "archive_encrypted")
def encrypted(path):
    return patch_list(zipped(path), "scan.nii.gz", 8, "<H", 1)


@fault(MEMBERS, "archive_compression")
def deflate64(path):
    return patch_list(zipped(path), "scan.nii.gz", 10, "<H", 9)


@fault(MEMBERS, "archive_crc")
def wrong_crc(path):
    return patch_list(zipped(path), "scan.nii.gz", 16, "<L", 1)


@fault(MEMBERS, "archive_corrupt")
def shorter_than_declared(path):
    return patch_list(zipped(path), "scan.nii.gz", 24, "<L", 90_000)


@fault(MEMBERS, "archive_bomb")
def longer_than_declared(path):
    return patch_list(zipped(path), "scan.nii.gz", 24, "<L", 40)


@fault(MEMBERS, "archive_bomb")
def declared_beyond_any_scan(path):
    path = path.with_suffix(".tar")
    info = tarfile.TarInfo("scan.nii.gz")
    info.size = 2**50
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


@fault(MEMBERS, "archive_truncated")
def tar_cut(path):
    path = path.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("scan.nii.gz")
        info.size = 9000
        archive.addfile(info, io.BytesIO(bytes(9000)))
    path.write_bytes(path.read_bytes()[:5000])
    return path


@fault(MEMBERS, "archive_duplicate")
def one_name_twice(path):
    zipped(path, "scan.nii.gz", "tcan.nii.gz")
    path.write_bytes(path.read_bytes().replace(b"tcan", b"scan"))
    return path


@fault(MEMBERS, "truncated_gzip")
def damaged_scan_in_a_sound_zip(path):
    content = gzip.compress(bytes(nifti()))[:-300]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scan.nii.gz", content)
    return path


def zipped(path, *names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("scan.nii.gz",):
            archive.writestr(name, gzip.compress(bytes(nifti()), 1))
    return path
