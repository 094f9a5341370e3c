"""The residual unit of Swin UNETR as one operation, channels last.

    u = leaky_relu(norm(conv1(x)))        y = leaky_relu(norm(conv2(u)) + around)

with around = x, or norm(conv3(x)) where the widths differ (conv3 of side 1). Each norm takes the
place of its convolution's result (see norm.py) and the way around is computed again wherever it is
needed, so x, u and y are all that lives until the backward pass: half of what the single operations
would keep. The gradient needs two more maps, three for a moment.

Shape letters: B maps, X Y Z voxels, M = X*Y*Z, C channels in, D channels out.
"""

# no `from __future__ import annotations`: torch reads the annotations of an operator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vocotrain.models.convolution import convolve, convolve_backward
from vocotrain.models.norm import (
    Statistics,
    activate_,
    before_activation,
    gradient_before_activation,
    mean_of_pieces,
    statistics,
)
from vocotrain.models.pieces import Piece, computing_type, for_each, pieces, wide
from vocotrain.ops import check_no_transform


def residual_unit(
    x_BXYZC: Tensor, weight1: Tensor, weight2: Tensor, weight3: Tensor | None
) -> Tensor:
    """Map to map, under autocast in its type.

    Args:
        x_BXYZC: Maps.
        weight1: (D, C, 3, 3, 3), of the first convolution.
        weight2: (D, D, 3, 3, 3), of the second.
        weight3: (D, C, 1, 1, 1), of the way around; None: the map itself, C = D.

    Returns:
        Maps (B, X, Y, Z, D).

    Raises:
        TransformError: A derivative by torch.func.jvp or torch.func.grad is asked for.
    """
    check_no_transform("residual_unit", x_BXYZC, weight1, weight2, weight3)
    kind = computing_type(x_BXYZC)
    around = None if weight3 is None else weight3.to(kind)
    y_BXYZD: Tensor = _forward_op(
        x_BXYZC.to(kind).contiguous(), weight1.to(kind), weight2.to(kind), around
    )[0]
    return y_BXYZD


@torch.library.custom_op("vocotrain::residual_unit", mutates_args=())
def _forward_op(
    x: Tensor, weight1: Tensor, weight2: Tensor, weight3: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """y, u, and what is kept of the statistics: two scales, and mean and scale of norm(conv3)."""
    with torch.autocast(x.device.type, enabled=False):
        way = _WayAround.measured(x, weight3)
        middle = convolve(x, weight1)
        scale1 = _norm_and_activate_(middle, None)
        y = convolve(middle, weight2)
        scale2 = _norm_and_activate_(y, way)
    return y, middle, torch.stack([scale1, scale2, *(way.statistics or ())])


@torch.library.custom_op("vocotrain::residual_unit_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    x: Tensor,
    middle: Tensor,
    y: Tensor,
    kept: Tensor,
    weight1: Tensor,
    weight2: Tensor,
    weight3: Tensor | None,
    of_input: bool,  # noqa: FBT001 - the operator's signature
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and the weights; empty where not asked for, and for a weight3 of None."""
    scale1, scale2, *rest = kept.unbind(0)
    with torch.autocast(x.device.type, enabled=False):
        way = _WayAround(x, weight3, Statistics(*rest) if rest else None)
        target, means = _norm_gradient(grad, y, way, scale2)
        grad_middle, grad_weight2 = convolve_backward(target, middle, weight2, of_input=True)
        del target
        _norm_gradient(grad_middle, middle, None, scale1, out=grad_middle)
        grad_x, grad_weight1 = convolve_backward(grad_middle, x, weight1, of_input=of_input)
        del grad_middle
        grad_weight3 = _add_gradient_around(grad_x, grad, y, way, means)
    return grad_x, grad_weight1, grad_weight2, grad_weight3


class _WayAround(NamedTuple):
    """What is added to the second norm: the input, or the norm of its convolution.

    Attributes:
        x: The input (B, X, Y, Z, C).
        weight: (D, C, 1, 1, 1), or None.
        statistics: Of the convolution's result, if there is one.
    """

    x: Tensor
    weight: Tensor | None
    statistics: Statistics | None

    @classmethod
    def measured(cls, x: Tensor, weight: Tensor | None) -> "_WayAround":
        """With the statistics that it needs."""
        way = cls(x, weight, None)
        if weight is None:
            return way
        x_BMC = x.flatten(1, 3)
        some = pieces(x_BMC, channels=max(weight.shape[:2]))
        found = statistics(way.convolved, some, maps=len(x_BMC), rows=x_BMC.shape[1])
        return way._replace(statistics=found)

    def piece(self, piece: Piece) -> Tensor:
        """A piece of it, not to be written to."""
        if self.statistics is None:
            return wide(self.x.flatten(1, 3)[piece])
        return self.statistics.normalise_(self.convolved(piece), piece)

    def convolved(self, piece: Piece) -> Tensor:
        """A piece of the convolution's result, fresh."""
        assert self.weight is not None
        return functional.linear(wide(self.x.flatten(1, 3)[piece]), wide(self.weight.flatten(1)))


class _Means(NamedTuple):
    """Means over the voxels of each map, (B, 1, D).

    Attributes:
        gradient: Of the gradient before the activation, g.
        with_norm: Of g times the normalised map.
        with_around: Of g times the way around, if that is a norm.
    """

    gradient: Tensor
    with_norm: Tensor
    with_around: Tensor | None


def _norm_and_activate_(y: Tensor, way: _WayAround | None) -> Tensor:
    """Norm, way around and activation in the place of a map; the norm's scale."""
    y_BMD = y.flatten(1, 3)
    some = _pieces(y, way)
    found = statistics(lambda at: wide(y_BMD[at]), some, maps=len(y_BMD), rows=y_BMD.shape[1])

    def one(at: Piece) -> None:
        n = found.normalise_(wide(y_BMD[at]), at)
        if way is not None:
            n += way.piece(at)
        activate_(n)
        if n.dtype != y_BMD.dtype:
            y_BMD[at] = n

    for_each(one, some)
    return found.scale


def _norm_gradient(
    grad: Tensor, y: Tensor, way: _WayAround | None, scale: Tensor, *, out: Tensor | None = None
) -> tuple[Tensor, _Means]:
    """Undo `_norm_and_activate_`: gradient of the map that was normalised; it may replace grad."""
    grad_BMD, y_BMD = grad.flatten(1, 3), y.flatten(1, 3)
    target = torch.empty_like(y) if out is None else out
    target_BMD = target.flatten(1, 3)
    some = _pieces(y, way)
    means = _means(grad_BMD, y_BMD, way, some)

    def one(at: Piece) -> None:
        g, n, _ = _seen_through(grad_BMD[at], y_BMD[at], way, at)
        g.sub_(means.gradient[at.maps]).addcmul_(n, means.with_norm[at.maps], value=-1)
        torch.mul(g, scale[at.maps], out=target_BMD[at])

    for_each(one, some)
    return target, means


def _means(grad_BMD: Tensor, y_BMD: Tensor, way: _WayAround | None, some: list[Piece]) -> _Means:
    def one(at: Piece) -> list[Tensor]:
        g, n, around = _seen_through(grad_BMD[at], y_BMD[at], way, at)
        found = [g.sum(1, keepdim=True), n.mul_(g).sum(1, keepdim=True)]
        if way is not None and way.statistics is not None and around is not None:
            found.append(around.mul_(g).sum(1, keepdim=True))
        return found

    maps, rows, _ = y_BMD.shape
    columns = zip(*for_each(one, some), strict=True)
    found = [mean_of_pieces(column, maps=maps, rows=rows) for column in columns]
    return _Means(found[0], found[1], found[2] if len(found) == 3 else None)


def _seen_through(
    grad: Tensor, y: Tensor, way: _WayAround | None, at: Piece
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of a piece: gradient before the activation, the normalised map, the way around."""
    y = wide(y)
    g, n = gradient_before_activation(wide(grad), y), before_activation(y)
    if way is None:
        return g, n, None
    around = way.piece(at)
    return g, n.sub_(around), around


def _add_gradient_around(
    grad_x: Tensor, grad: Tensor, y: Tensor, way: _WayAround, means: _Means
) -> Tensor:
    """Add to the input's gradient, unless that is empty, what came around; gradient of weight3."""
    grad_BMD, y_BMD, x_BMC = grad.flatten(1, 3), y.flatten(1, 3), way.x.flatten(1, 3)
    grad_x_BMC = grad_x.flatten(1, 3) if grad_x.numel() else None
    weight_DC = None if way.weight is None else wide(way.weight.flatten(1))

    def one(at: Piece) -> Tensor:
        g = gradient_before_activation(wide(grad_BMD[at]), wide(y_BMD[at]))
        if weight_DC is not None and way.statistics is not None and means.with_around is not None:
            g.sub_(means.gradient[at.maps])
            g.addcmul_(way.piece(at), means.with_around[at.maps], value=-1)
            g.mul_(way.statistics.scale[at.maps])
        if grad_x_BMC is not None:
            grad_x_BMC[at] += g if weight_DC is None else g @ weight_DC
        if weight_DC is None:
            return g.new_empty(0)
        return g.flatten(0, 1).T @ wide(x_BMC[at]).flatten(0, 1)

    if way.weight is None:
        if grad_x_BMC is not None:
            for_each(one, _pieces(y, way))
        return grad_x.new_empty(0)
    found = torch.stack(for_each(one, _pieces(y, way))).sum(0)
    return found.view(way.weight.shape).to(way.weight.dtype)


def _pieces(y: Tensor, way: _WayAround | None) -> list[Piece]:
    width = y.shape[4] if way is None else max(y.shape[4], way.x.shape[4])
    return pieces(y.flatten(1, 3), channels=width)


@_forward_op.register_fake
def _(
    x: Tensor,
    weight1: Tensor,
    weight2: Tensor,  # noqa: ARG001 - the operator's signature
    weight3: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    wide_kind = torch.promote_types(x.dtype, torch.float32)
    y = x.new_empty(*x.shape[:4], weight1.shape[0])
    kept = x.new_empty(
        2 if weight3 is None else 4, x.shape[0], 1, weight1.shape[0], dtype=wide_kind
    )
    return y, torch.empty_like(y), kept


@_backward_op.register_fake
def _(
    grad: Tensor,  # noqa: ARG001 - the operator's signature
    x: Tensor,
    middle: Tensor,  # noqa: ARG001 - the operator's signature
    y: Tensor,  # noqa: ARG001 - the operator's signature
    kept: Tensor,  # noqa: ARG001 - the operator's signature
    weight1: Tensor,
    weight2: Tensor,
    weight3: Tensor | None,
    of_input: bool,  # noqa: FBT001 - the operator's signature
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x) if of_input else x.new_empty(0),
        torch.empty_like(weight1),
        torch.empty_like(weight2),
        x.new_empty(0) if weight3 is None else torch.empty_like(weight3),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - torch's protocol
    x, *weights = inputs
    y, middle, kept = output
    ctx.save_for_backward(x, middle, y, kept, *weights)
    # the middle has no gradient of its own: none is to be filled with zeros
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's protocol
    if grad is None:
        return None, None, None, None
    # once only: checkpointing lets go of a saved tensor when it is read
    saved = ctx.saved_tensors
    of_input = ctx.needs_input_grad[0]
    grad_x, *grad_weights, grad_weight3 = _backward_op(grad, *saved, of_input)
    return (
        grad_x if of_input else None,
        *grad_weights,
        None if saved[-1] is None else grad_weight3,
    )


_forward_op.register_autograd(_backward, setup_context=_save)
