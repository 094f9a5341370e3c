"""Everything that can be wrong with a scan, in one build: excluded by its own reason, no more."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vocodata.conftest import write_sources
from tests.vocodata.dicom_series import write_series
from tests.vocodata.faults import FILES, MEMBERS, SERIES, SLICES
from vocodata.building import build
from vocodata.errors import REASONS, ManifestError
from vocodata.store import open_store, verify

GOOD = 3
LIMIT_S = 60
LIMIT_BYTES = 400e6
"""Under half of what the bombs would take."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The build of all faults beside some good scans, and what it took."""
    folder = tmp_path_factory.mktemp("faults")
    document = json.loads(write_sources(folder, GOOD).read_text())
    for kind, table in (("files", FILES), ("series", SERIES)):
        (folder / kind).mkdir()
        for name, suffix, _, make in table:
            make(folder / kind / f"{name}{suffix}")
    rows = [
        {"name": "files", "root": "files", "layout": "glob", "images": "*.*"},
        {"name": "series", "root": "series", "layout": "dicom", "names": "path"},
    ]
    for name, _, _, make in MEMBERS:
        root = make(folder / f"{name}.zip")
        rows.append({"name": name, "root": str(root), "layout": "glob", "images": "**/*.nii.gz"})
    document["sources"] += [row | {"preset": "abdomen"} for row in rows]
    (folder / "all.yaml").write_text(json.dumps(document))
    began = time.perf_counter()
    report = build(folder / "all.yaml", folder / "ct.zarr", workers=0)
    return report, time.perf_counter() - began


def wanted():
    """Scan -> reason."""
    named = {("files", name): code for name, _, code, _ in FILES}
    named |= {("series", name): code for name, _, code, _ in SERIES}
    return named | {(name, None): code for name, _, code, _ in MEMBERS}


def test_there_are_sixty_faults_and_their_reasons_are_known():
    assert len(FILES) + len(SERIES) + len(MEMBERS) >= 60
    assert set(wanted().values()) <= set(REASONS)
    assert len(set(wanted().values())) >= 45


def test_each_fault_is_excluded_by_its_own_reason(built):
    rows = built[0].excluded_rows
    inside = {name for name, *_ in MEMBERS}
    got = {(row.source, None if row.source in inside else row.scan): row.reason for row in rows}
    assert got == wanted()
    assert len(rows) == len(got)


def test_every_detail_is_a_sentence_without_a_path_of_the_machine(built):
    for row in built[0].excluded_rows:
        assert len(row.detail) > 20, row
        assert str(built[0].store.parent) not in row.detail, row
        assert "voco-" not in row.detail, row
        assert ".tmp-" not in row.detail, row


def test_good_scans_beside_them_are_stored_and_all_are_accounted_for(built):
    report = built[0]
    assert report.stored == GOOD
    assert report.found == GOOD + len(wanted()) == report.stored + len(report.excluded_rows)
    assert len(open_store(report.store).ids()) == GOOD
    assert verify(report.store).ok


def test_time_and_memory_stay_bounded(built, tmp_path):
    assert built[1] < LIMIT_S
    folder = built[0].store.parent
    document = json.loads((folder / "all.yaml").read_text())
    document["sources"] = document["sources"][:1]
    (folder / "good.yaml").write_text(json.dumps(document))
    program = Path(__file__).with_name("measured_build.py")
    done = subprocess.run(
        [sys.executable, program, folder / "good.yaml", folder / "all.yaml", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=2 * LIMIT_S,
    )
    grown = int(done.stdout.split()[-1])
    assert grown < LIMIT_BYTES, grown


def test_nothing_is_left_behind_and_nothing_was_written_outside(built):
    folder = built[0].store.parent
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name]
    assert not list(folder.parent.rglob("zip-slip*"))
    assert not list(folder.parent.rglob("absolute.nii.gz"))


NOBODY = 65534


@pytest.fixture
def open_folder():
    """A folder that another user can work in; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def plain_user():
    """Without the rights of root, which may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def forbidden(open_folder):
    """A manifest of two good scans, and two whose file or slice may not be read."""
    document = json.loads(write_sources(open_folder, 3).read_text())
    (open_folder / "sources/btcv/images/case1.nii.gz").chmod(0)
    write_series(open_folder / "slice", SLICES)
    (open_folder / "slice/0003.dcm").chmod(0)
    source = {"name": "slice", "root": "slice", "layout": "dicom", "preset": "abdomen"}
    source["names"] = "path"
    document["sources"].append(source)
    path = open_folder / "forbidden.yaml"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.usefixtures("built")  # what a build loads is loaded while that is allowed
def test_a_file_that_may_not_be_read_is_excluded_until_it_may(forbidden):
    with plain_user():
        with pytest.raises(PermissionError):
            (forbidden.parent / "sources/btcv/images/case1.nii.gz").read_bytes()
        report = build(forbidden, forbidden.parent / "ct.zarr", workers=0)
    assert [(row.source, row.scan) for row in report.excluded_rows] == [
        ("btcv", "case1"),
        ("slice", "slice"),
    ]
    assert {row.reason for row in report.excluded_rows} == {"io_error"}
    assert all("Permission denied" in row.detail for row in report.excluded_rows)
    assert (report.found, report.stored) == (4, 2)


@pytest.fixture
def closed(open_folder):
    """A root with a folder in it that may not be listed."""
    write_series(open_folder / "closed/inner", SLICES).chmod(0)
    return open_folder / "closed"


LISTED = [
    {"layout": "dicom"},
    {"layout": "dicom", "root": "closed/inner"},
    {"layout": "glob", "images": "**/*.nii.gz"},
]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("words", LISTED, ids=["below", "root", "glob"])
def test_a_folder_that_may_not_be_listed_stops_a_build_before_scans_are_missed(closed, words):
    source = {"name": "a", "root": "closed", "preset": "abdomen"} | words
    manifest = closed.parent / "manifest.yaml"
    manifest.write_text(json.dumps({"version": 1, "sources": [source]}))
    words = r"closed/inner.*\(Permission denied\)"
    with plain_user(), pytest.raises(ManifestError, match=words):
        build(manifest, closed.parent / "ct.zarr", workers=0)
