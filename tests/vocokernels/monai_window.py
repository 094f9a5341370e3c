"""The oracle: MONAI's own Swin block, its normalisation and linear layers made transparent."""

import monai.networks.nets.swin_unetr as monai_swin
import torch
from torch import nn


class _Given(nn.Module):
    """Stands where the linear layer for q, k, v was and gives what it was handed."""

    def forward(self, _tokens):
        return self.qkv


class _Door(nn.Module):
    """MONAI's attention behind a door that lets 3 * C channels and a mark through.

    The block pads and rolls q, k, v with a mark that is 1 on real tokens; a pad, whose mark is 0,
    gets the bias of the linear layer.
    """

    def __init__(self, attention, pad_qkv):
        super().__init__()
        self.attention, self.pad_qkv = attention, pad_qkv

    def forward(self, tokens, mask):
        values, mark = tokens[..., :-1], tokens[..., -1:]
        self.attention.qkv.qkv = values * mark + self.pad_qkv * (1 - mark)
        out = self.attention(values[..., : values.shape[-1] // 3], mask)
        return nn.functional.pad(out, (0, tokens.shape[-1] - out.shape[-1]))


def monai_window_attention(qkv, bias_table, *, heads, window, shift, pad_qkv=None):
    """Takes the arguments of vocokernels.window_attention and computes by MONAI."""
    channels = qkv.shape[-1]
    attention = monai_swin.WindowAttention(channels // 3, heads, window)
    del attention.relative_position_bias_table
    attention.relative_position_bias_table = bias_table
    attention.qkv, attention.proj = _Given(), nn.Identity()
    block = monai_swin.SwinTransformerBlock(channels // 3, heads, window, shift)
    block.norm1 = nn.Identity()
    block.attn = _Door(attention, qkv.new_zeros(channels) if pad_qkv is None else pad_qkv)
    marked = torch.cat([qkv, qkv.new_ones(*qkv.shape[:4], 1)], dim=-1)
    mask = monai_mask(qkv.shape[1:4], window, shift).to(qkv.dtype)
    return block.forward_part1(marked, mask)[..., : channels // 3]


def monai_mask(map_xyz, window, shift):
    """The mask that a MONAI layer makes for its shifted block."""
    used, moved = monai_swin.get_window_size(map_xyz, window, shift)
    whole = [-(-length // extent) * extent for length, extent in zip(map_xyz, used, strict=True)]
    return monai_swin.compute_mask(whole, used, moved, "cpu")
