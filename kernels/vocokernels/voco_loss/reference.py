"""The losses of VoCo, the specification.

With s = relu(cos(crop, base)) and labels y, the position loss of one volume is

    - sum y log(1 - |y - s| + e) / (sum y + e)  -  sum [y = 0] log(1 - s + e) / (#[y = 0] + e)

e = 1e-6. It serves twice: with overlap as label inside a volume, and with the teacher's
similarity as label between a volume and the next of the batch.

Shapes: B volumes, N random crops each, K bases, D channels of an embedding, P pairs of bases.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vocokernels.crop_similarity.reference import crop_similarity_reference
from vocokernels.precision import compute_dtype

EPSILON = 1e-6


@dataclass(frozen=True)
class Repairs:
    """What is mended of the released formula; see `vocokernels.voco_loss`."""

    symmetric_regulariser: bool
    clamped_similarity: bool
    inter_needs_two: bool

    def overridden(self, **choices: bool | None) -> "Repairs":
        """The same with other choices; None keeps."""
        return replace(
            self, **{name: value for name, value in choices.items() if value is not None}
        )


def intra_term(
    x_student: Tensor, bases_teacher: Tensor, labels: Tensor, repairs: Repairs
) -> Tensor:
    """Position loss of crops among the bases of their own volume; only the crops learn."""
    similarity = _similarity(x_student, bases_teacher.detach(), repairs)
    return _position_loss(labels.detach().to(similarity.dtype), similarity)


def inter_term(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    repairs: Repairs,
) -> Tensor:
    """Position loss of crops among the bases of the next volume; the teacher labels."""
    if repairs.inter_needs_two and x_student.shape[0] == 1:
        return x_student.new_zeros((), dtype=compute_dtype(x_student, bases_student))
    target = _similarity(x_teacher.detach(), bases_teacher.detach().roll(-1, dims=0), repairs)
    similarity = _similarity(x_student, bases_student.roll(-1, dims=0), repairs)
    return _position_loss(target, similarity)


def regulariser_term(bases_student: Tensor, repairs: Repairs) -> Tensor:
    """Mean square of the rectified cosine over pairs of bases; 0 when there is one base."""
    others = bases_student if repairs.symmetric_regulariser else bases_student.detach()
    bases = bases_student.shape[1]
    first, second = torch.triu_indices(bases, bases, offset=1, device=bases_student.device)
    similarity_BP = _similarity(bases_student, others, repairs)[:, first, second]
    return similarity_BP.square().sum() / max(1, similarity_BP.numel())


def _similarity(x_BND: Tensor, bases_BKD: Tensor, repairs: Repairs) -> Tensor:
    similarity = torch.relu(crop_similarity_reference(x_BND, bases_BKD))
    return similarity.clamp(max=1.0) if repairs.clamped_similarity else similarity


def _position_loss(label_BNK: Tensor, similarity_BNK: Tensor) -> Tensor:
    """Mean over volumes of the formula at the top."""
    negative_BNK = (label_BNK == 0).to(label_BNK.dtype)
    agreement = torch.log(1 - (label_BNK - similarity_BNK).abs() + EPSILON)
    absence = torch.log(1 - similarity_BNK + EPSILON)
    each_volume = (1, 2)
    positive = (label_BNK * agreement).sum(each_volume) / (label_BNK.sum(each_volume) + EPSILON)
    negative = (negative_BNK * absence).sum(each_volume) / (negative_BNK.sum(each_volume) + EPSILON)
    return -(positive + negative).mean()
