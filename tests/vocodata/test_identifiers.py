"""No name, number, date or UID of a patient's DICOM header reaches the store."""

import functools
import hashlib
import json
import zlib

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict

from tests.vocodata.dicom_series import dataset
from vocodata.building import build
from vocodata.store import open_store

MARK = "Zebulon"
UID = "1.2.826.0.1.3680043.8.498.7777"
DATE = "19570412"
TIME = "112233"
DECOYS = {
    "PN": f"{MARK}^Patient", "LO": f"{MARK} LO", "SH": f"{MARK} SH", "LT": f"{MARK} LT",
    "ST": f"{MARK} ST", "UT": f"{MARK} UT", "AE": MARK, "UC": f"{MARK} UC", "DA": DATE,
    "TM": TIME, "DT": DATE + TIME, "AS": "067Y", "UI": UID,
}  # fmt: skip
GROUPS = {0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040}
SECRETS = [MARK, UID, DATE, TIME, "067Y", "8.498"]
PATH_UID = "1.3.6.1.4.1.14519.5.2.1.3320"
"""Of folders and files; the ledger, which lies outside the store, may name those."""
PARTS = {
    "half/1": ("half", range(8)), "half/2": ("half", range(8, 16)),
    f"{PATH_UID}.2": ("over", range(10)), f"{PATH_UID}.3": ("over", range(6, 16)),
}  # fmt: skip
"""Folder -> series that others have slices of, too, and which it has."""


def _series(kind, number=0):
    return f"{UID}.{zlib.crc32(kind.encode())}.{number}"


@functools.cache
def _names():
    """Every attribute of the dictionary's groups on people, visits and machines, filled."""
    made = pydicom.Dataset()
    for keyword in keyword_dict:
        tag = pydicom.tag.Tag(keyword_dict[keyword])
        kind = dictionary_VR(tag)
        if tag.group in GROUPS and kind in DECOYS:
            made.add_new(tag, kind, DECOYS[kind])
    block = made.private_block(0x0009, f"{MARK} private", create=True)
    block.add_new(1, "LO", f"{MARK} inside")
    return made


def _full_of_names(slice_):
    own = dict(slice_.items())
    slice_.update(_names())
    slice_.update(own)
    return slice_


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of good and of bad series, whose headers are full of names."""
    folder = tmp_path_factory.mktemp("names")
    x, y, z = np.indices((24, 22, 16))
    body = ((x - 12) ** 2 + (y - 11) ** 2 < 64) & (z > 1) & (z < 15)
    hu = np.where(body, 40 + x, -1000).astype(np.int16)
    kinds = {"good": {}, "mr": {"Modality": "MR"}, "cut": {}, "gap": {}, "bent": {}, "two": {}}
    kinds |= {f"{PATH_UID}.1": {}} | {place: {} for place in PARTS}
    for kind, changes in kinds.items():
        at = folder / "d" / kind
        at.mkdir(parents=True)
        each = 2 if kind == "two" else 1
        named, places = PARTS.get(kind, (kind, range(16 * each)))
        for n in places:
            series = _series(named, n % each)
            slice_ = dataset(hu[:, :, n // each].T, (-10, 20, 4 * n / each), series, **changes)
            made = _full_of_names(slice_)
            made.PixelSpacing = [4, 4]
            if kind == "bent":
                made.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
            made.save_as(at / f"{PATH_UID}.{n}.dcm", enforce_file_format=True)
    (folder / f"d/gap/{PATH_UID}.5.dcm").unlink()
    damaged = folder / f"d/cut/{PATH_UID}.7.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    # By path: then a reason is told in full, and headers have one way more into the store.
    row = {"name": "a", "root": "d", "layout": "dicom", "preset": "demo", "names": "path"}
    (folder / "m.yaml").write_text(json.dumps({"version": 1, "sources": [row]}))
    return folder, build(folder / "m.yaml", folder / "ct.zarr", workers=0)


def test_the_build_met_good_series_and_bad_ones(stores):
    _, report = stores
    assert report.found == 11
    assert report.stored == 5
    reasons = {"not_ct", "corrupt_dicom", "missing_slices", "bad_affine", "scattered_series"}
    assert set(report.excluded) == reasons


def test_no_byte_of_any_file_and_no_file_name_holds_a_secret(stores):
    folder, report = stores
    files = [path for path in report.store.rglob("*") if path.is_file()]
    assert len(files) > 9
    for path in files:
        for secret in (*SECRETS, PATH_UID):
            assert secret.encode() not in path.read_bytes(), path
            assert secret not in str(path.relative_to(folder))


def test_no_text_of_any_attribute_or_table_holds_a_secret(stores):
    _, report = stores
    texts = [json.dumps(json.loads(p.read_bytes())) for p in report.store.rglob("zarr.json")]
    tables = [pq.read_table(report.store / f"{name}.parquet") for name in ("catalog", "excluded")]
    texts += [json.dumps(table.to_pylist(), default=str) for table in tables]
    texts += open_store(report.store).ids()
    for text in texts:
        assert not [secret for secret in (*SECRETS, PATH_UID) if secret in text]
    for row in open_store(report.store).excluded().to_pylist():
        assert str(report.store.parent) not in row["detail"]


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_series_cannot_be_guessed_from_its_name(stores):
    _, report = stores
    ids = open_store(report.store).ids()
    told = [("two", 0), ("two", 1), ("half", 0)]
    plain = {_digest(f"{kind}/{_series(kind, n)}") for kind, n in told}
    plain |= {_digest(_series(kind, n)) for kind, n in told}
    named = [scan.partition("-")[0] for scan in ids]
    assert (named.count("a/two"), named.count("a/half")) == (2, 1)
    assert not [scan for scan in ids for short in plain if short in scan]


def test_the_salt_is_nowhere_in_the_store_or_the_ledger(stores):
    _, report = stores
    salt = report.store.with_name("ct.zarr.salt").read_bytes().strip()
    for path in (*report.store.rglob("*"), report.store.with_name("ct.zarr.ledger.sqlite")):
        assert not path.is_file() or salt not in path.read_bytes()


def test_the_ledger_beside_the_store_holds_paths_and_no_header(stores):
    _, report = stores
    content = report.store.with_name("ct.zarr.ledger.sqlite").read_bytes()
    assert not [secret for secret in SECRETS if secret.encode() in content]
