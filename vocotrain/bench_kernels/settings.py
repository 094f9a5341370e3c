"""What a benchmark run is asked for, and what it does when it is not asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vocotrain.device import chosen_precision, device_kind
from vocotrain.errors import BenchmarkSettingsError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class BenchSettings:
    """Everything that decides what is timed.

    Attributes:
        device: Where.
        dtype: Arithmetic: float32, or autocast to a half type.
        sizes: Rows of the table of sizes.
        crops_vox: Sides of the crops that the network gets, voxels.
        stages: From 1; empty for all.
        maps: Maps in a batch of window attention; None for what a GPU is given.
        repeats: Turns that count, at least.
        least_s: Turns of one case go on for so long.
        is_compiled: Whether torch.compile of MONAI's blocks is a peer.
        is_quick: Whether the other operations, too, get small inputs.
    """

    device: torch.device
    dtype: torch.dtype
    sizes: tuple[str, ...]
    crops_vox: tuple[int, ...]
    stages: tuple[int, ...]
    maps: int | None
    repeats: int
    least_s: float
    is_compiled: bool
    is_quick: bool


def resolve_settings(
    *,
    device: str = "auto",
    precision: str = "auto",
    sizes: tuple[str, ...] = (),
    crops_vox: tuple[int, ...] = (),
    stages: tuple[int, ...] = (),
    maps: int | None = None,
    repeats: int | None = None,
    is_compiled: bool = False,
    is_quick: bool = False,
) -> BenchSettings:
    """Fill in what was not asked for: everything on a GPU, minutes' worth on a processor.

    Args:
        device: `auto`, `cpu` or `cuda`.
        precision: `auto` (bf16 on a GPU, fp16 on one without it, fp32 on a processor), `fp32`,
            `bf16` or `fp16`.
        sizes: Empty for B, L and H on a GPU, B on a processor.
        crops_vox: Empty for 64 and 96 on a GPU, 64 on a processor.
        stages: Empty for all; with `is_quick` the two cheapest.
        maps: None for what a GPU is given, 1 on a processor.
        repeats: None for 20 on a GPU, 3 on a processor, and a few when quick.
        is_compiled: Whether torch.compile of MONAI's blocks is a peer.
        is_quick: Something from every operation, in well under a minute.

    Raises:
        DeviceUnavailableError: CUDA is asked for and not there.
        BenchmarkSettingsError: An unknown precision.
    """
    kind = device_kind(device)
    on_gpu = kind == "cuda"
    if precision == "auto":
        precision = chosen_precision("auto", kind).name
    if precision not in DTYPES:
        msg = f"Precision is {precision!r}; expected auto, {', '.join(DTYPES)}."
        raise BenchmarkSettingsError(msg)
    widely = on_gpu and not is_quick
    return BenchSettings(
        device=torch.device(kind),
        dtype=DTYPES[precision],
        sizes=sizes or (("B", "L", "H") if widely else ("B",)),
        crops_vox=crops_vox or ((64, 96) if widely else (64,)),
        stages=stages or ((3, 4) if is_quick else ()),
        maps=maps or (None if on_gpu else 1),
        repeats=repeats or _repeats(on_gpu=on_gpu, is_quick=is_quick),
        least_s=0.3 if is_quick else 1.0,
        is_compiled=is_compiled,
        is_quick=is_quick,
    )


def _repeats(*, on_gpu: bool, is_quick: bool) -> int:
    if on_gpu:
        return 5 if is_quick else 20
    return 2 if is_quick else 3
