"""The learning rate, as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, starts_at_zero: bool
) -> float:
    """Linear warm-up, then half a cosine down to 0.

    Args:
        step: Updates done before this one, from 0.
        peak: Rate at the end of the warm-up.
        warmup_steps: Updates until the peak; 0 starts there.
        total_steps: Updates of the whole run; past them the rate is 0, it never rises again.
        starts_at_zero: The authors' warm-up, whose first update runs at rate 0 and changes
            nothing; otherwise the first update already runs at `peak / warmup_steps`.

    Returns:
        The rate of this update.

    >>> [learning_rate(s, peak=1.0, warmup_steps=2, total_steps=6, starts_at_zero=False)
    ...  for s in (0, 1, 2, 4, 6)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup_steps:
        return peak * (step + int(not starts_at_zero)) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return peak * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
