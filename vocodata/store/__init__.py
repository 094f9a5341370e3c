"""The store: a Zarr v3 group with one shard a scan, written and read by our own code.

`shard.py` is the file format, `reader.py` and `gather.py` the compiled way in, `metadata.py` the
OME-Zarr words around it, `catalog.py` the table of scans, `writer.py` and `root.py` what a build
writes, `store.py` what training opens, `verification.py` the check.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocodata.store.catalog import CatalogRow
    from vocodata.store.problems import Problem, VerifyReport
    from vocodata.store.scan_info import ScanInfo
    from vocodata.store.store import Store, open_store
    from vocodata.store.verification import verify
    from vocodata.store.writer import write_scan

__all__ = [
    "CatalogRow",
    "Problem",
    "ScanInfo",
    "Store",
    "VerifyReport",
    "open_store",
    "verify",
    "write_scan",
]

_HOMES = {
    "CatalogRow": "catalog",
    "Problem": "problems",
    "ScanInfo": "scan_info",
    "Store": "store",
    "VerifyReport": "problems",
    "open_store": "store",
    "verify": "verification",
    "write_scan": "writer",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever the module holds)
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        msg = f"module 'vocodata.store' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"vocodata.store.{_HOMES[name]}"), name)
