import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from vocodata.curation_report import page_of, sample_of, write_curation_report
from vocodata.duplicates import Cluster, find_duplicates
from vocodata.errors import StoreError
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
    made = histogram(np.array(values, float))
    assert made["counts"] == counts
    assert set(made["edges"]) == set(values)


def test_the_page_shows_every_scan_and_needs_nothing_else(built, tmp_path):
    page = write_curation_report(built, tmp_path / "new" / "page.html").read_text()
    assert rows_of(page)["id"] == open_store(built).ids()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png") >= 18


def test_the_page_goes_into_a_folder_that_is_there(built, tmp_path):
    assert write_curation_report(built, tmp_path) == tmp_path / "report.html"


def test_the_page_is_not_written_over_a_file_of_the_store(built):
    before = (built / "zarr.json").read_bytes()
    with pytest.raises(StoreError, match="over a file of the store"):
        write_curation_report(built, built / "scans" / ".." / "zarr.json")
    assert (built / "zarr.json").read_bytes() == before


def test_duplicates_stand_side_by_side(built):
    store = open_store(built)
    page = page_of(store, [Cluster("near", ("btcv/case0", "btcv/case1"))])
    part = page.split('class="duplicates"')[1].split("</section>")[0]
    assert re.findall(r'data-id="(.*?)"', part) == ["btcv/case0", "btcv/case1"]
    assert "more, which" not in part
    many = page_of(store, [Cluster("near", tuple(f"btcv/case{n % 5}" for n in range(1204)))])
    assert "And 1,200 more, which <code>voco data dedup</code> names." in many


def test_hostile_names_are_only_names(built):
    out = [ExcludedRow(HOSTILE, HOSTILE, "screenshot", HOSTILE)]
    rows = [replace(row, licence=HOSTILE) for row in catalog_rows(open_store(built).catalog())]
    page = page_of(republished(built, rows, out), [])
    assert HOSTILE not in page
    assert page.count("<script") == 2
    assert rows_of(page)["id"][-1] == f"{HOSTILE}/{HOSTILE}"


def test_an_empty_store_has_a_page(built):
    assert "No scan is there twice" in page_of(republished(built, []), [])


def test_of_a_build_that_has_not_finished_page_figures_and_search_say_so(built, caplog):
    rows = catalog_rows(open_store(built).catalog())
    assert store_statistics(built)["complete"]
    assert "has not finished" not in page_of(open_store(built), [])
    publish(built, rows, [], found=len(rows) + 1, recipe_digest="")
    assert not store_statistics(built)["complete"]
    assert "has not finished" in page_of(open_store(built), [])
    assert "has not finished" not in caplog.text
    find_duplicates(built)
    assert "its build has not finished, so scans still to come are not looked at" in caplog.text


@pytest.fixture
def many(built):
    """The store's table with its first scan's row 5,000 times over: pictures are of real ones."""
    row = next(r for r in catalog_rows(open_store(built).catalog()) if r.source == "btcv")
    rows = [replace(row, id=f"btcv/n{at:06}", name=f"n{at:06}") for at in range(5_000)]
    return republished(built, rows)


def test_many_rows_make_a_small_page_with_few_pictures(many):
    chosen = sample_of(many)
    assert 40 <= len(chosen) <= 60
    for scan in chosen:
        (many.root / "scans" / scan).symlink_to(many.root / "scans/btcv/case0")
    page = page_of(many, [])
    assert len(rows_of(page)["id"]) == 5_000
    assert len(page) < 2_500_000


def test_pictures_are_small_and_windowed():
    assert shrunk(np.zeros((300, 100), np.int16), 96).shape == (75, 50)
    hu = np.array([[-1000, -175, 250, 3000]], np.int16)
    assert grey(hu, (-175, 250)).tolist() == [[0, 0, 255, 255]]


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
DRIVER = """
<script>
const told = [];
window.addEventListener("error", event => told.push({error: String(event.message)}));
function use(name, value) {
  const field = document.getElementById(name);
  field.value = value;
  field.dispatchEvent(new Event("input"));
}
for (const step of STEPS) {
  const began = performance.now();
  for (const name of ["search", "state", "why"]) use(name, step[name] || "");
  for (let click = 0; click < (step.more || 0); click++) document.getElementById("more").click();
  const rows = [...document.querySelectorAll("#rows tr")];
  told.push({
    matches: document.getElementById("matches").textContent,
    rows: rows.map(row => row.firstChild.textContent),
    states: [...new Set(rows.map(row => row.children[1].textContent))],
    sheets: [...document.querySelectorAll("#sheets article")]
      .filter(card => !card.hidden && card.offsetHeight > 0).map(card => card.dataset.id),
    more: !document.getElementById("more").hidden,
    ms: performance.now() - began,
  });
}
const out = document.createElement("pre");
out.id = "told";
out.textContent = JSON.stringify(told);
document.body.append(out);
</script>
"""


def browsed(text, folder, steps, fragment=""):
    """What a browser shows after each step, its title, and what its console said."""
    page = folder / "page.html"
    driver = DRIVER.replace("STEPS", json.dumps(steps))
    page.write_text(text.replace("</body>", f"{driver}</body>"))
    words = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    words += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = [BROWSER, *words.split(), f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [*command, page.as_uri() + fragment], capture_output=True, text=True, timeout=120
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout).group(1)
    title = re.search(r"<title>(.*?)</title>", done.stdout).group(1)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(told)), title, console


@pytest.mark.slow
@needs_browser
def test_a_browser_filters_by_word_state_and_reason_and_reports_no_error(built, tmp_path):
    rows = catalog_rows(open_store(built).catalog())
    flags = {"case3": ("no_bone",), "case1": ("no_bone", "few_slices")}
    rows = [replace(row, flags=flags.get(row.name, ())) for row in rows]
    out = [ExcludedRow(HOSTILE, "x", "screenshot", HOSTILE), ExcludedRow("btcv", "y", "no_air", "")]
    text = page_of(republished(built, rows, out), [])
    steps = [
        {},
        {"search": "CASE3"},
        {"search": "btcv no_bone"},
        {"state": "kept"},
        {"state": "flagged"},
        {"state": "excluded"},
        {"why": "no_bone"},
        {"why": "no_air"},
        {"why": "no_bone", "search": "few"},
        {"state": "kept", "why": "no_bone"},
    ]
    told, title, console = browsed(text, tmp_path, steps)
    kept = ["abdo/case0", "btcv/case0", "btcv/case2", "btcv/case4"]
    flagged = ["btcv/case1", "btcv/case3"]
    excluded = [f"{HOSTILE}/x", "btcv/y"]
    assert [sorted(step["rows"]) for step in told] == [
        sorted([*kept, *flagged, *excluded]),
        ["btcv/case3"],
        flagged,
        kept,
        flagged,
        sorted(excluded),
        flagged,
        ["btcv/y"],
        ["btcv/case1"],
        [],
    ]
    for step, wanted in zip(told, (8, 1, 2, 4, 2, 2, 2, 1, 1, 0), strict=True):
        assert step["matches"] == f"{wanted} of 8"
        assert sorted(step["sheets"]) == sorted(set(step["rows"]) - set(excluded))
        assert not step["more"]
    assert [step["states"] for step in told[3:6]] == [["kept"], ["flagged"], ["excluded"]]
    assert "owned" not in title
    assert console == []


@pytest.mark.slow
@needs_browser
def test_an_error_of_the_page_would_be_seen(built, tmp_path):
    text = page_of(open_store(built), [])
    broken = text.replace("filter();\n</script>", "filter();\nnothing.there();\n</script>")
    assert broken != text
    (line,) = browsed(broken, tmp_path, [])[2]
    assert "nothing is not defined" in line


@pytest.mark.slow
@needs_browser
def test_an_address_can_carry_a_search(built, tmp_path):
    # The driver's steps would overwrite it, so the page is looked at as it opens.
    look = "<script>document.title = document.getElementById('matches').textContent</script>"
    text = page_of(open_store(built), []).replace("</body>", f"{look}</body>")
    assert browsed(text, tmp_path, [], "#case3")[1] == "1 of 6"


@pytest.mark.slow
@needs_browser
def test_long_names_break_neither_the_page_nor_the_columns_beside_them(built, tmp_path):
    # Lines of the second column, and by how much the page is wider than the window.
    look = """<script>
    const text = document.createRange();
    text.selectNodeContents(document.querySelector("#rows td:nth-child(2)"));
    const root = document.documentElement;
    const wider = root.scrollWidth - root.clientWidth;
    document.title = [text.getClientRects().length, wider].join();
    </script>"""
    out = [ExcludedRow("s" * 64, "n" * 129, "screenshot", "")]
    text = page_of(republished(built, [], out), []).replace("</body>", f"{look}</body>")
    assert browsed(text, tmp_path, [])[1] == "1,0"


@pytest.mark.slow
@needs_browser
def test_a_page_of_160_000_rows_opens_and_filters(built, tmp_path):
    row = next(r for r in catalog_rows(open_store(built).catalog()) if r.source == "btcv")
    flags = ((), (), (), ("no_bone",))
    rows = [
        replace(row, id=f"btcv/n{at:06}", name=f"n{at:06}", flags=flags[at % 4])
        for at in range(160_000)
    ]
    store = republished(built, rows)
    for scan in sample_of(store):
        (store.root / "scans" / scan).symlink_to(store.root / "scans/btcv/case0")
    text = page_of(store, [])
    assert len(text) < 20_000_000
    steps = [{"state": "flagged", "more": 2}, {"search": "n159999"}]
    told, _, console = browsed(text, tmp_path, steps)
    assert (told[0]["matches"], len(told[0]["rows"])) == ("40,000 of 160,000", 300)
    assert told[0]["more"]
    assert told[1]["rows"] == ["btcv/n159999"]
    assert console == []
