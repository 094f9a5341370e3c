"""What a run found, as one document: rows with the columns of Liger-Kernel's benchmark tables."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vocotrain.bench_kernels.jobs import Job
    from vocotrain.bench_kernels.limits import Limits
    from vocotrain.bench_kernels.settings import BenchSettings
    from vocotrain.bench_kernels.timing import Spread

_PACKAGES = ("voco-toolkit", "torch", "triton", "monai", "numpy")
UNITS = {"speed": "ms", "processor": "ms", "memory": "MB"}


@dataclass(frozen=True)
class Row:
    """One measure of one implementation; `y` are the median and the fifths at both ends."""

    kernel_name: str
    kernel_provider: str
    kernel_operation_mode: str
    """forward, backward or full."""
    metric_name: str
    """speed (the wall's time, or the device's), processor (that of all threads), memory (peak)."""
    metric_unit: str
    x_name: str
    x_label: str
    x_value: str
    y_value_50: float
    y_value_20: float
    y_value_80: float
    extra_benchmark_config_str: str
    """JSON: sizes, difference from the peer that all are checked against, and counts."""
    gpu_name: str
    timestamp: str
    version: str


@dataclass(frozen=True)
class Absence:
    """An implementation without numbers, and why."""

    kernel_name: str
    kernel_provider: str
    x_value: str
    reason: str
    is_wrong: bool
    """It ran, and what it computed differs: nothing of it was timed."""


@dataclass(frozen=True)
class Document:
    """All that one run found."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    limits: Limits
    rows: tuple[Row, ...]
    absent: tuple[Absence, ...]

    @property
    def wrong(self) -> list[Absence]:
        """Implementations whose results differ."""
        return [absence for absence in self.absent if absence.is_wrong]


def rows_of(
    job: Job,
    provider: str,
    found: Mapping[tuple[str, str], Spread],
    *,
    notes: Mapping[str, Mapping[str, Any]],
    device: torch.device,
) -> Iterator[Row]:
    """The rows of one implementation of one case.

    Args:
        job: The case.
        provider: Who computed it.
        found: By mode and metric.
        notes: What to say of each mode beside the number.
        device: Where it ran.
    """
    for (mode, metric), spread in found.items():
        yield Row(
            kernel_name=job.kernel,
            kernel_provider=provider,
            kernel_operation_mode=mode,
            metric_name=metric,
            metric_unit=UNITS[metric],
            x_name="case",
            x_label="case",
            x_value=job.name,
            y_value_50=spread.median,
            y_value_20=spread.low,
            y_value_80=spread.high,
            extra_benchmark_config_str=json.dumps(notes[mode]),
            gpu_name=device_name(device),
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
            version=metadata.version("voco-toolkit"),
        )


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers were measured on and with; no names of machines or people."""
    return {
        "device": device_name(device),
        **_gpu(device),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def settings_of(settings: BenchSettings) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return {
        "device": settings.device.type,
        "dtype": str(settings.dtype).removeprefix("torch."),
        "sizes": list(settings.sizes),
        "crops_vox": list(settings.crops_vox),
        "stages": list(settings.stages),
        "maps": settings.maps,
        "repeats": settings.repeats,
        "compiled": settings.is_compiled,
        "quick": settings.is_quick,
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _gpu(device: torch.device) -> dict[str, Any]:
    """What a GPU's name does not tell: there are several of one name."""
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "capability": f"{properties.major}.{properties.minor}",
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "rocm": torch.version.hip,
    }


def _processor() -> str:
    """As the system calls it; the plain architecture where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
