"""How much memory a scan will take, from its header alone, and how much there is.

    room of a worker = its limit, less what a process takes before its first scan
    a scan fits if    peak_bytes(header, grid) <= room

The guess is from above, at most twice what is measured (tests/vocodata/test_memory.py) where the
header says whether HU are whole and fit int16; where values decide that, it is for float32. A
header does not say how small the patient's box is.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vocodata.geometry import axis_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vocodata.geometry import Header

PROCESS_BYTES = 400 << 20
"""A worker with everything imported and compiled, measured 230 to 300 MiB."""
SPARE_SHARE = 0.1
"""Of a limit, kept free: other processes, and what an allocator holds back."""
_SLACK_BYTES = 8 << 20
"""Buffers that do not grow with the scan: a chunk's codec, the census, the inflater."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def peak_bytes(
    header: Header, grid_voxels: int, *, labels: Header | None = None, field_voxels: int = 0
) -> int:
    """Most memory that processing a scan takes at once.

    Reading takes what the format's reader says; slices put straight are there twice. Resampling
    holds HU of the file and of the grid, these twice if axes are to be turned; rounding and storing
    the grid's HU, its crop and its shard. Labels are read when only the crop is left of the HU.

    Args:
        header: Of the file.
        grid_voxels: On the preset's grid, before the crop.
        labels: Header of the labels, if there are any.
        field_voxels: Of the preset's squeeze, or 0.
    """
    voxels, hu_bytes = math.prod(header.shape_XYZ), header.hu_dtype.itemsize
    reading = voxels * max(header.read_bytes, hu_bytes * (2 if header.tilt_degrees else 1))
    copies = 1 if axis_order(header.affine).axes == (0, 1, 2) else 2
    resampling = hu_bytes * (voxels + copies * grid_voxels)
    storing = grid_voxels * 6 + 2 * field_voxels
    labelling = 0
    if labels is not None:
        label_bytes = max(labels.dtype.itemsize + 2, labels.read_bytes)
        labelling = math.prod(labels.shape_XYZ) * label_bytes + 6 * grid_voxels
        storing += 2 * grid_voxels
    return max(reading, resampling, storing, labelling) + _SLACK_BYTES


def usable_memory(limits: Iterable[str] = _CGROUP_LIMITS) -> int:
    """Bytes that this machine has, or that a container may use of them.

    Args:
        limits: Files that may hold a container's limit.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in limits:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            found.append(int(text))
    return min(found)


def highest_resident_bytes() -> int:
    """Most memory that this process has held so far."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        # Not ru_maxrss, which a child inherits from the process that started it.
        return int(dict(line.split(":\t") for line in lines)["VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def room_bytes(limit_bytes: int) -> int:
    """What a process with that limit may give to a scan; 0 if nothing is left."""
    return max(0, round(limit_bytes * (1 - SPARE_SHARE)) - PROCESS_BYTES)


def limit_for(needed_bytes: int) -> int:
    """The smallest limit whose room holds a scan."""
    return math.ceil((needed_bytes + PROCESS_BYTES + 1) / (1 - SPARE_SHARE))
