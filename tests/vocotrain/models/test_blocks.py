"""Convolution blocks, channels last, against torch's and MONAI's, channels first."""

import pytest
import torch
from monai.networks.blocks import UnetrBasicBlock, UnetrUpBlock

from vocotrain.models.blocks import (
    DecoderBlock,
    EncoderBlock,
    channels_first,
    channels_last,
    run,
)


def batch(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [(1, 4), (4, 4), (6, 4)])
def test_an_encoder_block_is_monais(channels):
    theirs = UnetrBasicBlock(3, *channels, 3, 1, "instance", res_block=True).double()
    ours = EncoderBlock(*channels).double()
    ours.load_state_dict(theirs.state_dict())
    x = batch(2, channels[0], 5, 6, 7)
    y = channels_first(ours(channels_last(x)))
    torch.testing.assert_close(y, theirs(x), rtol=0, atol=1e-12)


def test_a_decoder_block_is_monais():
    theirs = UnetrUpBlock(3, 8, 4, 3, 2, "instance", res_block=True).double()
    ours = DecoderBlock(8, 4).double()
    ours.load_state_dict(theirs.state_dict())
    x, skip = batch(2, 8, 3, 2, 4), batch(2, 4, 6, 4, 8)
    y = channels_first(ours(channels_last(x), channels_last(skip)))
    torch.testing.assert_close(y, theirs(x, skip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_go_last_and_come_back(channels):
    x = batch(2, channels, 3, 4, 5)
    last = channels_last(x)
    assert last.is_contiguous()
    assert torch.equal(last, x.permute(0, 2, 3, 4, 1))
    assert torch.equal(channels_first(last), x)
    assert channels_first(last).is_contiguous(memory_format=torch.channels_last_3d)


def test_checkpointing_keeps_no_map_inside_a_block():
    def kept(checkpointing):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            run(block, x, checkpointing=checkpointing)
        return sum(sizes)

    block, x = EncoderBlock(4, 4), torch.randn(1, 8, 8, 8, 4)
    assert kept(checkpointing=True) <= x.numel() < kept(checkpointing=False) / 3
