"""Sliding-window inference that hands out finished slabs: the scores of a scan never exist whole.

Windows are visited along x first. Once no later window reaches a plane, that plane is final: it is
handed out and its memory freed. The numbers are those of MONAI's `sliding_window_inference`
(window starts, padding, constant and gaussian blending); only the order and the memory differ:
C * roi.x * Y * Z scores at most, instead of C * X * Y * Z.

Shape letters: X Y Z voxels, C classes, W windows, N = 1 (one volume).
"""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from vocodata.geometry import Size

Blending = Literal["constant", "gaussian"]

_SIGMA_SHARE = 0.125
"""Standard deviation of the gaussian weight, as a share of the window's side."""

_LEAST_WEIGHT = 1e-3
"""Floor of the gaussian weight, so that a corner seen by one window alone keeps its scores."""


class Slab(NamedTuple):
    """Finished planes.

    Attributes:
        start: First plane, voxels along x.
        scores_CXYZ: Mean class scores (logits) of these planes, float32.
    """

    start: int
    scores_CXYZ: Tensor  # noqa: N815 (shape letters)


def slide(
    image_XYZ: Tensor,
    model: Callable[[Tensor], Tensor],
    *,
    roi_vox: Size,
    overlap: float,
    blending: Blending = "constant",
    windows_at_once: int = 2,
) -> Iterator[Slab]:
    """Score every voxel, slab after slab along x.

    Args:
        image_XYZ: Windowed intensities, on the model's device.
        model: Windows (W, 1, roi) to class scores (W, C, roi).
        roi_vox: Size of a window; a smaller image is padded with zeros on both sides.
        overlap: Share of a window that the next one covers again, in [0, 1).
        blending: Weight of a window's voxels where windows overlap.
        windows_at_once: Windows in one call of the model.

    Yields:
        Slabs in order; together they cover the image once.
    """
    padded_XYZ, before = _padded(image_XYZ, roi_vox)
    starts_x, starts_y, starts_z = (
        window_starts(side, roi, overlap)
        for side, roi in zip(padded_XYZ.shape, roi_vox, strict=True)
    )
    weight_XYZ = _weight(roi_vox, blending).to(padded_XYZ.device)
    columns = list(product(starts_y, starts_z))
    seen_XYZ = torch.zeros((roi_vox.x, *padded_XYZ.shape[1:]), device=padded_XYZ.device)
    total_CXYZ: Tensor | None = None
    for k, x in enumerate(starts_x):
        for some in _chunks(columns, windows_at_once):
            crops_W = [_cut(padded_XYZ, (x, y, z), roi_vox) for y, z in some]
            scores_WCXYZ = model(torch.stack(crops_W)[:, None]).float()
            if total_CXYZ is None:
                total_CXYZ = seen_XYZ.new_zeros((scores_WCXYZ.shape[1], *seen_XYZ.shape))
            for (y, z), scores_CXYZ in zip(some, scores_WCXYZ, strict=True):
                place = (slice(y, y + roi_vox.y), slice(z, z + roi_vox.z))
                total_CXYZ[:, :, *place] += scores_CXYZ * weight_XYZ
                seen_XYZ[:, *place] += weight_XYZ
        assert total_CXYZ is not None, "there is at least one window"
        done = (starts_x[k + 1] - x) if k + 1 < len(starts_x) else roi_vox.x
        mean_CXYZ = total_CXYZ[:, :done] / seen_XYZ[:done]
        total_CXYZ, seen_XYZ = _shifted(total_CXYZ, done, 1), _shifted(seen_XYZ, done, 0)
        slab = _without_padding(Slab(x, mean_CXYZ), before, image_XYZ.shape)
        if slab is not None:
            yield slab


def window_starts(side_vox: int, roi_vox: int, overlap: float) -> list[int]:
    """Where windows begin along one axis; the last one ends with the image.

    >>> window_starts(20, 8, 0.5)
    [0, 4, 8, 12]
    >>> window_starts(8, 8, 0.5)
    [0]
    """
    step = max(1, int(roi_vox * (1 - overlap)))
    count = ceil((side_vox - roi_vox) / step) + 1
    return [min(k * step, side_vox - roi_vox) for k in range(count)]


def _padded(image_XYZ: Tensor, roi_vox: Size) -> tuple[Tensor, tuple[int, ...]]:
    """The image grown to at least one window, and what was added before each axis."""
    missing = [max(0, roi - side) for side, roi in zip(image_XYZ.shape, roi_vox, strict=True)]
    before = tuple(m // 2 for m in missing)
    if not any(missing):
        return image_XYZ, before
    # pad() names the last axis first
    amounts = [
        n for b, m in zip(reversed(before), reversed(missing), strict=True) for n in (b, m - b)
    ]
    return pad(image_XYZ, amounts), before


def _weight(roi_vox: Size, blending: Blending) -> Tensor:
    """How much each voxel of a window counts (roi)."""
    if blending == "constant":
        return torch.ones(tuple(roi_vox))
    x, y, z = (_bell(side) for side in roi_vox)
    weight_XYZ = x[:, None, None] * y[None, :, None] * z[None, None, :]
    return weight_XYZ.clamp_min(_LEAST_WEIGHT)


def _bell(side_vox: int) -> Tensor:
    offset = torch.arange(side_vox, dtype=torch.float32) - (side_vox - 1) / 2
    return torch.exp(-0.5 * (offset / (side_vox * _SIGMA_SHARE)) ** 2)


def _chunks(items: list[tuple[int, int]], size: int) -> Iterator[list[tuple[int, int]]]:
    return (items[k : k + size] for k in range(0, len(items), size))


def _cut(image_XYZ: Tensor, start: tuple[int, int, int], roi_vox: Size) -> Tensor:
    x, y, z = (slice(a, a + n) for a, n in zip(start, roi_vox, strict=True))
    return image_XYZ[x, y, z]


def _shifted(sums: Tensor, planes: int, axis: int) -> Tensor:
    """The sums moved `planes` forward along x: what is behind is dropped, what is ahead is zero."""
    rest = sums.narrow(axis, planes, sums.shape[axis] - planes)
    fresh = torch.zeros_like(sums.narrow(axis, 0, planes))
    return torch.cat([rest, fresh], dim=axis)


def _without_padding(slab: Slab, before: tuple[int, ...], shape: Sequence[int]) -> Slab | None:
    """The slab in the image's own voxels, or None if it lies in the padding."""
    first = max(slab.start, before[0])
    stop = min(slab.start + slab.scores_CXYZ.shape[1], before[0] + shape[0])
    if stop <= first:
        return None
    y, z = (slice(b, b + n) for b, n in zip(before[1:], shape[1:], strict=True))
    scores_CXYZ = slab.scores_CXYZ[:, first - slab.start : stop - slab.start, y, z]
    return Slab(first - before[0], scores_CXYZ)
