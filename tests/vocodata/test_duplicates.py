import numpy as np
import pytest

from tests.vocodata.bodies import body
from vocodata.duplicates import (
    Link,
    all_but_first,
    clusters,
    find_duplicates,
    groups,
    links,
    plain,
)
from vocodata.errors import StoreError
from vocodata.fingerprint import fingerprint, parse_fingerprint
from vocodata.geometry import Spacing, Volume
from vocodata.resampling import resample
from vocodata.store import open_store
from vocodata.store.catalog import CATALOG_NAME


def test_copies_are_found_across_sources_and_others_left_alone(doubled):
    assert plain(find_duplicates(doubled / "ct.zarr")) == {
        "clusters": [
            {"kind": "exact", "scans": ["a/s1", "b/forced"]},
            {"kind": "near", "scans": ["a/s2", "b/part"]},
        ]
    }


def test_a_catalogue_of_another_version_is_refused(built):
    import pyarrow.parquet as pq

    table = open_store(built).catalog()
    at = table.column_names.index("fingerprint")
    old = table.set_column(at, "fingerprint", [["v1:A:A"] * table.num_rows])
    pq.write_table(old, built / CATALOG_NAME)
    with pytest.raises(StoreError, match="Another version wrote the catalogue"):
        find_duplicates(built)


def test_a_near_copy_is_found_though_the_first_exact_copy_has_a_wrong_affine():
    whole = body(7)
    forced = Volume(whole.data_XYZ, np.diag([1.4, 1.4, 1.4, 1.0]))
    spaced = resample(whole, Spacing(3, 3, 3))
    volumes = {"a/forced": forced, "b/whole": whole, "c/spaced": spaced}
    prints = {scan: parse_fingerprint(fingerprint(volume)) for scan, volume in volumes.items()}
    found = [link[:3] for link in links(prints)]
    assert found == [
        ("exact", "a/forced", "b/whole"),
        ("near", "a/forced", "c/spaced"),
        ("near", "b/whole", "c/spaced"),
    ]


def test_clusters_join_what_hangs_together():
    found = [
        Link("exact", "a/1", "b/1", ""),
        Link("near", "b/1", "c/1", ""),
        Link("near", "d/1", "d/2", ""),
        Link("exact", "e/1", "e/2", ""),
    ]
    got = clusters(found)
    assert [(each.kind, each.scans) for each in got] == [
        ("exact", ("a/1", "b/1")),
        ("near", ("a/1", "b/1", "c/1")),
        ("near", ("d/1", "d/2")),
        ("exact", ("e/1", "e/2")),
    ]
    assert all_but_first(got) == ["b/1", "c/1", "d/2", "e/2"]
    # The exact copies a/1 and b/1 are of the body that c/1 is of as well.
    assert groups(got) == 3
