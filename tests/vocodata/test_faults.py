"""Everything that can be wrong with a scan, in one build: excluded by its own reason, no more."""

import json
import resource
import time

import pytest

from tests.vocodata.conftest import write_sources
from tests.vocodata.faults import FILES, MEMBERS, SERIES
from vocodata.building import build
from vocodata.errors import REASONS
from vocodata.store import open_store, verify

GOOD = 3
LIMIT_S = 60
LIMIT_BYTES = 600e6


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
        {"name": "series", "root": "series", "layout": "dicom"},
    ]
    for name, _, _, make in MEMBERS:
        root = make(folder / f"{name}.zip")
        rows.append({"name": name, "root": str(root), "layout": "glob", "images": "**/*.nii.gz"})
    document["sources"] += [row | {"preset": "abdomen"} for row in rows]
    (folder / "all.yaml").write_text(json.dumps(document))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    report = build(folder / "all.yaml", folder / "ct.zarr", workers=0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return report, time.perf_counter() - began, grown


def wanted():
    """Scan -> reason."""
    named = {("files", name): code for name, _, code, _ in FILES}
    named |= {("series", name): code for name, _, code, _ in SERIES}
    return named | {(name, None): code for name, _, code, _ in MEMBERS}


def test_there_are_sixty_faults_and_their_reasons_are_known():
    assert len(FILES) + len(SERIES) + len(MEMBERS) >= 60
    assert set(wanted().values()) <= set(REASONS)
    assert len(set(wanted().values())) >= 35


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


def test_time_and_memory_stay_bounded(built):
    _, seconds, grown = built
    assert seconds < LIMIT_S
    assert grown < LIMIT_BYTES


def test_nothing_is_left_behind_and_nothing_was_written_outside(built):
    folder = built[0].store.parent
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name]
    assert not list(folder.parent.rglob("zip-slip*"))
    assert not list(folder.parent.rglob("absolute.nii.gz"))
