"""Does it learn? The same held-out fields, looked at again and again.

Three numbers, all from the teacher's embeddings of unchanged crops:

- *position accuracy*: how often the most similar base is the one a crop overlaps most. To be read
  against the best constant guess on the same labels, not against one over the number of cells.
- *effective rank* of the embeddings: how many directions they use. A collapsing model's falls to 1.
- *gap*: similarity to the base overlapped most less similarity to the bases not touched at all.

Looking moves nothing: batch norms have no running statistics, plans come from a stream of their
own, and the teacher is not updated.

Shape letters: B volumes, N random crops, K base cells, R rows, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from vocotrain.data import FieldBatch, read_batch
from vocotrain.fields import MONITOR_STREAM, FieldPlan, FieldSettings, plan_field
from vocotrain.objective import VoCo, position_accuracy
from vocotrain.ops import crop_similarity

if TYPE_CHECKING:
    from torch import Tensor

    from vocodata.store import Store
    from vocotrain.scan_table import ScanTable


@dataclass(frozen=True, eq=False)
class Monitor:
    """A fixed set of fields to look at.

    Attributes:
        batches: The fields, on the host; batch norm sees one batch at a time.
        is_held_out: Whether the scans are never trained on.
        device: Where to compute.
    """

    batches: tuple[FieldBatch, ...]
    is_held_out: bool
    device: torch.device

    def look(self, objective: VoCo) -> dict[str, float]:
        """The numbers now.

        Returns:
            `effective_rank` and `gap`; with held-out scans also `heldout_position_accuracy` and
            `heldout_constant_guess`.
        """
        looks = [self._embedded(objective, batch) for batch in self.batches]
        similarity_BNK = torch.cat([crop_similarity(crops, bases) for crops, bases in looks])
        label_BNK = torch.cat([batch.label_BNK for batch in self.batches])
        embedding_RD = torch.cat([part.flatten(0, 1) for look in looks for part in look])
        numbers = {
            "effective_rank": effective_rank(embedding_RD),
            "gap": similarity_gap(similarity_BNK, label_BNK),
        }
        if self.is_held_out:
            accuracy = position_accuracy(similarity_BNK, label_BNK)
            numbers["heldout_position_accuracy"] = float(accuracy)
            numbers["heldout_constant_guess"] = constant_guess(label_BNK)
        return numbers

    def _embedded(self, objective: VoCo, batch: FieldBatch) -> tuple[Tensor, Tensor]:
        crops_BND, bases_BKD = objective.teacher_embeddings(batch.to(self.device))
        return crops_BND.float().cpu(), bases_BKD.float().cpu()


def make_monitor(
    store: Store,
    *,
    training: ScanTable,
    held_out: ScanTable,
    settings: FieldSettings,
    seed: int,
    fields: int,
    batch_size: int,
    device: torch.device,
) -> Monitor:
    """Read the fields to look at: of the held-out scans in turn, or of training scans if none is.

    Args:
        store: Where the fields are.
        training: Scans trained on.
        held_out: Scans held out; may be empty.
        settings: What a training sample looks like; nothing of it is changed by chance here.
        seed: The run's seed.
        fields: Fields to read, in all.
        batch_size: Fields that batch norm sees together.
        device: Where to compute.

    Raises:
        ScanReadError: A field cannot be read; the scan is named.
    """
    plain = plain_settings(settings)
    table = held_out if len(held_out) else training
    plans = [
        plan_field(table.only(index), plain, seed=seed, sample_index=index, stream=MONITOR_STREAM)
        for index in range(fields)
    ]
    groups: list[list[FieldPlan]] = [
        plans[first : first + batch_size] for first in range(0, fields, batch_size)
    ]
    batches = tuple(read_batch(store, group, plain) for group in groups)
    return Monitor(batches, is_held_out=len(held_out) > 0, device=device)


def plain_settings(settings: FieldSettings) -> FieldSettings:
    """The same fields and crops, with nothing changed by chance."""
    nothing = (0.0, 0.0, 0.0)
    return replace(
        settings,
        shift_probability=0.0,
        crop_flips=nothing,
        crop_turn=0.0,
        field_flips=nothing,
        row_dropout=0.0,
    )


def constant_guess(label_BNK: Tensor) -> float:
    """Position accuracy of the best answer that never looks: the commonest cell, always.

    >>> constant_guess(torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]]))
    0.6666666666666666
    """
    cells = label_BNK.argmax(-1).flatten()
    return int(torch.bincount(cells).max()) / len(cells)


def effective_rank(embedding_RD: Tensor) -> float:
    """How many directions the embeddings use: exp of the entropy of the singular values' shares.

    The mean is taken off first, or a common offset would hide the rest. Between 1 and the smaller
    side of the matrix; 0 if all rows are equal.

    Source: Roy and Vetterli, EUSIPCO 2007.
    """
    centred = (embedding_RD - embedding_RD.mean(dim=0)).double()
    values = torch.linalg.svdvals(centred)
    total = values.sum()
    if total <= 1e-9 * embedding_RD.double().norm():
        return 0.0
    share = values / total
    return float(torch.exp(torch.special.entr(share).sum()))


def similarity_gap(similarity_BNK: Tensor, label_BNK: Tensor) -> float:
    """Mean similarity to the base overlapped most, less that to bases not touched.

    A grid in which every crop touches every cell has none of the latter; they count as 0 then.
    """
    best = similarity_BNK.gather(-1, label_BNK.argmax(-1, keepdim=True)).mean()
    untouched = similarity_BNK[label_BNK == 0]
    return float(best) - (float(untouched.mean()) if len(untouched) else 0.0)
