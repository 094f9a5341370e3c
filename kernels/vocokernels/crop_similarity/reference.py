"""The cosine of embeddings, the specification: rows of length 1, one matrix product.

Shapes: B volumes, N random crops each, K bases, D channels of an embedding.
"""

import torch
from torch import Tensor

from vocokernels.precision import compute_dtype, no_autocast

# what torch.nn.functional.cosine_similarity divides by at least
NORM_FLOOR = 1e-8


def crop_similarity_reference(x_BND: Tensor, bases_BKD: Tensor) -> Tensor:
    """Arguments as for `vocokernels.crop_similarity`, checked; any device."""
    with no_autocast(x_BND):
        dtype = compute_dtype(x_BND, bases_BKD)
        return torch.bmm(_unit_rows(x_BND.to(dtype)), _unit_rows(bases_BKD.to(dtype)).mT)


def _unit_rows(rows_D: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(rows_D, dim=-1, keepdim=True)
    return torch.div(rows_D, length.clamp_min(NORM_FLOOR))
