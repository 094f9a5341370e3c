"""Pixels of DICOM slices, decompressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.pixels.utils import pixel_array

from vocodata.errors import UnreadableScanError
from vocodata.readers.dicom_headers import DAMAGE, read_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vocodata.readers.dicom_headers import Slice


class Pixels:
    """Stored pixels of slices; a file of many frames is read once."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._path: Path | None = None
        self._dataset: Any = None

    def of(self, part: Slice) -> NDArray[Any]:
        """Pixels (rows, columns) of one slice, decompressed."""
        if part.path != self._path:
            self._dataset, self._path = read_dataset(part.path), part.path
        try:
            pixels = np.asarray(pixel_array(self._dataset, index=part.frame))
        except (RuntimeError, NotImplementedError) as error:
            msg = f"{part.path.name}: its compression cannot be decoded ({error})."
            raise UnreadableScanError(msg, code="unsupported_dicom") from error
        except DAMAGE as error:
            msg = f"{part.path.name}: its pixels are damaged ({error}). Fetch the file again."
            raise UnreadableScanError(msg, code="corrupt_dicom") from error
        if pixels.shape != (part.rows, part.columns):
            wanted = (part.rows, part.columns)
            msg = f"{part.path.name} holds {pixels.shape} pixels, expected {wanted}."
            raise UnreadableScanError(msg, code="corrupt_dicom")
        return pixels
