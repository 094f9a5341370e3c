"""The operations beside attention: the VoCo losses, their similarity, and the cutting of crops.

Their peers are what people write first: one crop, one pair at a time.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from vocotrain.bench_kernels.jobs import Job, Peer, Work
from vocotrain.ops import crop_similarity, cut_crops, resolve_backend, voco_loss
from vocotrain.sizes import model_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from vocotrain.bench_kernels.settings import BenchSettings

BASES, CROPS = 9, 2
"""Of one volume: a grid of 3 x 3, and what one step of the released recipe draws."""
FIELD_VOX = (192, 192, 64)
EPSILON = 1e-6
"""In the released losses, inside each logarithm and below each fraction."""


def small_jobs(settings: BenchSettings) -> list[tuple[str, Callable[[], Job]]]:
    """Names of the jobs, and how to make each."""
    volumes, fields = (4, 1) if settings.is_quick else (16, 2)
    return [
        (f"voco_loss {volumes} volumes", partial(_loss_job, volumes, settings.device)),
        (f"crop_similarity {volumes} volumes", partial(_similarity_job, volumes, settings.device)),
        (
            f"cut_crops {fields * (BASES + CROPS)} of 64^3",
            partial(_crops_job, fields, settings.device),
        ),
    ]


def _embeddings(volumes: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As the two heads of size B give them, in the order in which a loss takes them."""
    torch.manual_seed(0)
    width = model_size("B").head_width

    def draw(rows: int) -> Tensor:
        # mostly positive, so that similarities are and few are cut off at 0
        return torch.randn(volumes, rows, width, device=device) + 0.5

    return draw(CROPS).requires_grad_(), draw(CROPS), draw(BASES).requires_grad_(), draw(BASES)


def _loss_job(volumes: int, device: torch.device) -> Job:
    given = _embeddings(volumes, device)
    labels = (torch.rand(volumes, CROPS, BASES, device=device) - 0.6).clamp_min(0)
    x, _, bases, _ = given
    moved = 2 * sum(one.numel() for one in given) * x.element_size()
    return Job(
        kernel="voco_loss",
        name=f"voco_loss {volumes} volumes",
        peers=[
            Peer("loops", lambda: looped_loss(*given, labels)),
            Peer(
                f"voco-{resolve_backend('auto', x)}",
                lambda: voco_loss(*given, labels, variant="reference").total(),
            ),
        ],
        wanted=[x, bases],
        notes={"volumes": volumes, "crops": CROPS, "bases": BASES, "channels": x.shape[2]},
        # embeddings once there; embeddings and gradients once back
        work=lambda mode: Work({"forward": 0.5, "backward": 1, "full": 1.5}[mode] * moved, 0),
    )


def _similarity_job(volumes: int, device: torch.device) -> Job:
    x, _, bases, _ = _embeddings(volumes, device)
    moved = (x.numel() + bases.numel()) * x.element_size()
    products = 2 * volumes * CROPS * BASES * x.shape[2]
    return Job(
        kernel="crop_similarity",
        name=f"crop_similarity {volumes} volumes",
        peers=[
            Peer(
                "torch",
                lambda: functional.cosine_similarity(x[:, :, None], bases[:, None], dim=-1),
            ),
            Peer(f"voco-{resolve_backend('auto', x)}", lambda: crop_similarity(x, bases)),
        ],
        wanted=[x, bases],
        notes={"volumes": volumes, "crops": CROPS, "bases": BASES, "channels": x.shape[2]},
        work=lambda mode: Work(
            {"forward": 1, "backward": 2, "full": 3}[mode] * moved,
            {"forward": 1, "backward": 2, "full": 3}[mode] * products,
        ),
    )


def _crops_job(fields: int, device: torch.device) -> Job:
    torch.manual_seed(0)
    crops, side = BASES + CROPS, 64
    field = torch.randint(-1024, 1500, (fields, *FIELD_VOX), dtype=torch.int16, device=device)
    # plans stay on the processor, where a loader makes them
    room = torch.tensor([length - side + 1 for length in FIELD_VOX])
    start = (torch.rand(fields, crops, 3) * room).long()
    window = torch.tensor([[-175.0, 250.0]] * fields)
    flip, turns = torch.rand(fields, crops, 3) < 0.5, torch.randint(0, 4, (fields, crops))
    shift = torch.rand(fields, crops) * 0.2 - 0.1
    # int16 read, float32 written
    moved = fields * crops * side**3 * (2 + 4)
    return Job(
        kernel="cut_crops",
        name=f"cut_crops {fields * crops} of 64^3",
        peers=[
            Peer("chain", lambda: chained_crops(field, start, side, window, flip, turns, shift)),
            Peer(
                f"voco-{resolve_backend('auto', field)}",
                lambda: cut_crops(
                    field,
                    start,
                    side,
                    window_hu_B2=window,
                    flip_BN3=flip,
                    turns_BN=turns,
                    shift_BN=shift,
                ),
            ),
        ],
        wanted=(),
        notes={"fields": fields, "crops": crops, "crop_vox": side, "field_vox": FIELD_VOX},
        work=lambda _mode: Work(moved, 0),
    )


def chained_crops(
    field_BXYZ: Tensor,
    start_BN3: Tensor,
    side: int,
    window_hu_B2: Tensor,
    flip_BN3: Tensor,
    turns_BN: Tensor,
    shift_BN: Tensor,
) -> Tensor:
    """Window, crop, flip, turn and shift, one crop after the other, by torch's own functions."""
    volumes = []
    for b, field in enumerate(field_BXYZ):
        lower, upper = window_hu_B2[b].tolist()
        windowed = ((field.float() - lower) / (upper - lower)).clamp(0, 1)
        crops = []
        for n, (x, y, z) in enumerate(start_BN3[b].tolist()):
            crop = windowed[x : x + side, y : y + side, z : z + side]
            crop = torch.flip(crop, [axis for axis in range(3) if flip_BN3[b, n, axis]])
            crops.append(
                torch.rot90(crop, int(turns_BN[b, n]), dims=(0, 1)) + float(shift_BN[b, n])
            )
        volumes.append(torch.stack(crops)[:, None])
    return torch.stack(volumes)


def looped_loss(
    x_student: Tensor,
    x_teacher: Tensor,
    bases_student: Tensor,
    bases_teacher: Tensor,
    labels: Tensor,
) -> Tensor:
    """The released losses, volume by volume, crop by crop and pair by pair.

    Source: the formula of vocokernels.voco_loss, variant `reference`.
    """
    volumes = x_student.shape[0]
    total = x_student.new_zeros(())
    for volume in range(volumes):
        partner = (volume + 1) % volumes
        own = _looped_similarity(x_student[volume], bases_teacher[volume])
        total = total + _position_loss(own, labels[volume])
        theirs = _looped_similarity(x_teacher[volume], bases_teacher[partner]).detach()
        ours = _looped_similarity(x_student[volume], bases_student[partner])
        total = total + _position_loss(ours, theirs) + _apart(bases_student[volume])
    return total / volumes


def _looped_similarity(crops_ND: Tensor, bases_KD: Tensor) -> Tensor:
    rows = [
        functional.cosine_similarity(crop.expand_as(bases_KD), bases_KD, dim=-1).relu()
        for crop in crops_ND
    ]
    return torch.stack(rows)


def _position_loss(similarity_NK: Tensor, label_NK: Tensor) -> Tensor:
    near = -(label_NK * torch.log(1 - (label_NK - similarity_NK).abs() + EPSILON)).sum()
    is_absent = (label_NK == 0).to(similarity_NK.dtype)
    far = -(is_absent * torch.log(1 - similarity_NK + EPSILON)).sum()
    return near / (label_NK.sum() + EPSILON) + far / (is_absent.sum() + EPSILON)


def _apart(bases_KD: Tensor) -> Tensor:
    """Squared similarity of each pair; the second of a pair is held still, as released."""
    pairs = list(itertools.combinations(bases_KD, 2))
    squares = [
        functional.cosine_similarity(one, other.detach(), dim=0).relu() ** 2 for one, other in pairs
    ]
    return torch.stack(squares).sum() / len(pairs)
