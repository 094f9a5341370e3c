"""What a run was made with: versions, device, arithmetic. No names of machines, people or paths."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from vocotrain.ops import available_backends

if TYPE_CHECKING:
    from vocotrain.device import Precision

_PACKAGES = ("voco-toolkit", "torch", "monai", "numpy", "safetensors", "blosc2", "triton")


def environment(device: torch.device, precision: Precision, *, processes: int) -> dict[str, Any]:
    """Describe this environment as JSON holds it.

    Args:
        device: Where the run computes.
        precision: Its arithmetic.
        processes: How many processes it has.
    """
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": _device_name(device),
        "cuda": torch.version.cuda,
        "precision": precision.name,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "kernels": list(available_backends()),
        "byte_order": sys.byteorder,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
