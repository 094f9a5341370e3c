"""How alike crops and base cells are: the cosine of their embeddings.

Shapes: B volumes, N random crops each, K bases, D channels of an embedding.
"""

import torch
from torch import Tensor

from vocokernels.errors import DtypeError, ShapeError

# what torch.nn.functional.cosine_similarity divides by at least
NORM_FLOOR = 1e-8


def crop_similarity(x_BND: Tensor, bases_BKD: Tensor) -> Tensor:
    """Cosine of each crop and each base of the same volume, as one matrix product.

    Computed in float32 (float64 if either is float64), also under autocast. A zero embedding is
    like nothing: its similarities are 0.

    Args:
        x_BND: Embeddings of crops.
        bases_BKD: Embeddings of bases.

    Returns:
        (B, N, K), from -1 to 1 up to rounding.

    Raises:
        ShapeError: Not three axes, or volumes or channels that differ, or none of something.
        DtypeError: An embedding that is not of floats.

    >>> import torch
    >>> crop_similarity(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]))
    tensor([[[0.6000, 0.8000]]])
    """
    _check(x_BND, bases_BKD)
    with torch.autocast(x_BND.device.type, enabled=False):
        dtype = compute_dtype(x_BND, bases_BKD)
        return torch.bmm(_unit_rows(x_BND.to(dtype)), _unit_rows(bases_BKD.to(dtype)).mT)


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """Type of the computation: float64 if any tensor is, else float32."""
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if is_double else torch.float32


def _unit_rows(rows_D: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows_D, dim=-1, keepdim=True)
    return torch.div(rows_D, length.clamp_min(NORM_FLOOR))


def _check(x_BND: Tensor, bases_BKD: Tensor) -> None:
    x, bases = tuple(x_BND.shape), tuple(bases_BKD.shape)
    three_axes = len(x) == len(bases) == 3
    if not three_axes or x[::2] != bases[::2] or 0 in x + bases:
        message = (
            f"Embeddings of crops {x} and bases {bases} do not belong together; expected "
            "(B, N, D) and (B, K, D), none of them 0."
        )
        raise ShapeError(message)
    for name, tensor in (("crops", x_BND), ("bases", bases_BKD)):
        if not tensor.is_floating_point():
            message = f"Embeddings of {name} are {tensor.dtype}; expected a floating type."
            raise DtypeError(message)
