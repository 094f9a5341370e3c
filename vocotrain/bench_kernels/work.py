"""What a case computes and moves, by formula; the formulas are in vocokernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vocotrain.ops import HalfWork, box_pairs, half_work, padded_tokens, window_pairs

if TYPE_CHECKING:
    from vocotrain.bench_kernels.cases import AttentionCase


def box_work(case: AttentionCase, mode: str, number_bytes: int) -> HalfWork:
    """Of both blocks of a case, on boxes of the unpadded map."""
    plain, shifted = (
        _work(case, mode, number_bytes, case.side**3, box_pairs(case.map_xyz, case.window, shift))
        for shift in case.shifts
    )
    return plain + shifted


def window_work(case: AttentionCase, mode: str, number_bytes: int) -> HalfWork:
    """Of both blocks of a case, on padded windows."""
    tokens = padded_tokens(case.map_xyz, case.window)
    one = _work(case, mode, number_bytes, tokens, window_pairs(case.map_xyz, case.window))
    return one + one


def _work(case: AttentionCase, mode: str, number_bytes: int, tokens: int, pairs: int) -> HalfWork:
    return half_work(
        maps=case.maps,
        tokens=tokens,
        pairs=pairs,
        channels=case.channels,
        heads=case.heads,
        number_bytes=number_bytes,
        is_backward=mode == "backward",
    )
