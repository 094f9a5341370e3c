"""What the GPU kernels look up: boxes, places and codes of a map as small tables on the device.

All of it follows from sizes alone, is worked out once for each and kept: later calls neither
compute nor copy anything here, and nothing is ever read back.

Shapes: K classes of boxes (those with most tokens first), P positions, the longest row of tokens
and pads of a class; N boxes of one map, class after class; W works.
"""
# ruff: noqa: N815 - shape letters

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from vocokernels.errors import ShapeError
from vocokernels.window_attention.boxes import BoxClass, Triple, bias_origin, box_classes

# Programs that add up the gradient of the table, about: some two for each that a large GPU runs at
# once, and few enough for their sums to be small beside q, k and v. Each class of boxes has at
# least one for each of its tiles.
BIAS_PROGRAMS = 2048


@dataclass(frozen=True, eq=False)
class Plan:
    """The boxes of one map; all tables are int32."""

    kinds: tuple[BoxClass, ...]
    origin: int
    """Row of the bias table for a token and itself; the table has 2 * origin + 1 rows."""
    has_pads: bool
    kinds_K4: Tensor
    """Tokens, tokens and pads, boxes, first box."""
    boxes_N: Tensor
    """First token of each box in the flattened map."""
    place_KP: Tensor
    """Of each token of a box, how far behind its first token it lies."""
    code_KP: Tensor
    """Codes of tokens, then of pads."""
    inverse_KO: Tensor
    """Position of the token or pad with a code, -1 where there is none; origin + 1 columns."""

    @property
    def positions(self) -> int:
        """Columns of the tables of places and codes."""
        return self.code_KP.shape[1]


@dataclass(frozen=True, eq=False)
class RowWork:
    """Tiles of rows of all boxes, one after another."""

    works_W5: Tensor
    """First token of the box, class, first row, rows of the box, slot of a box with pads or -1."""
    slots: int
    """Tiles of boxes with pads."""


@dataclass(frozen=True, eq=False)
class PairWork:
    """Tiles of pairs of each class, each with a share of the class's boxes in all maps."""

    works_W5: Tensor
    """Class, first query, first key, first and last unit: box u % boxes of map u // boxes."""
    shares_K3: Tensor
    """First work, tiles of keys, shares; works are ordered class, queries, keys, share."""


@lru_cache(maxsize=256)
def plan(map_xyz: Triple, window: Triple, shift: Triple, device: torch.device) -> Plan:
    """Tables of a map.

    Args:
        map_xyz: Tokens along each axis of the unpadded map.
        window: Window of the bias table.
        shift: Shift of the windows.
        device: Where the tables will lie.

    Raises:
        ShapeError: A map of more tokens than 32 bits count.
    """
    if prod(map_xyz) >= 2**31:
        message = (
            f"A map of {' x '.join(map(str, map_xyz))} has {prod(map_xyz)} tokens; backend "
            f"'triton' counts up to {2**31 - 1}. Cut the map in parts."
        )
        raise ShapeError(message)
    kinds = tuple(sorted(box_classes(map_xyz, window, shift), key=lambda kind: -kind.tokens))
    origin = bias_origin(window)
    # rows of 16 numbers, so that the compiler may load four at once
    positions = -(-max(_extent(kind) for kind in kinds) // 16) * 16
    place_KP = torch.zeros(len(kinds), positions, dtype=torch.int32, device="cpu")
    code_KP = torch.zeros_like(place_KP)
    inverse_KO = torch.full((len(kinds), origin + 1), -1, dtype=torch.int32, device="cpu")
    for row, kind in enumerate(kinds):
        codes = torch.cat([kind.code_n, kind.code_p])
        place_KP[row, : kind.tokens] = _flat((0, 0, 0), kind.real, (1, 1, 1), map_xyz)
        code_KP[row, : len(codes)] = codes
        inverse_KO[row, codes] = torch.arange(len(codes), dtype=torch.int32, device="cpu")
    first = 0
    rows, boxes = [], []
    for kind in kinds:
        rows.append((kind.tokens, _extent(kind), kind.boxes, first))
        boxes.append(_flat(kind.start, kind.count, kind.real, map_xyz))
        first += kind.boxes
    return Plan(
        kinds=kinds,
        origin=origin,
        has_pads=any(kind.code_p.numel() for kind in kinds),
        kinds_K4=_table(rows, device),
        boxes_N=torch.cat(boxes).to(device),
        place_KP=place_KP.to(device),
        code_KP=code_KP.to(device),
        inverse_KO=inverse_KO.to(device),
    )


@lru_cache(maxsize=1024)
def row_work(
    map_xyz: Triple, window: Triple, shift: Triple, device: torch.device, *, rows: int
) -> RowWork:
    """Tiles of `rows` rows; the other arguments as for `plan`."""
    found, slots = [], 0
    for number, kind in enumerate(plan(map_xyz, window, shift, device).kinds):
        boxes = _flat(kind.start, kind.count, kind.real, map_xyz)
        starts = torch.arange(0, kind.tokens, rows, dtype=torch.int32, device="cpu")
        works = torch.empty(len(boxes), len(starts), 5, dtype=torch.int32, device="cpu")
        works[..., 0] = boxes[:, None]
        works[..., 1] = number
        works[..., 2] = starts
        works[..., 3] = kind.tokens
        works[..., 4] = -1
        if kind.code_p.numel():
            count = len(boxes) * len(starts)
            numbers = torch.arange(slots, slots + count, dtype=torch.int32, device="cpu")
            works[..., 4] = numbers.view(works.shape[:2])
            slots += count
        found.append(works.view(-1, 5))
    return RowWork(torch.cat(found).to(device), slots)


@lru_cache(maxsize=1024)
def pair_work(
    map_xyz: Triple,
    window: Triple,
    shift: Triple,
    device: torch.device,
    *,
    maps: int,
    heads: int,
    queries: int,
    keys: int,
) -> PairWork:
    """Tiles of `queries` x `keys` pairs of `maps` maps; the other arguments as for `plan`."""
    kinds = plan(map_xyz, window, shift, device).kinds
    tiles = [(-(-kind.tokens // queries), -(-kind.tokens // keys)) for kind in kinds]
    steps = sum(kind.boxes * high * wide for kind, (high, wide) in zip(kinds, tiles, strict=True))
    # as many units for each program, whatever its class: they end together
    share = -(-steps * maps * heads // BIAS_PROGRAMS)
    works: list[tuple[int, ...]] = []
    shares = []
    for number, (kind, (high, wide)) in enumerate(zip(kinds, tiles, strict=True)):
        units = kind.boxes * maps
        unit_starts = range(0, units, share)
        shares.append((len(works), wide, len(unit_starts)))
        works += [
            (number, row * queries, column * keys, unit, min(unit + share, units))
            for row in range(high)
            for column in range(wide)
            for unit in unit_starts
        ]
    return PairWork(_table(works, device), _table(shares, device))


def _extent(kind: BoxClass) -> int:
    """Tokens and pads of a box."""
    return kind.tokens + kind.code_p.numel()


def _flat(start: Triple, count: Triple, step: Triple, map_xyz: Triple) -> Tensor:
    """Flat numbers of places (start + i * step) of a map, x slowest, int32."""
    x, y, z = (
        torch.arange(count[axis], dtype=torch.int32, device="cpu") * step[axis] + start[axis]
        for axis in range(3)
    )
    flat = (x[:, None, None] * map_xyz[1] + y[:, None]) * map_xyz[2] + z
    return flat.flatten()


def _table(rows: Sequence[tuple[int, ...]], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32, device="cpu").to(device)
