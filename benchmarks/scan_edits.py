"""Edits that make another packing of a scan: what a public data set does to a scan it took over."""

from collections.abc import Callable

import numpy as np

from vocodata.foreground import crop
from vocodata.geometry import Box, Size, Spacing, Volume
from vocodata.resampling import resample

Edit = Callable[[Volume], Volume]


def mirrored(*axes: int) -> Edit:
    return lambda volume: Volume(np.flip(volume.data_XYZ, axes), volume.affine)


def swapped(*axes: int) -> Edit:
    def edit(volume: Volume) -> Volume:
        spacing = [volume.spacing_mm[axis] for axis in axes]
        return Volume(volume.data_XYZ.transpose(axes), np.diag([*spacing, 1.0]))

    return edit


def spaced(*spacing_mm: float, antialias: bool = False) -> Edit:
    return lambda volume: resample(volume, Spacing(*spacing_mm), antialias=antialias)


def clipped(low: int, high: int) -> Edit:
    return lambda volume: Volume(np.clip(volume.data_XYZ, low, high), volume.affine)


def lossy(step_hu: int, noise_hu: float) -> Edit:
    def edit(volume: Volume) -> Volume:
        noise = np.random.default_rng(0).normal(0, noise_hu, volume.data_XYZ.shape)
        steps = np.rint((volume.data_XYZ + noise) / step_hu) * step_hu
        return Volume(steps.astype(np.int16), volume.affine)

    return edit


def cut(keep: tuple[float, float, float], seed: int) -> Edit:
    def edit(volume: Volume) -> Volume:
        rng = np.random.default_rng(seed)
        size = [max(8, int(n * share)) for n, share in zip(volume.shape_XYZ, keep, strict=True)]
        start = [
            int(rng.integers(0, n - k + 1)) for n, k in zip(volume.shape_XYZ, size, strict=True)
        ]
        return crop(volume, Box(Size(*start), Size(*size)))

    return edit


def forced(volume: Volume) -> Volume:
    return Volume(volume.data_XYZ[::-1], np.eye(4))


def every(*edits: Edit) -> Edit:
    def edit(volume: Volume) -> Volume:
        for one in edits:
            volume = one(volume)
        return volume

    return edit


MODERATE: dict[str, Edit] = {
    "header forced to 1 mm, mirrored": forced,
    "spacing 2 2 2": spaced(2, 2, 2),
    "spacing 3 3 3": spaced(3, 3, 3),
    "spacing 1.25 1.25 5": spaced(1.25, 1.25, 5),
    "spacing 5 5 5": spaced(5, 5, 5),
    "spacing 5 5 5, averaged": spaced(5, 5, 5, antialias=True),
    "mirrored x z": mirrored(0, 2),
    "mirrored y": mirrored(1),
    "axes z x y": swapped(2, 0, 1),
    "axes y x z": swapped(1, 0, 2),
    "clipped -175..250": clipped(-175, 250),
    "clipped -1000..500": clipped(-1000, 500),
    "noise 5 HU, steps of 8": lossy(8, 5),
    "noise 5 HU, steps of 16": lossy(16, 5),
    "crop 90 %": cut((0.9, 0.9, 0.9), 1),
    "crop 80 %": cut((0.8, 0.8, 0.8), 2),
    "half of the slices": cut((1, 1, 0.5), 3),
    "crop 90 %, 2 mm, mirrored, clipped, lossy": every(
        cut((0.9, 0.9, 0.9), 4), spaced(2, 2, 2), mirrored(1), clipped(-175, 250), lossy(8, 5)
    ),
}
HARD: dict[str, Edit] = {
    "crop 70 %": cut((0.7, 0.7, 0.7), 5),
    "crop 80 %, 3 mm, axes z x y": every(
        cut((0.8, 0.8, 0.8), 6), spaced(3, 3, 3), swapped(2, 0, 1)
    ),
    "a quarter of the slices, clipped": every(cut((1, 1, 0.25), 7), clipped(-175, 250)),
}


SUBVOLUMES: dict[str, Edit] = {
    f"sub-volume {seed}": cut(tuple(np.random.default_rng(seed).uniform(0.4, 0.7, 3)), seed)
    for seed in range(10, 16)
}
