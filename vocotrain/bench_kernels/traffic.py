"""Bytes that a piece of torch code moves, counted operation by operation.

Every operation below autograd reads its inputs and writes its outputs once; views move nothing,
and a tensor that repeats itself by a stride of 0 counts once. Under torch's fake tensors nothing is
computed, so a batch that fits no memory can be counted as well. What a cache saves between two
operations is not seen: maps of the sizes in question are larger than any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALLOCATIONS = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided")


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Adds up bytes of all operations while it is entered."""

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.moved_bytes = 0
        self.by_operation: dict[str, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's protocol
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's protocol
        """Run the operation and count it."""
        out = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        read, written = _tensors((args, kwargs)), _tensors(out)
        # questions about a tensor, such as its device, come this way too and return none
        if written and name not in _ALLOCATIONS and not _is_view(func, read, written):
            moved = sum(map(distinct_bytes, read + written))
            self.moved_bytes += moved
            self.by_operation[name] = self.by_operation.get(name, 0) + moved
        return out


def distinct_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's numbers, those that a stride of 0 repeats counted once.

    >>> distinct_bytes(torch.zeros(3, 1).expand(3, 100))
    12
    """
    numbers = 1
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        numbers *= 1 if stride == 0 else length
    return numbers * tensor.element_size()


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def _is_view(func: Any, read: list[torch.Tensor], written: list[torch.Tensor]) -> bool:  # noqa: ANN401 - torch's
    """Whether an operation only looks at its input in another way."""
    if any(
        one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments
    ):
        return False
    homes = {tensor.untyped_storage()._cdata for tensor in read}
    return all(one.untyped_storage()._cdata in homes for one in written)
