import re
from collections import Counter

import pytest
import yaml
from pydantic import ValidationError

from vocodata.errors import ManifestError
from vocodata.manifest import load_manifest
from vocodata.presets import load_presets
from vocodata.source_catalog import _Row, catalog_manifest, load_catalog

ROWS = load_catalog("prect160k")


def test_what_the_loader_reads_adds_up_to_the_papers_number():
    used = [row for row in ROWS.values() if row.used]
    assert sum(row.counts.loader for row in used) == 160_167
    by_weight = {
        (preset == "chest"): sum(r.counts.loader for r in used if (r.preset == "chest") == chest)
        for preset, chest in (("chest", True), ("abdomen", False))
    }
    assert by_weight == {True: 139_219, False: 14_906 + 6_042}
    assert sum(row.counts.loader * row.weight for row in used) == 306_803


def test_the_papers_rows_and_those_without_a_loader_are_kept_apart():
    unused = {row.name for row in ROWS.values() if not row.used}
    assert unused == {"opc-radiomics", "tcia-colon"}
    assert all(ROWS[name].counts.loader == 0 for name in unused)
    assert (ROWS["lidc"].counts.paper, ROWS["lidc"].counts.loader) == (1018, 589)


def test_the_10k_subset_has_the_papers_eight_sources():
    subset = [row for row in ROWS.values() if row.subset_10k]
    assert len(subset) == 8
    assert sum(row.counts.paper for row in subset) == 10_881


def test_every_row_fits_a_manifest():
    for row in ROWS.values():
        assert row.preset in load_presets()
        assert row.weight == (1 if row.preset == "chest" else 8)
        assert row.licence


def test_every_row_says_what_to_cite_and_no_doi_stands_for_two_papers():
    assert len(ROWS) == 28
    for row in ROWS.values():
        assert row.citation == row.citation.strip()
        assert re.search(r"(19|20)\d\d|https://", row.citation), row.name
        assert len(row.citation) > 30
    found = (re.findall(r"doi:(\S+?)\.?(?=\s|$)", row.citation) for row in ROWS.values())
    shared = Counter(doi for dois in found for doi in dois)
    assert {doi for doi, count in shared.items() if count > 1} == {
        "10.1038/s41467-022-30695-9",
        "10.7937/K9/TCIA.2015.NWTESAY1",
    }


def test_a_row_without_a_citation_is_refused():
    row = {key: getattr(ROWS["btcv"], key) for key in _Row.model_fields}
    assert _Row.model_validate(row).citation == ROWS["btcv"].citation
    with pytest.raises(ValidationError, match="citation"):
        _Row.model_validate(row | {"citation": ""})
    del row["citation"]
    with pytest.raises(ValidationError, match="citation"):
        _Row.model_validate(row)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data's"
    for name in ("BTCV", "MELA", "Luna16-jx"):
        (folder / name).mkdir(parents=True)
    return folder


def test_a_manifest_names_what_is_there_and_says_what_is_not(root, tmp_path):
    text = catalog_manifest("prect160k", root)
    (tmp_path / "m.yaml").write_text(text)
    sources = {s.name: s for s in load_manifest(tmp_path / "m.yaml").sources}
    assert set(sources) == {"btcv", "mela", "luna16"}
    assert sources["btcv"].root == root / "BTCV"
    assert (sources["btcv"].expected, sources["btcv"].weight) == (30, 8)
    assert sources["btcv"].labels == "labelsTr/label{id}.nii.gz"
    assert "#   NLST_convert_v1: NLST, 84830 scans" in text
    assert "3 of 26 sources" in text


def test_citations_reach_the_manifest_as_comments(root):
    lines = catalog_manifest("prect160k", root).splitlines()
    for name in ("btcv", "mela", "luna16"):
        at = lines.index(f"  - name: {name}")
        assert lines[at - 1] == f"  # Cite: {ROWS[name].citation}"


def test_a_subset_is_selected(root):
    names = [row["name"] for row in yaml.safe_load(catalog_manifest("prect160k", root, subset="10k"))["sources"]]  # fmt: skip  # noqa: E501 (one thought)
    assert names == ["btcv", "luna16"]


def test_what_is_not_known_is_refused(root, tmp_path):
    with pytest.raises(ManifestError, match="did you mean 'prect160k'"):
        load_catalog("prect-160k")
    with pytest.raises(ManifestError, match="expected one of prect160k"):
        load_catalog("zzz")
    with pytest.raises(ManifestError, match="Subset '9k' is not known; expected 10k"):
        catalog_manifest("prect160k", root, subset="9k")
    with pytest.raises(ManifestError, match="holds no source of prect160k; expected folders such"):
        catalog_manifest("prect160k", tmp_path)
