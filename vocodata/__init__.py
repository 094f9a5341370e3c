"""Files to store: ingest, curate, resample and chunk CT scans. numpy, zarr and dask; never torch.

The public names below are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vocodata.building import build as build
    from vocodata.discover import find_scans as find_scans
    from vocodata.geometry import Size as Size
    from vocodata.geometry import Spacing as Spacing
    from vocodata.geometry import Volume as Volume
    from vocodata.manifest import load_manifest as load_manifest
    from vocodata.readers import read_volume as read_volume
    from vocodata.resampling import resample as resample
    from vocodata.store import open_store as open_store
    from vocodata.store import verify as verify

_HOME = {
    "build": "vocodata.building",
    "find_scans": "vocodata.discover",
    "Size": "vocodata.geometry",
    "Spacing": "vocodata.geometry",
    "Volume": "vocodata.geometry",
    "load_manifest": "vocodata.manifest",
    "read_volume": "vocodata.readers",
    "resample": "vocodata.resampling",
    "open_store": "vocodata.store",
    "verify": "vocodata.store",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        msg = f"module 'vocodata' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
