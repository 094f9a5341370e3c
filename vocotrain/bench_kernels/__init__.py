"""Speed of our kernels against their peers: what `voco bench kernels` runs.

settings.py says what is asked for, cases.py which stages that makes, attention.py who computes
them, timing.py with which clock, limits.py what the device could do at best, running.py checks and
times one job after another, and document.py is what comes out.
"""

from vocotrain.bench_kernels.document import Document
from vocotrain.bench_kernels.running import bench_kernels
from vocotrain.bench_kernels.settings import BenchSettings, resolve_settings
from vocotrain.bench_kernels.table import not_timed, table

__all__ = ["BenchSettings", "Document", "bench_kernels", "not_timed", "resolve_settings", "table"]
