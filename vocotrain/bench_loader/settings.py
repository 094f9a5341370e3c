"""What a run of the loader's benchmark is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from vocodata.geometry import Size

CROPS = {"field": Size(192, 192, 64), "96^3": Size(96, 96, 96), "64^3": Size(64, 64, 64)}
KEPT_HEAP = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
"""What a careful user tells glibc, so that fresh pages are not paid for again and again."""
MALLOCS: dict[str, dict[str, str]] = {"default": {}, "tuned": KEPT_HEAP}


@dataclass(frozen=True)
class LoaderSettings:
    """A run.

    Attributes:
        volumes_vox: Sizes of volumes; each is a case of its own.
        volumes: Volumes of each size.
        rounds: Crops of each kind that every reader reads.
        mallocs: Keys of `MALLOCS`.
        cold_rounds: Fields that every reader reads after its files left the page cache.
        scaling_s: How long a process reads at a time when two are compared with one.
        is_quick: Whether slow peers are left out.
    """

    volumes_vox: tuple[Size, ...]
    volumes: int
    rounds: int
    mallocs: tuple[str, ...]
    cold_rounds: int
    scaling_s: float
    is_quick: bool


def resolve_settings(*, is_quick: bool) -> LoaderSettings:
    """The whole run, five minutes, or a look, under one.

    66 MB is a volume as float32, and 187 MB what 30 TB are on average for 160,000 scans. A volume
    below 32 MB would hide the fresh pages of glibc's defaults.
    """
    small, large = Size(256, 256, 250), Size(360, 360, 360)
    if is_quick:
        return LoaderSettings((small,), 1, 10, ("default", "tuned"), 3, 0.1, is_quick=True)
    return LoaderSettings((small, large), 2, 40, ("default", "tuned"), 8, 0.2, is_quick=False)
