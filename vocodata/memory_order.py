"""A volume as it lies in memory: axes from slowest to fastest, every one forwards.

Loops over such a view read memory in order and are vectorised; with a reversed axis, as RAS views
of most files have, they are neither. What was found along each axis is then turned back.

Shape letters: X Y Z voxels in RAS; K J I the same axes from slowest to fastest in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class InMemory(NamedTuple):
    """A view in memory order, and the way back.

    Attributes:
        data_KJI: The same voxels.
        place: For x, y and z, which axis of `data_KJI` it is.
        backwards: For x, y and z, whether it runs backwards in memory.
    """

    data_KJI: NDArray[Any]  # noqa: N815 (shape letters)
    place: tuple[int, ...]
    backwards: tuple[bool, ...]

    def along_xyz(self, along_kji: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Values along K, J and I as values along x, y and z, views."""
        return [
            along_kji[place][:: -1 if back else 1]
            for place, back in zip(self.place, self.backwards, strict=True)
        ]


def in_memory_order(data_XYZ: NDArray[Any]) -> InMemory:
    """The view, nothing copied.

    >>> import numpy as np
    >>> data = np.arange(6).reshape(1, 2, 3)[:, ::-1].transpose(2, 1, 0)
    >>> in_memory_order(data).data_KJI.tolist()
    [[[0, 1, 2], [3, 4, 5]]]
    """
    slowest_first = sorted(range(3), key=lambda axis: -abs(data_XYZ.strides[axis]))
    backwards = tuple(stride < 0 for stride in data_XYZ.strides)
    forwards = tuple(slice(None, None, -1 if back else 1) for back in backwards)
    data_KJI = data_XYZ[forwards].transpose(slowest_first)
    return InMemory(data_KJI, tuple(slowest_first.index(axis) for axis in range(3)), backwards)
