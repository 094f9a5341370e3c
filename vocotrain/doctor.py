"""What this machine offers and lacks: the rows of `voco doctor`.

Each function looks at one thing and answers with a row, so that a missing package is a row
and not a crash. Only what the toolkit cannot work without is `bad`; the rest is advice.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

DISTRIBUTION = "voco-toolkit"
GIB = 2**30
MIB = 2**20
LEAST_PYTHON = (3, 11)
# Workers of a loader keep a shard file open per scan that they have read from.
ENOUGH_OPEN_FILES = 4096
# A loader's worker hands a batch of fields over through shared memory: 8 fields of 192 x 192 x 64
# int16 are 38 MB, and several batches wait.
ENOUGH_SHARED_BYTES = GIB
ENOUGH_RAM_BYTES = 4 * GIB
ENOUGH_DISK_BYTES = 5 * GIB
SLOW_DISK_MB_PER_S = 50.0
PROBE_BYTES = 32 * MIB


@dataclass(frozen=True)
class Check:
    """One row: what was looked at, what was found, and what to do about it."""

    name: str
    status: Literal["ok", "warn", "bad"]
    value: str
    advice: str = ""


def examine(folder: Path) -> list[Check]:
    """All rows.

    Args:
        folder: Where the user is about to write; its disk is measured.

    Returns:
        Rows in the order in which a person reads them.
    """
    return [
        check_python(sys.version_info[:3]),
        *check_packages(importlib.metadata.requires(DISTRIBUTION) or []),
        check_torch(),
        check_gpu(),
        check_triton(),
        check_kernels(),
        check_bfloat16(),
        check_blosc(),
        check_cores(os.cpu_count() or 1, len(os.sched_getaffinity(0))),
        check_memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        check_shared_memory(Path("/dev/shm")),  # noqa: S108 - its size is read, nothing written
        check_open_files(),
        check_disk(folder),
        check_write_speed(folder),
    ]


def is_fit(checks: Sequence[Check]) -> bool:
    """Whether nothing that the toolkit needs is missing."""
    return all(check.status != "bad" for check in checks)


def check_python(version: tuple[int, ...]) -> Check:
    """Python is new enough."""
    found = ".".join(map(str, version))
    if version < LEAST_PYTHON:
        needed = ".".join(map(str, LEAST_PYTHON))
        return Check("Python", "bad", found, f"The toolkit needs Python {needed} or newer.")
    return Check("Python", "ok", found)


def check_packages(requirements: Sequence[str]) -> list[Check]:
    """Every package that the toolkit asks for is there, in a version that it takes.

    Args:
        requirements: As the installed metadata lists them; those of extras are left out.
    """
    wanted = [Requirement(line) for line in requirements]
    return [_check_package(one) for one in wanted if one.marker is None or one.marker.evaluate()]


def _check_package(wanted: Requirement) -> Check:
    install = f"Install it: pip install '{wanted.name}{wanted.specifier}'"
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(wanted.name, "bad", "missing", install)
    if not wanted.specifier.contains(version, prereleases=True):
        return Check(wanted.name, "bad", f"{version}, expected {wanted.specifier}", install)
    return Check(wanted.name, "ok", version)


def check_torch() -> Check:
    """Which build of torch, and how many threads it will use."""
    try:
        import torch
    except ImportError as error:
        return Check("torch build", "bad", f"cannot be imported: {error}", "Install torch again.")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Check("torch build", "ok", f"{build}, {torch.get_num_threads()} threads")


def check_gpu() -> Check:
    """Whether a CUDA device answers."""
    try:
        import torch
    except ImportError:
        return Check("GPU", "warn", "unknown", "Install torch first.")
    if not torch.cuda.is_available():
        advice = "The demo and small runs work on the CPU; sizes B, L and H want a CUDA device."
        return Check("GPU", "warn", "none found", advice)
    rows = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return Check("GPU", "ok", "; ".join(f"{r.name}, {r.total_memory / GIB:.0f} GiB" for r in rows))


def check_triton() -> Check:
    """Whether the fast GPU kernels can be compiled."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        advice = "Only needed on a CUDA device: pip install 'voco-toolkit[triton]'"
        return Check("triton", "warn", "not installed", advice)
    return Check("triton", "ok", version)


def check_kernels() -> Check:
    """Which implementations of our kernels work here."""
    try:
        from vocotrain.ops import available_backends
    except ImportError as error:
        return Check("kernels", "bad", f"cannot be imported: {error}", "Install torch again.")
    return Check("kernels", "ok", ", ".join(available_backends()))


def check_bfloat16() -> Check:
    """Whether the CPU multiplies bfloat16 by itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return Check("bfloat16 on the CPU", "warn", "unknown", "Runs on the CPU use float32.")
    found = [name for name in ("amx_bf16", "avx512_bf16") if name in flags]
    if not found:
        return Check("bfloat16 on the CPU", "ok", "emulated, so float32 is used")
    return Check("bfloat16 on the CPU", "ok", ", ".join(found))


def check_blosc() -> Check:
    """Whether the compiled reader has its two C functions: the decoder and the checksum."""
    try:
        from vocodata.store import native
    except ImportError as error:
        advice = "Install it again: pip install --force-reinstall blosc2 numba"
        return Check("c-blosc2", "bad", f"cannot be imported: {error}", advice)
    if not native.HAS_BLOSC2:
        advice = "Reading works but is slow. Faster: pip install --force-reinstall blosc2"
        return Check("c-blosc2", "warn", "C library not found", advice)
    crc = "checksums while reading" if native.HAS_CRC32C else "checksums by `verify` only"
    return Check("c-blosc2", "ok", f"C library found, {crc}")


def check_cores(cores: int, usable: int) -> Check:
    """How many cores this process may use."""
    value = f"{usable} of {cores}" if usable < cores else str(cores)
    return Check("cores", "ok", f"{value} ({platform.machine()})")


def check_memory(ram_bytes: int) -> Check:
    """Main memory."""
    value = f"{ram_bytes / GIB:.1f} GiB"
    if ram_bytes < ENOUGH_RAM_BYTES:
        return Check("memory", "warn", value, "Use fewer workers: --workers 1.")
    return Check("memory", "ok", value)


def check_shared_memory(folder: Path) -> Check:
    """Room for loader workers to hand batches over."""
    if not folder.is_dir():
        return Check("shared memory", "warn", f"no {folder}", "Set data.workers=0 when training.")
    size_bytes = shutil.disk_usage(folder).total
    value = f"{size_bytes / GIB:.1f} GiB"
    if size_bytes < ENOUGH_SHARED_BYTES:
        advice = "Give the container more (docker: --shm-size=8g), or set data.workers=0."
        return Check("shared memory", "warn", value, advice)
    return Check("shared memory", "ok", value)


def check_open_files() -> Check:
    """How many files a process may hold open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_OPEN_FILES:
        return Check("open files", "ok", "unlimited" if soft < 0 else str(soft))
    advice = f"Raise it before training with many workers: ulimit -n {ENOUGH_OPEN_FILES}"
    if 0 <= hard < ENOUGH_OPEN_FILES:
        advice = f"The hard limit is {hard}: ask the administrator for {ENOUGH_OPEN_FILES}."
    return Check("open files", "warn", str(soft), advice)


def check_disk(folder: Path) -> Check:
    """Free space where the user is about to write."""
    free_bytes = shutil.disk_usage(folder).free
    value = f"{free_bytes / GIB:.1f} GiB free in {folder}"
    if free_bytes < ENOUGH_DISK_BYTES:
        advice = "Choose --out on a larger disk before building a store."
        return Check("disk", "warn", value, advice)
    return Check("disk", "ok", value)


def check_write_speed(folder: Path) -> Check:
    """How fast a small file reaches the disk, flushed."""
    try:
        rate = _write_mb_per_s(folder)
    except OSError as error:
        advice = "Commands write to --out: choose a folder where you may write."
        return Check("write speed", "warn", f"cannot write in {folder}: {error.strerror}", advice)
    value = f"{rate:.0f} MB/s ({PROBE_BYTES // MIB} MiB, flushed)"
    if rate < SLOW_DISK_MB_PER_S:
        advice = "A slow disk slows the build; a network disk is better read than written."
        return Check("write speed", "warn", value, advice)
    return Check("write speed", "ok", value)


def _write_mb_per_s(folder: Path) -> float:
    block = os.urandom(MIB)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".voco-doctor-") as file:
        start_s = time.perf_counter()
        for _ in range(PROBE_BYTES // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return PROBE_BYTES / 1e6 / (time.perf_counter() - start_s)
