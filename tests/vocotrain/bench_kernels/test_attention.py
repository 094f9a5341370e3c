import warnings
from functools import partial

import pytest
import torch

from vocotrain.bench_kernels.attention import (
    FLASH_FLAG,
    FlexAttention,
    StageBlocks,
    attention_job,
    attention_peers,
    own_attention,
)
from vocotrain.bench_kernels.cases import AttentionCase
from vocotrain.bench_kernels.jobs import fixed_weights
from vocotrain.bench_kernels.settings import resolve_settings

PADDED = AttentionCase("toy", 1, 10, 2, 5, 8, 2, (3, 3, 3))
SMALL = AttentionCase("toy", 2, 4, 3, 2, 8, 4, (3, 3, 3))
SETTINGS = resolve_settings(device="cpu")


def results(run, wanted):
    out = run()
    return [out, *torch.autograd.grad(out, wanted, torch.cos(out.detach()))]


@pytest.mark.parametrize("case", [PADDED, SMALL])
@pytest.mark.parametrize("name", ["monai", "sdpa", "voco-cpu"])
def test_every_peer_computes_what_monai_does(case, name):
    job = attention_job(case, SETTINGS)
    peers = {peer.name: peer for peer in job.peers}
    truth = results(job.peers[0].run, list(job.wanted))
    for ours, theirs in zip(results(peers[name].run, list(job.wanted)), truth, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [PADDED, SMALL])
def test_the_truth_map_by_map_is_that_of_all_maps_at_once(case):
    job = attention_job(case, SETTINGS)
    out = job.peers[0].run()
    expected = [out, *torch.autograd.grad(out, list(job.wanted), fixed_weights(out))]
    for part, whole in zip(job.truth(), expected, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [PADDED, SMALL])
def test_monais_flag_gives_the_same_forward_or_is_said_to_be_missing(case):
    job = attention_job(case, SETTINGS)
    flash = next(peer for peer in job.peers if peer.name == "monai-flash")
    if flash.run is None:
        assert FLASH_FLAG in flash.reason
        return
    assert not flash.has_backward
    with torch.no_grad():
        torch.testing.assert_close(flash.run(), job.peers[0].run(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [PADDED, SMALL])
def test_flex_attention_computes_what_monai_does(case):
    blocks = StageBlocks(case, torch.device("cpu"))
    x = torch.randn(case.maps, *case.map_xyz, case.channels)
    eager = blocks.with_attention(partial(FlexAttention, is_compiled=False))
    with torch.no_grad(), warnings.catch_warnings():
        # it warns that eager code is slow, which is why it is for tests alone
        warnings.simplefilter("ignore")
        expected = blocks.with_attention(own_attention)(x)
        torch.testing.assert_close(eager(x), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_run_on_a_processor_says_why():
    blocks = StageBlocks(SMALL, torch.device("cpu"))
    peers = {p.name: p for p in attention_peers(blocks, torch.ones(1), SETTINGS)}
    assert "no backward pass on a processor" in peers["flex"].reason
    assert "--compile" in peers["monai-compile"].reason
    assert peers["flex"].run is peers["monai-compile"].run is None


def test_peers_share_the_blocks_weights_and_leave_the_blocks_alone():
    blocks = StageBlocks(SMALL, torch.device("cpu"))
    before = [type(block.attn) for block in blocks.blocks]
    blocks.with_attention(lambda _attention: torch.nn.Identity())
    assert [type(block.attn) for block in blocks.blocks] == before
    assert len(blocks.wanted()) == 2 * 5


def test_the_work_of_there_and_back_is_their_sum():
    job = attention_job(PADDED, SETTINGS)
    there, back, both = (job.work(mode) for mode in ("forward", "backward", "full"))
    assert both.flop == there.flop + back.flop
    assert both.moved_bytes == there.moved_bytes + back.moved_bytes
