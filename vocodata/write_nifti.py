"""Write labels as NIfTI: the one place where this package writes a file that a viewer opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vocodata.geometry import Affine

_SCANNER = 1
"""NIfTI code: the affine leads to the scanner's millimetres."""


def write_labels(path: str | Path, labels_XYZ: NDArray[Any], affine: Affine) -> Path:
    """Write a label volume, whole or not at all.

    The affine goes into the sform as it is, and into the qform as near as a qform comes (it holds
    no shear): some readers look at the one, some at the other.

    Args:
        path: Ends in .nii or .nii.gz; its folder is made if it is not there.
        labels_XYZ: uint8 or uint16 (X, Y, Z), in the order of `affine`.
        affine: (4, 4), voxel index -> RAS mm.

    Returns:
        The path.

    Raises:
        ValueError: Another ending, or values that are not uint8 or uint16.
    """
    target = Path(path)
    ending = next((e for e in (".nii.gz", ".nii") if target.name.endswith(e)), None)
    if ending is None:
        msg = f"Cannot write labels to '{target.name}'; expected a name ending in .nii or .nii.gz."
        raise ValueError(msg)
    if labels_XYZ.dtype not in (np.uint8, np.uint16):
        msg = f"Labels for '{target.name}' are {labels_XYZ.dtype}; expected uint8 or uint16."
        raise ValueError(msg)
    image: Any = nibabel.Nifti1Image(labels_XYZ, np.asarray(affine))  # type: ignore[no-untyped-call]  # nibabel has no types here
    image.set_sform(affine, code=_SCANNER)
    image.set_qform(affine, code=_SCANNER)
    image.header.set_xyzt_units("mm")
    target.parent.mkdir(parents=True, exist_ok=True)
    # nibabel chooses the compression by the name's ending, so the temporary name keeps it
    temporary = target.with_name(f".{target.name}.{os.getpid()}{ending}")
    try:
        nibabel.save(image, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
