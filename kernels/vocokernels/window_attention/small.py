"""Maps so small that going through their classes of boxes costs more than computing.

Each class is some forty short operations of PyTorch, whatever its size, and a shifted map has up
to 27; the weights are worked out a second time for the gradients. The specification is a fixed
number of operations, on padded windows, and keeps its weights. So it is faster where scores are
few, and the choice is made from sizes alone.
"""

from vocokernels.window_attention.boxes import Triple, axis_runs, effective_window
from vocokernels.window_attention.counts import window_pairs

# what one more class costs on a processor, in scores of the specification: 0.2 ms, 12 ns a score
SCORES_A_CLASS = 2**14
# what boxes cost beside their classes
FIXED_CLASSES = 6


def is_small(map_xyz: Triple, window: Triple, shift: Triple, *, heads: int) -> bool:
    """Whether the specification beats boxes on a processor.

    Args:
        map_xyz: Tokens along each axis of the map.
        window: Window of the bias table.
        shift: Shift of the windows.
        heads: Attention heads of all maps together.

    >>> is_small((4, 4, 4), (7, 7, 7), (3, 3, 3), heads=24)
    True
    >>> is_small((16, 16, 16), (7, 7, 7), (3, 3, 3), heads=3)
    False
    """
    used, moved = effective_window(map_xyz, window, shift)
    # a trace of torch.compile comes by here, so no generator
    x, y, z = [len(axis_runs(*axis)) for axis in zip(map_xyz, used, moved, strict=True)]
    scores = window_pairs(map_xyz, window) * heads
    return scores <= SCORES_A_CLASS * (x * y * z + FIXED_CLASSES)
