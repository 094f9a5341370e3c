"""The losses of VoCo on a processor: few passes over the embeddings.

The specification divides each embedding by its length, again for each term. Here products of raw
embeddings are divided by lengths, so that embeddings are only read; all cosines are one operation,
whose gradient for a whole embedding is

    d x = sum_k g_k b_k / (|x| |b_k|)  -  x sum_k g_k cos_k / |x|^2

summed over the terms before x is touched. Crops are rolled to the volume before theirs, not bases.

Shapes: B volumes, N random crops each, K bases, D channels of an embedding; S student, T teacher.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vocokernels.crop_similarity.reference import NORM_FLOOR
from vocokernels.precision import compute_dtype
from vocokernels.voco_loss.reference import EPSILON, Repairs


def voco_loss_cpu(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
    repairs: Repairs,
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments as for `vocokernels.voco_loss`, checked."""
    with torch.autocast("cpu", enabled=False):
        dtype = compute_dtype(x_student, x_teacher, bases_student, bases_teacher)
        students = [embedding.to(dtype) for embedding in (x_student, bases_student)]
        teachers = [embedding.detach().to(dtype) for embedding in (x_teacher, bases_teacher)]
        own_BNK, next_BNK, target_BNK, apart_BKK = (
            _rectified(cosine, repairs)
            for cosine in _Cosines.apply(*students, *teachers, repairs.symmetric_regulariser)  # type: ignore[no-untyped-call]  # torch's apply
        )
        position_2 = _position_losses(
            torch.stack([labels.detach().to(dtype), target_BNK.detach()]),
            torch.stack([own_BNK, next_BNK]),
        )
        bases = apart_BKK.shape[1]
        pairs = max(1, len(apart_BKK) * bases * (bases - 1) // 2)
        regulariser = apart_BKK.triu(1).square().sum() / pairs
    intra, inter = position_2.unbind()
    if repairs.inter_needs_two and len(labels) == 1:
        inter = torch.zeros_like(inter)
    return intra, inter, regulariser


def _rectified(cosine: Tensor, repairs: Repairs) -> Tensor:
    similarity = torch.relu(cosine)
    return similarity.clamp(max=1.0) if repairs.clamped_similarity else similarity


def _position_losses(label_2BNK: Tensor, similarity_2BNK: Tensor) -> Tensor:
    """The position losses of both terms, means over volumes, (2)."""
    negative_2BNK = (label_2BNK == 0).to(label_2BNK.dtype)
    agreement = torch.log(1 - (label_2BNK - similarity_2BNK).abs() + EPSILON)
    absence = torch.log(1 - similarity_2BNK + EPSILON)
    each_volume = (2, 3)
    positive = (label_2BNK * agreement).sum(each_volume) / (label_2BNK.sum(each_volume) + EPSILON)
    counted = negative_2BNK.sum(each_volume) + EPSILON
    negative = (negative_2BNK * absence).sum(each_volume) / counted
    return -(positive + negative).mean(1)


class _Cosines(torch.autograd.Function):
    """Cosines of crops with their own and the next volume's bases, and of bases with each other.

    Of own ones the teacher's bases, of the next ones student's and, for the target, teacher's.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        crops_S: Tensor,
        bases_S: Tensor,
        crops_T: Tensor,
        bases_T: Tensor,
        symmetric: bool,  # noqa: FBT001 - torch's apply takes no keywords
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        per_crop_S, per_base_S, per_crop_T, per_base_T = map(
            _over_length, (crops_S, bases_S, crops_T, bases_T)
        )
        own = torch.bmm(crops_S, bases_T.mT) * (per_crop_S * per_base_T.mT)
        target = _with_next(crops_T, bases_T) * (per_crop_T * per_base_T.mT.roll(-1, 0))
        following = _with_next(crops_S, bases_S) * (per_crop_S * per_base_S.mT.roll(-1, 0))
        apart = torch.bmm(bases_S, bases_S.mT) * (per_base_S * per_base_S.mT)
        ctx.mark_non_differentiable(target)
        ctx.save_for_backward(
            crops_S, bases_S, bases_T, per_crop_S, per_base_S, per_base_T, own, following, apart
        )
        ctx.symmetric = symmetric
        return own, following, target, apart

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch's context
        grad_own: Tensor,
        grad_following: Tensor,
        _: Tensor,
        grad_apart: Tensor,
    ) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            found = _embedding_gradients(
                ctx.saved_tensors, grad_own, grad_following, grad_apart, symmetric=ctx.symmetric
            )
        return *found, None, None, None


def _embedding_gradients(
    saved: tuple[Tensor, ...],
    grad_own: Tensor,
    grad_following: Tensor,
    grad_apart: Tensor,
    *,
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    """Of the student's crops and bases."""
    crops, bases, bases_T, per_crop, per_base, per_base_T, own, following, apart = saved
    if symmetric:
        grad_apart = grad_apart + grad_apart.mT
    following_weight = grad_following * (per_crop * per_base.mT.roll(-1, 0))
    along_following = grad_following * following
    # bases meet the crops of the volume before theirs
    grad_bases = torch.bmm(grad_apart * (per_base * per_base.mT), bases)
    grad_bases.baddbmm_(following_weight.mT.roll(1, 0), crops.roll(1, 0))
    along_K = (grad_apart * apart).sum(2) + along_following.sum(1).roll(1, 0)
    grad_bases.addcmul_(bases, _of_length(along_K, per_base), value=-1)
    grad_crops = torch.bmm(grad_own * (per_crop * per_base_T.mT), bases_T)
    grad_crops += torch.bmm(following_weight.roll(1, 0), bases).roll(-1, 0)
    along_N = (grad_own * own + along_following).sum(2)
    grad_crops.addcmul_(crops, _of_length(along_N, per_crop), value=-1)
    return grad_crops, grad_bases


def _with_next(crops_BND: Tensor, bases_BKD: Tensor) -> Tensor:
    """Products of crops with the bases of the next volume of the batch, (B, N, K)."""
    return torch.bmm(crops_BND.roll(1, 0), bases_BKD.mT).roll(-1, 0)


def _over_length(rows_BRD: Tensor) -> Tensor:
    """One over the lengths of embeddings, (B, R, 1), as `crop_similarity` bounds them."""
    length: Tensor = torch.linalg.vector_norm(rows_BRD, dim=-1, keepdim=True)
    return length.clamp_min_(NORM_FLOOR).reciprocal_()


def _of_length(along_BR: Tensor, per_length_BR1: Tensor) -> Tensor:
    """What multiplies an embedding in its own gradient: nothing where its length is bounded."""
    bounded = per_length_BR1 >= 1 / NORM_FLOOR
    return (along_BR[..., None] * per_length_BR1.square()).masked_fill_(bounded, 0)
