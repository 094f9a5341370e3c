import json

import pytest

from vocodata.building import build
from vocodata.errors import ManifestError
from vocodata.exclusions import exclusion_text, read_exclusion_list, read_exclusions
from vocodata.store import open_store


def test_a_list_comes_back_and_yaml_is_taken_too(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(exclusion_text(["b/2", "a/1", "b/2"], why="leaks"))
    assert read_exclusions(path) == {"a/1", "b/2"}
    path.write_text("- a/1  # a word\n\n- b/2\n")
    assert read_exclusions(path) == {"a/1", "b/2"}


def test_a_list_says_why_and_what_its_search_had_found(tmp_path):
    path = tmp_path / "list.txt"
    facts = {"checked": 24, "store_digest": "0ab"}
    path.write_text(exclusion_text(["a/1"], why="leaks: a = b", facts=facts))
    got = read_exclusion_list(path)
    assert (got.scans, got.why, got.facts) == ({"a/1"}, "leaks: a = b", facts)
    path.write_text("a/1 # x = 3\n# c/2 = 4\n")
    assert read_exclusion_list(path).facts == {}


@pytest.mark.parametrize("line", ["nothing", "a/1, b/2", "a/b/1", "a/1 near", "\"a/1'", "/1"])
def test_a_line_that_is_no_id_is_refused(line, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(f"a/1\n{line}\n")
    with pytest.raises(ManifestError, match=r"line 2: .* is no id"):
        read_exclusions(path)


def test_quotes_as_yaml_has_them_are_no_part_of_an_id(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("- 'a/1'\n- \"b/2\"  # twice\nb/2\n")
    assert read_exclusions(path) == {"a/1", "b/2"}


def test_facts_of_lists_that_were_put_together_are_added_up(tmp_path):
    path = tmp_path / "list.txt"
    one, other = (
        exclusion_text(["a/1"], why=why, facts={"against": why, "checked": count, "digest": "x"})
        for why, count in (("tests", 3), ("more", 4))
    )
    path.write_text(one + other)
    assert read_exclusion_list(path).facts == {
        "against": "tests, more",
        "checked": 7,
        "digest": "x",
    }


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read"):
        read_exclusions(tmp_path / "list.txt")


def test_a_build_leaves_out_what_is_listed_and_accounts_for_it(make_sources, tmp_path):
    manifest = make_sources(3)
    document = json.loads(manifest.read_text()) | {"exclude": "leaks.txt"}
    manifest.write_text(json.dumps(document))
    (tmp_path / "leaks.txt").write_text("btcv/case1\n")
    report = build(manifest, tmp_path / "ct.zarr", workers=0)
    assert (report.found, report.stored, report.excluded) == (3, 2, {"listed": 1})
    (tmp_path / "leaks.txt").write_text("btcv/case2\n")
    report = build(manifest, tmp_path / "ct.zarr", workers=0, resume=True)
    assert open_store(report.store).ids() == ["btcv/case0", "btcv/case1"]


def test_a_list_with_the_mark_of_windows_leaves_out_its_first_scan_too(tmp_path):
    (tmp_path / "list.txt").write_text("a/1\r\nb/2\r\n", encoding="utf-8-sig")
    assert read_exclusions(tmp_path / "list.txt") == {"a/1", "b/2"}
