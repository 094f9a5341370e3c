"""A scan in an archive is the scan that lay in the folder, however it was packed."""

import dataclasses
import json
import pickle
import shutil
import tempfile
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vocodata.conftest import write_sources
from tests.vocodata.dicom_series import HU, write_series
from tests.vocodata.packing import (
    KINDS,
    contents,
    pack,
    patch_list,
    write_tar,
    write_zip,
    zip_with_the_tool,
)
from vocodata.archives import members as limits
from vocodata.archives import unpacked
from vocodata.archives.joined import open_parts
from vocodata.archives.members import safe_path
from vocodata.archives.parts import find_parts
from vocodata.archives.tars import close_stream
from vocodata.building import build
from vocodata.discover import find_scans
from vocodata.errors import DiskFullError, ManifestError, VocoDataError
from vocodata.ingest import process_scan
from vocodata.manifest import load_manifest
from vocodata.plan import make_plan, predict_size
from vocodata.presets import preset
from vocodata.readers import read_header, read_volume
from vocodata.recipe import scan_recipe


@pytest.fixture(autouse=True)
def _no_open_stream():
    yield
    close_stream()


def scans(root, **keys):
    row = {"name": "a", "root": str(root), "preset": "chest"} | keys
    manifest = root.parent / "m.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [row]}))
    return find_scans(load_manifest(manifest))


def refused(scan, code, match):
    with pytest.raises(VocoDataError, match=match) as caught, unpacked(scan):
        pass
    assert caught.value.code == code


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory):
    """Three labelled scans as files, their manifest, and the store that is built of them."""
    folder = tmp_path_factory.mktemp("plain")
    manifest = write_sources(folder, 3, labels=True)
    return folder, json.loads(manifest.read_text()), build(manifest, folder / "s.zarr", workers=0)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "pieces", "z01"])
def test_a_build_from_an_archive_gives_the_same_store(in_folder, tmp_path, kind, tree):
    folder, document, plain = in_folder
    root = pack(contents(folder / "sources/btcv"), tmp_path / "packed", kind)
    document = json.loads(json.dumps(document))
    document["sources"][0]["root"] = str(root)
    (tmp_path / "m.yaml").write_text(json.dumps(document))
    done = build(tmp_path / "m.yaml", tmp_path / "s.zarr", workers=0)
    assert (done.found, done.stored) == (3, 3)
    assert done.digest == plain.digest
    assert tree(done.store) == tree(plain.store)
    again = build(tmp_path / "m.yaml", tmp_path / "s.zarr", workers=0, resume=True)
    assert (again.skipped_done, again.bytes_written) == (3, 0)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"packed", "m.yaml", "s.zarr", "s.zarr.ledger.sqlite", "s.zarr.salt"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_packing_gives_back_the_bytes(tmp_path, kind):
    rng = np.random.default_rng(0)
    files = {f"imagesTr/c{n}_0000.nii.gz": rng.bytes(3000 + n) for n in range(4)}
    files |= {f"labelsTr/c{n}.nii.gz": rng.bytes(200) for n in range(3)}
    found = scans(pack(files, tmp_path / "p", kind), layout="glob", images="**/c*_0000.nii.gz")
    assert len(found) == 4
    for scan in pickle.loads(pickle.dumps(found[::-1])):
        with unpacked(scan) as files_of:
            assert files_of.image.read_bytes() == files[f"imagesTr/{scan.image.name}"]
            place = files_of.image.parent.parent
        assert not place.exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_layouts_see_an_archive_as_a_folder(tmp_path, kind):
    about = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    files = {"imagesTr/a_0000.nii.gz": b"1", "labelsTr/a.nii.gz": b"2", "imagesTr/b_0000.nii": b"3"}
    root = pack(files | {"dataset.json": json.dumps(about).encode()}, tmp_path / "p", kind)
    found = scans(root, layout="auto")
    assert [scan.id for scan in found] == ["a/a", "a/b"]
    assert found[0].labels == root / "labelsTr/a.nii.gz"
    assert found[0].label_names == {1: "liver"}
    with unpacked(found[0]) as files_of:
        assert files_of.labels.read_bytes() == b"2"
    assert found[1].labels is None


def test_a_detached_header_brings_its_voxels(tmp_path):
    root = pack({"s/1.mhd": b"head", "s/1.raw": b"voxels", "s/2.raw": b"no"}, tmp_path / "p", "zip")
    (scan,) = scans(root)
    with unpacked(scan) as files_of:
        assert files_of.image.with_suffix(".raw").read_bytes() == b"voxels"
        assert len(list(files_of.image.parent.iterdir())) == 2


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_dicom_series_in_an_archive_are_read(tmp_path, kind):
    write_series(tmp_path / "d/p1/ct")
    write_series(tmp_path / "d/p1/ct", change=lambda _: {"SeriesInstanceUID": "1.9"},
                 names=[f"b{z}.dcm" for z in range(8)])  # fmt: skip
    write_series(tmp_path / "d/p2")
    found = scans(pack(contents(tmp_path / "d"), tmp_path / "p", kind), layout="dicom")
    assert len(found) == 3
    for scan in found:
        with unpacked(scan) as files_of:
            assert np.array_equal(read_volume(files_of.image).data_XYZ, HU)
        with unpacked(scan, head_only=True) as files_of:
            assert read_header(files_of.image).shape_XYZ == HU.shape


def test_planning_reads_headers_from_archives(in_folder, tmp_path):
    folder, _, _ = in_folder
    root = pack(contents(folder / "sources/btcv"), tmp_path / "packed", "zip")
    found = scans(root, layout="glob", images="images/*.nii.gz")
    size = predict_size(make_plan(found, {}, tmp_path / "s.zarr", "zstd"))
    assert (size.headers_read, size.unreadable) == (3, 0)
    assert size.voxels > 3 * 1000


def test_a_recipe_follows_the_members_bytes_and_not_the_archives_time(tmp_path):
    first = scans(write_zip(tmp_path / "a.zip", {"x.nii": b"1", "y.nii": b"2"}))
    recipes = [scan_recipe(scan, "zstd") for scan in first]
    again = scans(write_zip(tmp_path / "a.zip", {"x.nii": b"3", "y.nii": b"2", "z.nii": b"4"}))
    changed = [scan_recipe(scan, "zstd") for scan in again]
    assert recipes[1] == scan_recipe(dataclasses.replace(first[1]), "zstd")
    assert changed[0] != recipes[0]


def test_jobs_of_a_compressed_tar_come_in_its_order(tmp_path):
    names = ["c.nii", "a.nii", "b.nii"]
    found = scans(write_tar(tmp_path / "a.tar.gz", dict.fromkeys(names, b"x" * 900)))
    jobs = make_plan(found, {}, tmp_path / "s.zarr", "zstd").jobs
    assert [job.scan.name for job in jobs] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("code", "match", "make"),
    [
        ("archive_crc", "another CRC", lambda p: patch_list(p, "x.nii", 16, "<L", 7)),
        ("archive_bomb", "larger than the 3 bytes", lambda p: patch_list(p, "x.nii", 24, "<L", 3)),
        ("archive_corrupt", "ends after 9000 of 9999",
         lambda p: patch_list(p, "x.nii", 24, "<L", 9999)),
        ("archive_corrupt", "does not begin where", lambda p: patch_list(p, "x.nii", 42, "<L", 5)),
        ("archive_encrypted", "is encrypted", lambda p: patch_list(p, "x.nii", 8, "<H", 1)),
        ("archive_compression", "not read", lambda p: patch_list(p, "x.nii", 10, "<H", 9)),
        ("archive_link", "a link", lambda p: patch_list(p, "x.nii", 38, "<L", 0o120777 << 16)),
    ],
)  # fmt: skip
def test_a_bad_member_is_refused_by_name_and_its_neighbour_is_not(tmp_path, code, match, make):
    path = write_zip(tmp_path / "a.zip", {"x.nii": b"0" * 9000, "y.nii": b"1" * 50})
    bad, good = scans(make(path))
    refused(bad, code, match)
    with unpacked(good) as files_of:
        assert files_of.image.read_bytes() == b"1" * 50


def test_damaged_deflate_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.nii": np.random.default_rng(0).bytes(900) + b"0" * 99})
    content = bytearray(path.read_bytes())
    content[35:60] = b"\xff" * 25
    path.write_bytes(content)
    (bad,) = scans(path)
    refused(bad, "archive_corrupt", "is damaged")


def test_a_file_encrypted_by_the_zip_tool_is_refused(tmp_path):
    if shutil.which("zip") is None:
        pytest.skip("no zip command")
    path = zip_with_the_tool(tmp_path / "a.zip", {"x.nii": b"0" * 900}, "-P", "secret")
    (bad,) = scans(path)
    refused(bad, "archive_encrypted", "is encrypted")


def test_a_zip_in_parts_by_the_zip_tool_is_read(tmp_path):
    if shutil.which("zip") is None:
        pytest.skip("no zip command")
    big = np.random.default_rng(0).bytes(150_000)
    files = {"x.nii": big, "y.nii": big[::-1]}
    path = zip_with_the_tool(tmp_path / "a.zip", files, "-s", "64k")
    assert (tmp_path / "a.z01").exists()
    for scan in scans(path):
        with unpacked(scan) as files_of:
            assert files_of.image.read_bytes() == files[scan.image.name]


@pytest.mark.parametrize("name", ["../x.nii", "/x.nii", "a/../../x.nii", "C:\\x.nii", "..\\x.nii"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_written_there(tmp_path, name):
    bad, _ = scans(write_zip(tmp_path / "in/a.zip", {name: b"1", "y.nii": b"2"})
                   if (tmp_path / "in").mkdir() is None else None)  # fmt: skip
    refused(bad, "archive_unsafe_path", "leads out of the archive")
    assert not list(tmp_path.glob("x.nii"))


@given(st.text("ab./\\:\0C", max_size=12))
def test_no_name_leads_out(name):
    path, _ = safe_path(name)
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert "\0" not in path
    assert path


def test_two_members_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.nii": b"1", "y.nii": b"1"})
    content = path.read_bytes().replace(b"y.nii", b"x.nii")
    path.write_bytes(content)
    (bad,) = scans(path)
    refused(bad, "archive_duplicate", "two files of the same name")


def test_a_member_larger_than_any_scan_is_refused_from_the_list(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_SCAN_BYTES", 1000)
    files = {"x.nii": bytes(5000), "s/1.mhd": bytes(600), "s/1.raw": bytes(600)}
    pair, bomb = scans(write_zip(tmp_path / "a.zip", files))
    refused(bomb, "archive_bomb", "larger than declared, or than any scan")
    refused(pair, "archive_bomb", "unpack to 1200 bytes")


def test_no_room_to_unpack_stops_the_build(tmp_path, monkeypatch):
    (scan,) = scans(write_zip(tmp_path / "a.zip", {"x.nii": bytes(5000)}))
    usage = shutil._ntuple_diskusage(10, 9, 1)
    monkeypatch.setattr("vocodata.archives.unpack.shutil.disk_usage", lambda _: usage)
    wanted = "No room to unpack a scan of 5000 bytes; 1 are free"
    with pytest.raises(DiskFullError, match=wanted), unpacked(scan):
        pass


def test_links_of_a_tar_are_refused(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("x.nii", tarfile.SYMTYPE), ("y.nii", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    for bad in scans(tmp_path / "a.tar"):
        refused(bad, "archive_link", "a link, device or sparse file")


def test_the_member_in_which_a_tar_ends_is_refused_and_those_before_are_not(tmp_path, caplog):
    rng = np.random.default_rng(0)
    files = {f"{n}.nii": rng.bytes(9000) for n in range(3)}
    path = pack(files, tmp_path / "p", "tar")
    path.write_bytes(path.read_bytes()[:22000])
    found = scans(path)
    assert len(found) == 3
    assert "ends within 2.nii; what follows it is lost" in caplog.text
    refused(found[2], "archive_truncated", "ends within")
    with unpacked(found[1]) as files_of:
        assert files_of.image.read_bytes() == files["1.nii"]


def test_a_compressed_tar_that_ends_early_excludes_the_last_member_it_shows(tmp_path):
    rng = np.random.default_rng(0)
    path = pack({f"{n}.nii": rng.bytes(400_000) for n in range(3)}, tmp_path / "p", "tar.gz")
    path.write_bytes(path.read_bytes()[:1_000_000])
    *before, last = scans(path)
    assert len(before) >= 1
    refused(last, "archive_truncated", "ends within")


def test_a_compressed_tar_whose_checksum_is_wrong_is_refused_whole(tmp_path):
    path = pack({"0.nii": np.random.default_rng(0).bytes(600_000)}, tmp_path / "p", "tar.gz")
    content = path.read_bytes()
    path.write_bytes(content[:300_000] + bytes(1000) + content[301_000:])
    with pytest.raises(ManifestError, match="does not prove by its checksum"):
        scans(path)


def test_a_compressed_tar_that_changed_since_it_was_listed_is_refused(tmp_path):
    files = {f"{n}.nii": np.random.default_rng(n).bytes(6000) for n in range(2)}
    path = pack(files, tmp_path / "p", "tar.gz")
    found = scans(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(found[1], "archive_corrupt", "changed since it was listed")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_member_that_is_cut_after_listing_is_refused(tmp_path, kind):
    path = pack({"0.nii": bytes(9000), "1.nii": bytes(9000)}, tmp_path / "p", kind)
    found = scans(path)
    if kind == "tar":
        path.write_bytes(path.read_bytes()[:15000])
        refused(found[1], "archive_truncated", "too early")
    else:
        archive = dataclasses.replace(found[1].packed.archive, state=())
        cut = path.read_bytes()[:60]
        path.write_bytes(cut)
        stat = path.stat()
        archive = dataclasses.replace(archive, state=((stat.st_size, stat.st_mtime_ns),))
        bad = dataclasses.replace(
            found[1], packed=dataclasses.replace(found[1].packed, archive=archive)
        )
        refused(bad, "archive_corrupt", "damaged stretch")


def test_long_names_of_both_tar_styles_are_read(tmp_path):
    import io
    import tarfile

    name = "/".join(["a" * 60] * 4) + "/x.nii"
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=style) as archive:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"123"))
        (scan,) = scans(tmp_path / "a.tar")
        assert scan.image == tmp_path / "a.tar" / name
        with unpacked(scan) as files_of:
            assert files_of.image.read_bytes() == b"123"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"PK\x03\x04" + bytes(100), "no list of its members"),
        (b"no archive at all", "neither a folder nor an archive"),
        (b"", "neither a folder nor an archive"),
        (zlib.compress(b"x", wbits=31), "no tar"),
        (bytes(257) + b"ustar" + bytes(250), "no tar"),
        (b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + b"\xff\0\0\0" * 2 + bytes(2), "not where"),
        (b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(4) + b"\1\0\1\0" + b"\x05\0\0\0" * 2
         + bytes(2), "list of the zip is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_listed_is_a_fault_of_the_source(tmp_path, content, match):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ManifestError, match=match):
        scans(tmp_path / "a.zip")


def test_a_missing_part_is_named(tmp_path):
    root = pack({"x.nii": bytes(99)}, tmp_path / "p", "zip.001")
    (tmp_path / "p/all.zip.003").unlink()
    with pytest.raises(ManifestError, match="part 3 is missing of parts 1 to 5"):
        scans(root)


def test_a_root_may_be_named_by_its_parts_common_name(tmp_path):
    pack({"x.nii": bytes(99)}, tmp_path / "p", "zip.001")
    assert [scan.name for scan in scans(tmp_path / "p/all.zip")] == ["x"]


def test_a_folder_of_scans_is_no_folder_of_parts(tmp_path):
    for name in ("00001.nii.gz", "00002.nii.gz", "list.json"):
        (tmp_path / name).write_bytes(zlib.compress(b"x", wbits=31))
    assert find_parts(tmp_path) == []


def test_a_stream_over_parts_seeks_as_one_file_does(tmp_path):
    content = np.random.default_rng(0).bytes(1000)
    for n in range(3):
        (tmp_path / f"x.{n:03}").write_bytes(content[n * 400 : (n + 1) * 400])
    with open_parts(sorted(tmp_path.iterdir())) as file:
        assert file.seek(-10, 2) == 990
        assert file.read() == content[990:]
        file.seek(395)
        assert file.read(10) == content[395:405]
        file.seek(5, 1)
        assert file.tell() == 410
        file.seek(2000)
        assert file.read() == b""


def test_messages_name_the_archive_and_no_temporary_folder(tmp_path):
    (scan,) = scans(write_zip(tmp_path / "a.zip", {"x.nii": b"no nifti"}), layout="glob",
                    images="*.nii")  # fmt: skip
    with pytest.raises(VocoDataError) as caught, unpacked(scan) as files_of:
        read_volume(files_of.image)
    assert tempfile.gettempdir() not in caught.value.detail.replace(str(tmp_path), "")


@pytest.mark.parametrize("left", [1, 4])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_whose_last_parts_are_missing_is_refused_not_shortened(tmp_path, suffix, left):
    rng = np.random.default_rng(0)
    write_tar(tmp_path / f"whole{suffix}", {f"{n}.nii": rng.bytes(9_000) for n in range(6)})
    data = (tmp_path / f"whole{suffix}").read_bytes()
    step = -(-len(data) // 5)
    for number in range(left):
        part = data[number * step : (number + 1) * step]
        (tmp_path / f"all{suffix}.{number + 1:03}").write_bytes(part)
    with pytest.raises(ManifestError, match=f"ends within .* after {left} parts; expected more"):
        scans(tmp_path / f"all{suffix}.001")


def test_labels_that_are_missing_or_unreadable_in_the_archive_are_refused(tmp_path):
    listed = {"training": [{"image": "x.nii", "label": "gone.nii"}]}
    (tmp_path / "l.json").write_text(json.dumps(listed))
    path = write_zip(tmp_path / "a.zip", {"x.nii": b"1", "seg.nii": b"2"})
    (scan,) = scans(path, layout="datalist", scans="l.json")
    refused(scan, "labels_missing", "not in the archive")
    listed = {"training": [{"image": "x.nii", "label": "seg.nii"}, {"image": "gone.nii"}]}
    (tmp_path / "l.json").write_text(json.dumps(listed))
    patch_list(path, "seg.nii", 8, "<H", 1)
    gone, scan = scans(path, layout="datalist", scans="l.json")
    refused(scan, "labels_unreadable", "is encrypted")
    refused(gone, "file_missing", "is not in the archive")


def test_a_member_that_lies_below_a_file_tells_no_path_of_this_machine(tmp_path):
    write_series(tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, path in enumerate(sorted((tmp_path / "s").iterdir())):
            name = "p/s/0.dcm" + f"/{number}.dcm" * (number > 0)
            archive.write(path, name)
    (scan,) = scans(tmp_path / "a.zip")
    with pytest.raises(VocoDataError) as caught:
        process_scan(scan, preset("demo"), scratch=tmp_path / "scratch-of-17")
    assert "scratch" not in caught.value.detail
