"""Archives as other systems pack them: holes in files, names in other alphabets, backslashes."""

import io
import shutil
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest

from tests.vocodata.archives.test_archives import refused, scans
from tests.vocodata.packing import pack, write_zip, write_zip64
from vocodata.archives import unpacked
from vocodata.errors import ManifestError

HOLE = bytes(1 << 16)


def contents(found):
    read = {}
    for scan in found:
        with unpacked(scan) as files:
            read[scan.name] = files.image.read_bytes()
    return read


@pytest.mark.skipif(shutil.which("tar") is None, reason="the tool tar is not installed")
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("style", ["gnu", "posix"])
def test_a_file_with_holes_is_refused_by_its_name_and_those_beside_it_are_read(
    tmp_path, style, ending
):
    files = {"a.nii": b"1", "b.nii": (b"x" * 4096 + HOLE) * 30, "c.nii": b"3"}
    for name, content in files.items():
        with (tmp_path / name).open("wb") as file:
            for start in range(0, len(content), 4096):
                block = content[start : start + 4096]
                file.seek(start) if not any(block) else file.write(block)
            file.truncate(len(content))
    path = tmp_path / f"t.{ending}"
    packing = ["tar", "-S", f"--format={style}", "-caf", path, *files]
    subprocess.run(packing, cwd=tmp_path, check=True)
    first, holes, last = scans(path)
    refused(holes, "archive_link", "Member b.nii .*sparse file")
    assert contents([first, last]) == {"a": b"1", "c": b"3"}


def test_a_zip64_is_one_that_others_read_too_and_a_list_elsewhere_than_said_is_told(tmp_path):
    files = {"a.nii": b"1" * 900, "b/c.nii": bytes(range(200))}
    path = write_zip64(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert list(contents(scans(path)).values()) == list(files.values())
    damaged = path.read_bytes().replace(b"PK\6\6", b"PK\6\0")
    path.write_bytes(damaged)
    with pytest.raises(ManifestError, match="list is not where its end says"):
        scans(path)


def test_names_of_a_tar_that_are_no_utf8_stay_apart(tmp_path):
    old = {"format": tarfile.GNU_FORMAT, "encoding": "latin-1"}
    with tarfile.open(tmp_path / "a.tar", "w", **old) as archive:
        for name in ("Schädel_ü.nii", "Schädel_ö.nii"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(name[8].encode("latin-1")))
    for scan in (found := scans(tmp_path / "a.tar")):
        with unpacked(scan) as files:
            assert files.image.read_bytes() == scan.image.name[8].encode("latin-1")
    assert {scan.image.name for scan in found} == {"Schädel_ö.nii", "Schädel_ü.nii"}


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_names_of_a_zip_without_a_flag_are_what_they_were(tmp_path, encoding):
    path = write_zip(tmp_path / "a.zip", {"Sch??del.nii": b"1"})
    name = "Schädel.nii".encode(encoding).replace(
        b"Sch", b"Sch_" if encoding == "cp437" else b"Sch"
    )
    path.write_bytes(path.read_bytes().replace(b"Sch??del.nii", name))
    (scan,) = scans(path)
    assert scan.image.name == name.decode(encoding)
    assert contents([scan])[scan.name] == b"1"


def test_backslashes_of_a_zip_are_folders(tmp_path):
    (scan,) = scans(write_zip(tmp_path / "a.zip", {"p1\\day 1\\x.nii": b"1"}))
    assert scan.image == tmp_path / "a.zip" / "p1" / "day 1" / "x.nii"
    assert contents([scan]) == {"p1-day_1-x": b"1"}


def test_a_compressed_tar_with_damaged_blocks_is_refused_in_words(tmp_path):
    rng = np.random.default_rng(0)
    path = pack({f"{n}.nii": rng.bytes(200_000) for n in range(3)}, tmp_path / "p", "tar.gz")
    content = path.read_bytes()
    middle = len(content) // 2
    for start in (middle, 20):
        path.write_bytes(content[:start] + b"\xff" * 400 + content[start + 400 :])
        with pytest.raises(ManifestError, match=r"does not prove|cut or damaged"):
            scans(path)


@pytest.mark.parametrize("record", [b"x 27 path", b"-5 =\n", b"99 path=a\n", b"12 size=-99\n"])
def test_records_of_a_tar_that_do_not_add_up_are_refused_and_end(tmp_path, record):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for kind, content in ((tarfile.XHDTYPE, record), (tarfile.REGTYPE, b"123")):
            info = tarfile.TarInfo("x.nii")
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(ManifestError, match=r"cut or damaged at its start \(a (record|member)"):
        scans(tmp_path / "a.tar")


def test_a_tar_that_ends_within_a_long_name_is_refused_in_words(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a" * 2000 + ".nii")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"123"))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[:1000])
    with pytest.raises(ManifestError, match="cut or damaged at its start"):
        scans(tmp_path / "a.tar")
