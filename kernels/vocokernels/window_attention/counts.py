"""What the attention half of a Swin block computes and moves, by formula.

Linear layer for q, k, v, window attention, linear layer after it, on B maps of T tokens, C channels
and H heads. P are the score pairs of one map and head, C = H * d, e bytes a number. A product of
(m, k) and (k, n) is 2 m k n operations.

    forward    linear   8 B T C^2    attention   4 B P C     bytes   10 B T C e + 4 B T H
    backward   linear  16 B T C^2    attention  10 B P C     bytes   20 B T C e + 4 B T H

Operations of the attention forward: scores and weighted values; backward: scores again, and
gradients of weights, v, q and k. Bytes, in units of one map (B T C e), each kernel reading what it
needs and writing what it makes, once:

    forward    linear: x 1, qkv 3;  attention: qkv 3, out 1;  linear: out 1, y 1
    backward   linear: dy 1, dout 1 and dy 1, out 1;  attention: dout 1, out 1, qkv 3, dqkv 3;
               linear: dqkv 3, dx 1 and dqkv 3, x 1

and the logarithm of each query's sum, 4 bytes, written and read. Weights, and their gradients, are
left out: they are small beside the maps of the first stages. With boxes T are the map's tokens;
with windows those of the padded map, and P all pairs inside a window.
"""

from dataclasses import dataclass

from vocokernels.window_attention.boxes import Triple, box_classes, effective_window

LSE_BYTES = 4


@dataclass(frozen=True)
class HalfWork:
    """Operations and bytes of one direction of the attention half of one block."""

    linear_flop: int
    attention_flop: int
    moved_bytes: int
    """Of all three steps."""
    attention_bytes: int
    """Of the attention alone."""
    pairs: int
    """Exponentials: score pairs of all maps and heads."""

    @property
    def flop(self) -> int:
        """Operations of all three steps."""
        return self.linear_flop + self.attention_flop

    def __add__(self, other: "HalfWork") -> "HalfWork":
        """Work of two blocks."""
        return HalfWork(
            self.linear_flop + other.linear_flop,
            self.attention_flop + other.attention_flop,
            self.moved_bytes + other.moved_bytes,
            self.attention_bytes + other.attention_bytes,
            self.pairs + other.pairs,
        )


def box_pairs(map_xyz: Triple, window: Triple, shift: Triple) -> int:
    """Scores of one map and head with boxes; a box that holds pads has one key more, the sink.

    >>> box_pairs((8, 8, 8), (4, 4, 4), (0, 0, 0)) == 8 * 64**2
    True
    """
    return sum(
        kind.boxes * kind.tokens * (kind.tokens + (kind.code_p.numel() > 0))
        for kind in box_classes(map_xyz, window, shift)
    )


def window_pairs(map_xyz: Triple, window: Triple) -> int:
    """Scores of one map and head with padded windows, shifted or not.

    >>> window_pairs((8, 8, 8), (7, 7, 7)) == 8 * 343**2
    True
    """
    used, _ = effective_window(map_xyz, window, (0, 0, 0))
    return padded_tokens(map_xyz, window) * used[0] * used[1] * used[2]


def padded_tokens(map_xyz: Triple, window: Triple) -> int:
    """Tokens of one map that is padded to whole windows."""
    used, _ = effective_window(map_xyz, window, (0, 0, 0))
    x, y, z = (-(-length // extent) * extent for length, extent in zip(map_xyz, used, strict=True))
    return x * y * z


def half_work(
    *,
    maps: int,
    tokens: int,
    pairs: int,
    channels: int,
    heads: int,
    number_bytes: int,
    is_backward: bool,
) -> HalfWork:
    """The formulas above.

    Args:
        maps: B.
        tokens: T, of one map.
        pairs: P, of one map and head.
        channels: C.
        heads: H.
        number_bytes: e.
        is_backward: Which direction.
    """
    one_map = maps * tokens * channels * number_bytes
    lse_bytes = LSE_BYTES * maps * tokens * heads
    return HalfWork(
        linear_flop=(16 if is_backward else 8) * maps * tokens * channels**2,
        attention_flop=(10 if is_backward else 4) * maps * pairs * channels,
        moved_bytes=(20 if is_backward else 10) * one_map + lse_bytes,
        attention_bytes=(8 if is_backward else 4) * one_map + lse_bytes,
        pairs=maps * heads * pairs,
    )
