"""Maps so small that going through their classes of boxes costs more than computing.

Each class is some forty short operations of PyTorch, whatever its size, and a shifted map has up
to 27. The specification is a fixed number of them, on padded windows. So it is faster where
windows are few, and the choice is made from sizes alone.
"""

from vocokernels.window_attention.boxes import Triple, axis_runs, effective_window
from vocokernels.window_attention.counts import window_pairs

# what one more class costs on a processor, in scores of the specification: 0.2 ms, 12 ns a score
SCORES_A_CLASS = 2**14
# what the specification costs beside its scores
FIXED_CLASSES = 2


def is_small(map_xyz: Triple, window: Triple, shift: Triple, *, heads: int) -> bool:
    """Whether the specification beats boxes on a processor.

    Args:
        map_xyz: Tokens along each axis of the map.
        window: Window of the bias table.
        shift: Shift of the windows.
        heads: Attention heads of all maps together.

    >>> is_small((8, 8, 8), (4, 4, 4), (2, 2, 2), heads=3)
    True
    >>> is_small((16, 16, 16), (7, 7, 7), (3, 3, 3), heads=3)
    False
    """
    used, moved = effective_window(map_xyz, window, shift)
    # a trace of torch.compile comes by here, so no generator
    x, y, z = [len(axis_runs(*axis)) for axis in zip(map_xyz, used, moved, strict=True)]
    scores = window_pairs(map_xyz, window) * heads
    return scores <= SCORES_A_CLASS * (x * y * z - FIXED_CLASSES)
