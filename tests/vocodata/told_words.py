"""Whether a store tells of a patient: a search of every file, every name and the report of it."""

import json
import re

import pyarrow.parquet as pq

from vocodata.curation_report import write_curation_report

# Short words may stand in compressed bytes by chance, unless something stands before them.
NAMES = ["doe[_^ ]", "[_^ ](john|jane)", "zebulon"]
WORDS = [*NAMES, "19570412", "mrn0012", "00123456", "20190304"]


def told(store):
    """Those of the words that are found anywhere, upper or lower case."""
    return {word for text in _texts(store) for word in WORDS if re.search(word, text.lower())}


def _texts(store):
    """Every name and every content of a store, tables as their rows, and the report of it."""
    files = [path for path in store.rglob("*") if path.is_file()]
    yield from (path.relative_to(store).as_posix() for path in store.rglob("*"))
    yield from (path.read_bytes().decode("latin-1") for path in files if path.suffix != ".parquet")
    for path in store.glob("*.parquet"):
        table = pq.read_table(path)
        yield json.dumps([table.to_pylist(), str(table.schema.metadata)], default=str)
        yield path.read_bytes().decode("latin-1")
    yield write_curation_report(store, store.with_name("report.html")).read_text()
