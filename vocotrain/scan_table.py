"""The scans that training draws from, as one small table.

The table holds all that the plan of a field needs, so planning never touches the store.
"""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vocodata.geometry import Size, Spacing
from vocotrain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from vocodata.store import Store


_COLUMNS = (
    *("id", "shape_xyz", "field_shape_xyz", "spacing_mm"),
    *("window_hu", "weight", "licence", "digest"),
)


@dataclass(frozen=True, slots=True)
class ScanRow:
    """What planning and the bill of materials know of one scan.

    Attributes:
        id: Name in the store, `source/name`.
        shape_XYZ: Voxels of what fields are taken from: the scan, or its whole-scan field.
        spacing_mm: Distance between voxel centres of the scan.
        window_hu: Lower and upper HU that become 0 and 1.
        weight: Sampling weight; twice the weight is drawn twice as often.
        is_squeezed: Whether the store keeps the whole scan squeezed into one field, which is then
            the sample.
        licence: Licence of the source, as its manifest says; None when it does not.
        digest: Digest of the voxels in the store.
    """

    id: str
    shape_XYZ: Size  # noqa: N815 (shape letters)
    spacing_mm: Spacing
    window_hu: tuple[float, float]
    weight: float = 1.0
    is_squeezed: bool = False
    licence: str | None = None
    digest: str = ""


@dataclass(frozen=True)
class ScanTable:
    """Scans that a field may come from.

    Attributes:
        rows: The scans, in the order of the store.
    """

    rows: tuple[ScanRow, ...]

    @cached_property
    def cumulative_weight(self) -> NDArray[np.float64]:
        """Running sum of the weights."""
        return np.cumsum([row.weight for row in self.rows])

    def drawn(self, uniform: float) -> ScanRow:
        """The scan that a number in [0, 1) picks, in proportion to the weights."""
        target = uniform * self.cumulative_weight[-1]
        index = int(np.searchsorted(self.cumulative_weight, target, side="right"))
        return self.rows[min(index, len(self.rows) - 1)]

    def only(self, index: int) -> ScanTable:
        """A table of one scan; the index wraps around."""
        return ScanTable((self.rows[index % len(self.rows)],))

    def __len__(self) -> int:
        """Number of scans."""
        return len(self.rows)


def read_scan_table(store: Store, field_vox: Size) -> ScanTable:
    """Make the table of all scans of a store.

    A squeezed whole-scan field serves as the sample if it has exactly the field's size; at any
    other size windows of the scan are taken, as for the presets that do not squeeze.
    """
    return ScanTable(tuple(_rows(store.catalog(_COLUMNS), field_vox)))


def split_holdout(
    table: ScanTable, holdout: Sequence[str], excluded: Collection[str] = ()
) -> tuple[ScanTable, ScanTable]:
    """Part the scans into those trained on and those held out.

    Args:
        table: All scans of the store.
        holdout: Ids or shell patterns such as `btcv/*`.
        excluded: Ids of scans that are in neither part.

    Returns:
        The training scans with a weight above 0, and the held-out scans.

    Raises:
        ConfigError: A pattern matches no scan, or no scan is left to train on.
    """
    held = {scan_id for pattern in holdout for scan_id in _matching(table, pattern)}
    left = [row for row in table.rows if row.id not in excluded]
    train = tuple(row for row in left if row.id not in held and row.weight > 0)
    if not train:
        listed = f", {len(table) - len(left)} excluded by a list" if excluded else ""
        msg = (
            f"No scan is left to train on: the store has {len(table)}, {len(held)} of them held "
            f"out{listed}; expected at least one with a weight above 0. "
            "Change data.holdout, data.exclude or data.store."
        )
        raise ConfigError(msg)
    return ScanTable(train), ScanTable(tuple(row for row in left if row.id in held))


def _rows(catalog: pa.Table, field_vox: Size) -> Iterator[ScanRow]:
    """The rows of a catalogue, a column at a time: scan by scan, 160,000 take 14 s."""
    field_shapes = catalog.column("field_shape_xyz").to_pylist()
    squeezed = [shape == list(field_vox) for shape in field_shapes]
    shapes = map(Size, *_numbers(catalog, "shape_xyz", 3))
    return map(
        ScanRow,
        catalog.column("id").to_pylist(),
        [field_vox if is_it else shape for is_it, shape in zip(squeezed, shapes, strict=True)],
        map(Spacing, *_numbers(catalog, "spacing_mm", 3)),
        zip(*_numbers(catalog, "window_hu", 2), strict=True),
        catalog.column("weight").to_pylist(),
        squeezed,
        catalog.column("licence").to_pylist(),
        catalog.column("digest").to_pylist(),
    )


def _numbers(catalog: pa.Table, name: str, count: int) -> list[list[Any]]:
    """A column of `count` numbers each, as so many columns."""
    flat = catalog.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    columns: list[list[Any]] = flat.reshape(-1, count).T.tolist()
    return columns


def _matching(table: ScanTable, pattern: str) -> list[str]:
    """Ids that a holdout pattern names; none is a fault."""
    ids = [row.id for row in table.rows]
    found = [scan_id for scan_id in ids if fnmatch.fnmatchcase(scan_id, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, ids, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        msg = (
            f"data.holdout {pattern!r} matches no scan of the store; expected an id such as "
            f"{ids[0] if ids else 'source/name'!r} or a pattern such as 'source/*'.{hint}"
        )
        raise ConfigError(msg)
    return found
