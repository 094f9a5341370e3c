"""Random crops out of stored volumes, our store against what people use: `voco bench loader`.

volumes.py makes volumes that look like CT and writes them in every format, readers.py opens them,
measuring.py times the readers in one process of its own, scaling.py lets two processes read at
once, running.py puts the whole together, and table.py is for people.
"""

from vocotrain.bench_loader.running import LoaderReport, bench_loader
from vocotrain.bench_loader.settings import LoaderSettings, resolve_settings
from vocotrain.bench_loader.table import goals, table

__all__ = [
    "LoaderReport",
    "LoaderSettings",
    "bench_loader",
    "goals",
    "resolve_settings",
    "table",
]
