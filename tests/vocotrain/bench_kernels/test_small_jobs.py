import pytest
import torch

from vocotrain.bench_kernels.settings import resolve_settings
from vocotrain.bench_kernels.small_jobs import chained_crops, looped_loss, small_jobs
from vocotrain.ops import voco_loss

QUICK = resolve_settings(device="cpu", is_quick=True)
NAMES = [name for name, _ in small_jobs(QUICK)]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_ours_and_the_peer_agree(number):
    name, make = small_jobs(QUICK)[number]
    job = make()
    assert job.name == name
    theirs, ours = (peer.run() for peer in job.peers)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for one, other in zip(
        *(
            torch.autograd.grad(out.sum(), job.wanted) if job.wanted else ()
            for out in (theirs, ours)
        ),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_the_looped_loss_is_the_released_one_in_double_precision():
    torch.manual_seed(1)
    given = [torch.randn(3, rows, 5, dtype=torch.float64) for rows in (2, 2, 4, 4)]
    labels = (torch.rand(3, 2, 4, dtype=torch.float64) - 0.5).clamp_min(0)
    expected = voco_loss(*given, labels, variant="reference").total()
    torch.testing.assert_close(looped_loss(*given, labels), expected, rtol=1e-12, atol=0)


def test_a_chained_crop_is_windowed_turned_and_shifted():
    field = torch.arange(2 * 2 * 2, dtype=torch.int16).view(1, 2, 2, 2)
    crop = chained_crops(
        field,
        torch.zeros(1, 1, 3, dtype=torch.long),
        2,
        torch.tensor([[0.0, 10.0]]),
        torch.tensor([[[False, False, True]]]),
        torch.ones(1, 1, dtype=torch.long),
        torch.full((1, 1), 0.5),
    )
    assert crop.shape == (1, 1, 1, 2, 2, 2)
    # z flipped, then x to y: place (0, 0, 0) holds what lay at (0, 1, 1)
    assert crop[0, 0, 0, 0, 0, 0].item() == pytest.approx(0.3 + 0.5)


def test_what_moves_is_positive_in_every_mode():
    for _, make in small_jobs(QUICK):
        job = make()
        assert all(job.work(mode).moved_bytes > 0 for mode in ("forward", "backward", "full"))
