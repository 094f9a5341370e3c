"""Instance norm and leaky ReLU by pieces, and how to see through them.

    n = (x - mean) / sqrt(var + eps)            mean, var over X, Y, Z, biased
    y = leaky_relu(n + around)

Equals torch's `instance_norm` (no affine, no running statistics), an addition and a leaky ReLU.
y may take the place of x: a leaky ReLU can be undone, so n = before_activation(y) - around is all
that the backward pass needs, and x need not be kept. All is computed in float32 at least.

Shape letters: B maps, M voxels each, C channels, P pieces of a map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vocotrain.models.pieces import Piece, for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EPSILON = 1e-5
"""Added to the variance, as in torch's and MONAI's instance norm."""

NEGATIVE_SLOPE = 0.01
"""Of every leaky ReLU. Not 0, which could not be undone."""


class Statistics(NamedTuple):
    """Of each map and channel, (B, 1, C).

    Attributes:
        mean: Mean.
        scale: One over the standard deviation.
    """

    mean: Tensor
    scale: Tensor

    def normalise_(self, x: Tensor, piece: Piece) -> Tensor:
        """Normalise a piece of the maps in its place."""
        return x.sub_(self.mean[piece.maps]).mul_(self.scale[piece.maps])


def statistics(
    rows_of: Callable[[Piece], Tensor], some: Sequence[Piece], *, maps: int, rows: int
) -> Statistics:
    """Mean and scale of maps.

    Each piece has two passes while it is in the cache, and pieces are joined by Chan's formula, so
    that a mean far from zero costs no precision.

    Args:
        rows_of: Gives a piece, (b, m, C), in the type to compute in. It is not written to.
        some: The pieces that cover all maps.
        maps: B.
        rows: M.
    """

    def one(piece: Piece) -> tuple[Tensor, Tensor]:
        x = rows_of(piece)
        mean = x.mean(1, keepdim=True)
        return mean, torch.sub(x, mean).square_().sum(1, keepdim=True)

    means, squares = zip(*for_each(one, some), strict=True)
    mean_BPC, square_BPC = _by_map(means, maps), _by_map(squares, maps)
    if mean_BPC.shape[1] == 1:
        # nothing to join; on an accelerator, sending the counts there would wait for all before
        return _statistics(mean_BPC, square_BPC, rows)
    counts = [len(range(rows)[piece.rows]) for piece in some[: mean_BPC.shape[1]]]
    count_P1 = mean_BPC.new_tensor(counts)[:, None]
    mean_B1C = (mean_BPC * (count_P1 / rows)).sum(1, keepdim=True)
    square_BPC = square_BPC + (mean_BPC - mean_B1C).square_() * count_P1
    return _statistics(mean_B1C, square_BPC.sum(1, keepdim=True), rows)


def _statistics(mean_B1C: Tensor, square_B1C: Tensor, rows: int) -> Statistics:
    """Of means, and sums of squared distances from them."""
    return Statistics(mean_B1C, (square_B1C / rows + EPSILON).rsqrt_())


def mean_of_pieces(sums: Sequence[Tensor], *, maps: int, rows: int) -> Tensor:
    """Mean over the rows of each map, (B, 1, C), of sums (b, 1, C) over pieces."""
    return _by_map(sums, maps).sum(1, keepdim=True) / rows


def activate_(n: Tensor) -> Tensor:
    """Leaky ReLU, in place."""
    return functional.leaky_relu_(n, NEGATIVE_SLOPE)


def before_activation(y: Tensor) -> Tensor:
    """What went into the leaky ReLU that gave y; a fresh tensor."""
    return functional.leaky_relu(y, 1 / NEGATIVE_SLOPE)


def gradient_before_activation(grad: Tensor, y: Tensor) -> Tensor:
    """Gradient of what went into the leaky ReLU that gave y, whose sign y still shows; fresh."""
    # of a view of one number a channel torch would take one at a time where channels are few
    grad = grad.contiguous()
    found: Tensor = torch.ops.aten.leaky_relu_backward(grad, y, NEGATIVE_SLOPE, True)  # noqa: FBT003 (the operator's own signature)
    return found


def _by_map(found: Sequence[Tensor], maps: int) -> Tensor:
    """Results (b, 1, C) of pieces as (B, P, C)."""
    joined = torch.cat(list(found))
    return joined.view(maps, -1, joined.shape[2])
