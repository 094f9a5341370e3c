"""Shifted-window attention, the specification: pad, roll, cut, attend, and all the way back.

Per window and head, with n the window's tokens and T the bias table:

    out_i = sum_j softmax_j( q_i . k_j / sqrt(d) + T[i - j] ) v_j,   j in the region of i

A window at the far edge of a rolled map joins both ends of the axis; its tokens see only those
of their own end (region). Ours hides the others wholly, MONAI adds -100 to their logits: the two
differ by a factor of e^-100, unless logits are tens apart.

Shapes: B maps, X Y Z tokens, C channels; M windows, n tokens of a window, H heads, d channels of
a head.
"""

import torch
from torch import Tensor

from vocokernels.precision import no_autocast
from vocokernels.window_attention.boxes import Triple, bias_origin, effective_window


def window_attention_reference(
    qkv: Tensor,
    bias_table: Tensor,
    *,
    window: Triple,
    shift: Triple,
    pad_qkv: Tensor | None = None,
) -> Tensor:
    """Arguments as for `vocokernels.window_attention`; the table tells the heads.

    Any device, any floating type: float64 is computed as such, all else in float32, also under
    autocast. Gradients come from autograd.
    """
    with no_autocast(qkv):
        return _attend(qkv, bias_table, window, shift, pad_qkv)


def _attend(
    qkv: Tensor, bias_table: Tensor, window: Triple, shift: Triple, pad_qkv: Tensor | None
) -> Tensor:
    map_xyz = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
    used, moved = effective_window(map_xyz, window, shift)
    compute = torch.float64 if qkv.dtype == torch.float64 else torch.float32

    whole = _pad_to_windows(qkv, pad_qkv, used).to(compute)
    whole_xyz = (whole.shape[1], whole.shape[2], whole.shape[3])
    tokens_Mnc = _cut(_rolled(whole, (-moved[0], -moved[1], -moved[2])), used)
    heads, windows = bias_table.shape[1], tokens_Mnc.shape[0] // qkv.shape[0]
    split = torch.unflatten(tokens_Mnc, -1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = torch.unflatten(split, 1, (qkv.shape[0], windows)).unbind(0)

    if pad_qkv is not None and whole_xyz == map_xyz:
        # no pad is read; the gradient of what it would hold is zero all the same, not missing
        bias_table = bias_table + pad_qkv[:0].sum()
    tokens = tokens_Mnc.shape[1]
    rows_nn = _table_rows(tokens, window).to(qkv.device)
    bias_nnH = bias_table.to(compute).index_select(0, rows_nn.flatten()).view(tokens, tokens, heads)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + bias_nnH.permute(2, 0, 1)
    if any(moved):
        hidden_Mnn = _hidden(whole_xyz, used, moved, qkv.device)
        logits = logits.masked_fill(hidden_Mnn[:, None], float("-inf"))
    out_BMnC = (torch.softmax(logits, dim=-1) @ v).transpose(2, 3).flatten(3)

    rolled = _rolled(_join(out_BMnC, used, whole_xyz), moved)
    return rolled[:, : map_xyz[0], : map_xyz[1], : map_xyz[2]].to(qkv.dtype)


def _pad_to_windows(qkv: Tensor, pad_qkv: Tensor | None, window: Triple) -> Tensor:
    """Append pad tokens at the far end of each axis."""
    maps, x, y, z, channels = qkv.shape
    whole = [
        -(-length // extent) * extent for length, extent in zip((x, y, z), window, strict=True)
    ]
    if whole == [x, y, z]:
        return qkv
    pad = qkv.new_zeros(channels) if pad_qkv is None else pad_qkv.to(qkv.dtype)
    padded = pad.expand(maps, *whole, channels).clone()
    padded[:, :x, :y, :z] = qkv
    return padded


def _rolled(map_BXYZC: Tensor, by: Triple) -> Tensor:
    return torch.roll(map_BXYZC, by, dims=(1, 2, 3)) if any(by) else map_BXYZC


def _hidden(map_xyz: Triple, window: Triple, shift: Triple, device: torch.device) -> Tensor:
    """Which key each query does not see, for each window of one map, (M, n, n)."""
    back = (-shift[0], -shift[1], -shift[2])
    regions_Mn3 = _cut(_rolled(_regions(map_xyz, shift, device), back), window)
    return (regions_Mn3[:, :, None] != regions_Mn3[:, None]).any(-1)


def _regions(map_xyz: Triple, shift: Triple, device: torch.device) -> Tensor:
    """For each token and axis: does it lie before the first shifted window? (1, X, Y, Z, 3)."""
    axes = [
        torch.arange(length, device=device) < moved
        for length, moved in zip(map_xyz, shift, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[None]


def _cut(map_BXYZC: Tensor, window: Triple) -> Tensor:
    """Windows of a map of whole windows, (M, n, C)."""
    x, y, z = window
    maps, length_x, length_y, length_z, channels = map_BXYZC.shape
    count = (length_x // x, length_y // y, length_z // z)
    boxes = map_BXYZC.reshape(maps, count[0], x, count[1], y, count[2], z, channels)
    return boxes.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(0, 3)


def _join(windows_BMnC: Tensor, window: Triple, map_xyz: Triple) -> Tensor:
    """Undo `_cut`: (B, X, Y, Z, C)."""
    count = [length // extent for length, extent in zip(map_xyz, window, strict=True)]
    maps, channels = windows_BMnC.shape[0], windows_BMnC.shape[-1]
    boxes = windows_BMnC.reshape(maps, *count, *window, channels)
    return boxes.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)


def _table_rows(tokens: int, window: Triple) -> Tensor:
    """Row of the table for each pair among the first tokens of a full window, (n, n).

    A window shrunk to a small map takes the first rows, as the released weights expect.
    """
    x, y, z = window
    place = torch.cartesian_prod(torch.arange(x), torch.arange(y), torch.arange(z)).reshape(-1, 3)
    stride = torch.tensor([(2 * y - 1) * (2 * z - 1), 2 * z - 1, 1])
    code = (place[:tokens] * stride).sum(1)
    return code[:, None] - code[None, :] + bias_origin(window)
