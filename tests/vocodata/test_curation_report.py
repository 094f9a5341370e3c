import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from vocodata.curation_report import page_of, sample_of, write_curation_report
from vocodata.duplicates import Cluster
from vocodata.pictures import grey, shrunk
from vocodata.statistics import histogram, store_statistics
from vocodata.store import open_store
from vocodata.store.catalog import ExcludedRow, catalog_rows
from vocodata.store.root import publish

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>'


def republished(root, rows, excluded=()):
    rows = sorted(rows, key=lambda row: row.id)
    found = len(rows) + len(excluded)
    publish(root, rows, list(excluded), found=found, recipe_digest="")
    return open_store(root)


def rows_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))


def test_figures_add_up(built):
    rows = [replace(row, flags=("no_bone",)) for row in catalog_rows(open_store(built).catalog())]
    store = republished(built, rows, [ExcludedRow("btcv", "x", "screenshot", "grey levels")])
    figures = store_statistics(store)
    assert (figures["found"], figures["stored"], figures["excluded"]) == (7, 6, 1)
    assert figures["sources"]["btcv"] == {"stored": 5, "flagged": 5, "excluded": 1}
    assert figures["flags"] == {"no_bone": 6}
    assert figures["reasons"] == {"screenshot": 1}
    assert all(sum(each["counts"]) == 6 for each in figures["histograms"].values())
    assert figures == store_statistics(built)


@pytest.mark.parametrize(("values", "counts"), [([], []), ([3, 3], [2])])
def test_a_histogram_of_nothing_and_of_one_value(values, counts):
    assert histogram(np.array(values, float))["counts"] == counts


def test_the_page_shows_every_scan_and_needs_nothing_else(built, tmp_path):
    page = write_curation_report(built, tmp_path / "new" / "page.html").read_text()
    assert rows_of(page)["id"] == open_store(built).ids()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png") >= 18


def test_duplicates_stand_side_by_side(built):
    store = open_store(built)
    page = page_of(store, [Cluster("near", ("btcv/case0", "btcv/case1"))])
    part = page.split('class="duplicates"')[1].split("</section>")[0]
    assert re.findall(r'data-id="(.*?)"', part) == ["btcv/case0", "btcv/case1"]


def test_hostile_names_are_only_names(built):
    out = [ExcludedRow(HOSTILE, HOSTILE, "screenshot", HOSTILE)]
    rows = [replace(row, licence=HOSTILE) for row in catalog_rows(open_store(built).catalog())]
    page = page_of(republished(built, rows, out), [])
    assert HOSTILE not in page
    assert page.count("<script") == 2
    assert rows_of(page)["id"][-1] == f"{HOSTILE}/{HOSTILE}"


def test_an_empty_store_has_a_page(built):
    assert "No scan is there twice" in page_of(republished(built, []), [])


@pytest.fixture
def many(built):
    """The store's table with its first scan's row 20,000 times over: pictures are of real ones."""
    row = next(r for r in catalog_rows(open_store(built).catalog()) if r.source == "btcv")
    rows = [replace(row, id=f"btcv/n{at:06}", name=f"n{at:06}") for at in range(20_000)]
    return republished(built, rows)


def test_many_rows_make_a_small_page_with_few_pictures(many):
    chosen = sample_of(many)
    assert 40 <= len(chosen) <= 60
    for scan in chosen:
        (many.root / "scans" / scan).symlink_to(many.root / "scans/btcv/case0")
    page = page_of(many, [])
    assert len(rows_of(page)["id"]) == 20_000
    assert len(page) < 4_000_000


def test_pictures_are_small_and_windowed():
    assert shrunk(np.zeros((300, 100), np.int16), 96).shape == (75, 50)
    hu = np.array([[-1000, -175, 250, 3000]], np.int16)
    assert grey(hu, (-175, 250)).tolist() == [[0, 0, 255, 255]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_filters_the_table_and_reports_no_error(built, tmp_path):
    rows = catalog_rows(open_store(built).catalog())
    rows = [replace(row, flags=("no_bone",) if row.name == "case3" else ()) for row in rows]
    store = republished(built, rows, [ExcludedRow(HOSTILE, "x", "screenshot", HOSTILE)])
    page = tmp_path / "page.html"
    page.write_text(page_of(store, []))
    words = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    words += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = ["chromium", *words.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, f"{page.as_uri()}#no_bone"], capture_output=True, text=True, timeout=90
    )
    body = done.stdout.split('id="rows"')[1].split("</tbody>")[0]
    assert re.findall(r"<tr><td>(.*?)</td>", body) == ["btcv/case3"]
    assert "1 of 7" in done.stdout
    assert "owned" not in re.search(r"<title>.*?</title>", done.stdout).group()
    assert "CONSOLE" not in done.stderr
