"""Values of a DICOM header, wherever it holds them: at its top, or in a frame's groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

# Of an enhanced CT: which group of a frame holds what a classic slice says at its top.
_GROUPS = {
    "PixelSpacing": "PixelMeasuresSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "GantryDetectorTilt": "CTAcquisitionDetailsSequence",
    "ConvolutionKernel": "CTReconstructionSequence",
}


def holder_of(dataset: Any, own: Any, shared: Any) -> Callable[[str], Any]:  # noqa: ANN401 (pydicom)
    """Which dataset holds an attribute of a frame: its own group, the shared one, or the top."""

    def find(keyword: str) -> Any:  # noqa: ANN401 (pydicom)
        for groups in (own, shared):
            held = groups.get(_GROUPS[keyword])
            if held and keyword in held[0]:
                return held[0]
        return dataset

    return find


def stored_ends(dataset: Any) -> tuple[int, int]:  # noqa: ANN401 (pydicom)
    """Smallest and largest number that a pixel may hold."""
    count = 1 << int(dataset.get("BitsStored") or 16)
    lowest = -count // 2 if dataset.get("PixelRepresentation") else 0
    return lowest, lowest + count - 1


def number_or_none(holder: Callable[[str], Any], keyword: str) -> float | None:
    """One number; None if it is absent or empty."""
    held = holder(keyword).get(keyword)
    return None if held in (None, "") else float(held)


def numbers(holder: Callable[[str], Any], keyword: str, count: int) -> tuple[float, ...]:
    """So many finite numbers.

    Raises:
        ValueError: They are absent, others in number, or not finite.
    """
    held = holder(keyword)
    if keyword not in held:
        msg = f"{keyword} is missing"
        raise ValueError(msg)
    value = held[keyword].value
    many = [value] if isinstance(value, int | float | str) else (value or ())
    values = tuple(float(one) for one in many)
    if len(values) != count or not np.isfinite(values).all():
        msg = f"{keyword} is {values}, expected {count} finite numbers"
        raise ValueError(msg)
    return values
