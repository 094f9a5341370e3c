"""The VoCo objective: an encoder, a student head that learns, a teacher head that follows it.

The teacher is a head alone. Both heads read the same feature of the one encoder; the teacher's
branch has no gradient.

Two sets of habits, each switchable by itself (`ObjectiveConfig`). The released code's: the teacher
starts with weights of its own, follows with momentum 0.9 inside the forward pass, before it is
used, and whole rows of the student's input (a crop's complete feature) are zeroed with chance 0.2
and the others scaled by 1.25, in evaluation too. Ours: the teacher starts as the student, follows
with momentum 0.99 after the optimiser's step, and nothing is dropped.

The heads' batch norms normalise over the crops of this process, random and base alike. They are
not synchronised between processes, so a result depends on the volumes per process, as in the
released code.

Shape letters: B volumes, N random crops, K base cells, R = B * (N + K) rows, D embedding.

Source: Wu et al., arXiv:2410.09890, and the authors' released code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.head import ProjectionHead
from vocotrain.ops import VoCoTerms, crop_similarity, voco_loss

if TYPE_CHECKING:
    from vocotrain.config import ObjectiveConfig
    from vocotrain.data import FieldBatch
    from vocotrain.sizes import ModelSize


class VoCoOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        terms: The three losses.
        position_accuracy: Share of random crops whose most similar base (student crop, teacher
            bases) is the one that it overlaps most. Always guessing the middle of 3 x 3 cells
            gives 0.25.
    """

    terms: VoCoTerms
    position_accuracy: Tensor


class VoCo(nn.Module):
    """Encoder and heads. Only encoder and student have gradients."""

    def __init__(
        self, size: ModelSize, settings: ObjectiveConfig, *, checkpointing: bool = False
    ) -> None:
        """Build the modules; the caller fixes the seed."""
        super().__init__()
        self.settings = settings
        self.encoder = VoCoEncoder(size, checkpointing=checkpointing)
        self.student = _head(size)
        self.teacher = _head(size)
        self.teacher.requires_grad_(requires_grad=False)
        if settings.teacher_start == "student":
            self.teacher.load_state_dict(self.student.state_dict())

    def forward(self, batch: FieldBatch) -> VoCoOutput:
        """Losses and position accuracy of a batch.

        With `teacher_update: before_use` the teacher moves in here, as in the released code.
        """
        label_BNK = batch.label_BNK
        feature_RD = self.encoder(batch.crop_rows())
        student_RD = self.student(self._dropped(feature_RD, batch))
        if self.settings.teacher_update == "before_use":
            self._follow()
        with torch.no_grad():
            teacher_RD = self.teacher(feature_RD)
        x_student_BND, bases_student_BKD = _parted(student_RD, label_BNK)
        x_teacher_BND, bases_teacher_BKD = _parted(teacher_RD, label_BNK)
        terms = voco_loss(
            x_student_BND,
            x_teacher_BND,
            bases_student_BKD,
            bases_teacher_BKD,
            label_BNK,
            variant=self.settings.variant,
        )
        with torch.no_grad():
            similarity_BNK = crop_similarity(x_student_BND, bases_teacher_BKD)
        return VoCoOutput(terms, position_accuracy(similarity_BNK, label_BNK))

    @torch.no_grad()
    def teacher_embeddings(self, batch: FieldBatch) -> tuple[Tensor, Tensor]:
        """What the teacher makes of random crops (B, N, D) and bases (B, K, D); moves nothing."""
        teacher_RD = self.teacher(self.encoder(batch.crop_rows()))
        return _parted(teacher_RD, batch.label_BNK)

    def update_teacher(self) -> None:
        """Let the teacher follow, if it does so after the optimiser's step."""
        if self.settings.teacher_update == "after_step":
            self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        momentum = self.settings.teacher_momentum
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.mul_(momentum).add_(student, alpha=1 - momentum)

    def _dropped(self, feature_RD: Tensor, batch: FieldBatch) -> Tensor:
        """Zero whole rows; the plan of each sample says which, so no generator has a state."""
        if self.settings.row_dropout == 0:
            return feature_RD
        keep_R = batch.rows(batch.keep_BM).to(feature_RD.dtype)
        return feature_RD * (keep_R / (1 - self.settings.row_dropout))[:, None]


def position_accuracy(similarity_BNK: Tensor, label_BNK: Tensor) -> Tensor:
    """Share of crops whose most similar base is the one that they overlap most.

    >>> position_accuracy(torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.7, 0.3]]]))
    tensor(1.)
    """
    return (similarity_BNK.argmax(-1) == label_BNK.argmax(-1)).float().mean()


def _parted(value_RD: Tensor, label_BNK: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of random crops (B, N, D) and of bases (B, K, D)."""
    volumes, crops, cells = label_BNK.shape
    random_rows = volumes * crops
    return (
        value_RD[:random_rows].reshape(volumes, crops, -1),
        value_RD[random_rows:].reshape(volumes, cells, -1),
    )


def _head(size: ModelSize) -> ProjectionHead:
    return ProjectionHead(size.feature_width, hidden=size.head_hidden, out=size.head_width)
