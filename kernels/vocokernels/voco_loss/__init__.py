"""The losses of VoCo: where in the volume does a crop lie?"""

from typing import Literal, NamedTuple

from torch import Tensor

from vocokernels.backends import check_no_transform, check_one_device, chosen_backend
from vocokernels.crop_similarity import check_embeddings
from vocokernels.errors import ShapeError, UnknownVariantError
from vocokernels.voco_loss.cpu import voco_loss_cpu
from vocokernels.voco_loss.reference import Repairs, inter_term, intra_term, regulariser_term

Variant = Literal["reference", "voco"]

VARIANTS: dict[str, Repairs] = {
    "reference": Repairs(
        symmetric_regulariser=False, clamped_similarity=False, inter_needs_two=False
    ),
    "voco": Repairs(symmetric_regulariser=True, clamped_similarity=True, inter_needs_two=True),
}


class VoCoTerms(NamedTuple):
    """The three losses, each a scalar and a mean over volumes."""

    intra: Tensor
    """Crops find their place among the bases of their own volume."""
    inter: Tensor
    """Student and teacher agree on crops of one volume among the bases of the next."""
    regulariser: Tensor
    """Bases of one volume keep apart."""

    def total(self, *, intra: float = 1.0, inter: float = 1.0, regulariser: float = 1.0) -> Tensor:
        """Weighted sum; the released recipe weighs all alike."""
        return intra * self.intra + inter * self.inter + regulariser * self.regulariser


def voco_loss(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
    *,
    variant: str = "reference",
    symmetric_regulariser: bool | None = None,
    clamped_similarity: bool | None = None,
    inter_needs_two: bool | None = None,
    backend: str = "auto",
) -> VoCoTerms:
    """Losses of a batch of volumes, from the embeddings of both heads.

    Variant `reference` is the released formula, `voco` the same with three repairs; each can be
    switched alone:

    - `symmetric_regulariser`: of a pair of bases the released loss teaches only the first, so base
      0 is pushed by all others and the last by none. Repaired, both move; values are equal.
    - `clamped_similarity`: rounding makes a cosine exceed 1, where 1 - s + 1e-6 nears its end.
      Repaired, s is at most 1.
    - `inter_needs_two`: the partner of the only volume of a batch is itself, and the inter term
      silently becomes a second intra term. Repaired, it is 0.

    Both compute in float32 (float64 if the embeddings are), also under autocast. Neither mends
    pairs that overlap at a cosine below 0: the rectifier gives them no gradient. Dropout of
    features is the trainer's business. Embeddings whose squares overflow (1e19 in float32) give
    NaN, by reference cosines of 0.

    Args:
        x_student: (B, N, D), crops through the student head; the gradient flows here,
        x_teacher: (B, N, D), crops through the teacher head; never here,
        bases_student: (B, K, D), bases through the student head; here (inter, regulariser),
        bases_teacher: (B, K, D), bases through the teacher head; never here.
        labels: (B, N, K), share of a crop inside each base, 0 to 1; never here.
        variant: `reference` or `voco`.
        symmetric_regulariser: Override of the variant.
        clamped_similarity: Override of the variant.
        inter_needs_two: Override of the variant.
        backend: See `vocokernels.backends`; cpu reads the embeddings fewer times;
            triton is two kernels forward and two backward.

    Raises:
        ShapeError: Embeddings or labels that do not belong together.
        DtypeError: Embeddings that are not of floats.
        DeviceError: Tensors on different devices.
        UnknownVariantError: No variant has this name.
        UnknownBackendError: No backend has this name.
        BackendUnavailableError: The backend cannot run here.
        TransformError: An input comes from torch.func.vmap; but for reference, from jvp or grad.

    Source: Wu et al., arXiv:2410.09890; the released code's behaviour, restated.
    """
    _check(x_student, x_teacher, bases_student, bases_teacher, labels)
    check_one_device(
        x_student=x_student,
        x_teacher=x_teacher,
        bases_student=bases_student,
        bases_teacher=bases_teacher,
        labels=labels,
    )
    repairs = _repairs(variant).overridden(
        symmetric_regulariser=symmetric_regulariser,
        clamped_similarity=clamped_similarity,
        inter_needs_two=inter_needs_two,
    )
    inputs = (x_student, x_teacher, bases_student, bases_teacher, labels)
    chosen = chosen_backend("voco_loss", backend, *inputs)
    if chosen != "reference":
        check_no_transform("voco_loss", *inputs)
    if chosen == "cpu":
        return VoCoTerms(*voco_loss_cpu(*inputs, repairs))
    if chosen == "triton":
        # importing a kernel wants triton, which other backends do without
        from vocokernels.voco_loss.op import voco_loss_triton

        return VoCoTerms(*voco_loss_triton(*inputs, repairs))
    return VoCoTerms(
        intra=intra_term(x_student, bases_teacher, labels, repairs),
        inter=inter_term(x_student, x_teacher, bases_student, bases_teacher, repairs),
        regulariser=regulariser_term(bases_student, repairs),
    )


def _repairs(variant: str) -> Repairs:
    if variant not in VARIANTS:
        message = f"Loss variant {variant!r} is unknown; expected {' or '.join(VARIANTS)}."
        raise UnknownVariantError(message)
    return VARIANTS[variant]


def _check(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
) -> None:
    check_embeddings(x_student, bases_student)
    check_embeddings(x_teacher, bases_teacher)
    for name, student, teacher in (
        ("crops", x_student, x_teacher),
        ("bases", bases_student, bases_teacher),
    ):
        if student.shape != teacher.shape:
            message = (
                f"Embeddings of {name} are {tuple(student.shape)} from the student and "
                f"{tuple(teacher.shape)} from the teacher; expected the same."
            )
            raise ShapeError(message)
    expected = (*x_student.shape[:2], bases_student.shape[1])
    if tuple(labels.shape) != expected:
        message = (
            f"Labels have shape {tuple(labels.shape)}; expected (B, N, K) = {expected}, a label "
            "for each crop and base."
        )
        raise ShapeError(message)
