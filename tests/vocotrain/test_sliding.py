"""The sliding window gives MONAI's numbers, slab by slab."""

import pytest
import torch
from monai.inferers import sliding_window_inference

from vocodata.geometry import Size
from vocotrain.sliding import slide, window_starts


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return torch.nn.Conv3d(1, 3, 3, padding=1).requires_grad_(False)


@pytest.mark.parametrize("blending", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "roi", "overlap"),
    [
        ((40, 33, 21), (16, 16, 16), 0.5),
        ((10, 33, 21), (16, 16, 16), 0.75),
        ((17, 12, 9), (16, 16, 16), 0.25),
        ((50, 20, 20), (16, 8, 16), 0.6),
    ],
)
def test_scores_equal_those_of_monai(model, shape, roi, overlap, blending):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    expected = sliding_window_inference(
        image[None, None], roi, 2, model, overlap=overlap, mode=blending
    )[0]
    slabs = list(slide(image, model, roi_vox=Size(*roi), overlap=overlap, blending=blending))
    torch.testing.assert_close(torch.cat([slab.scores_CXYZ for slab in slabs], 1), expected)


def test_slabs_follow_each_other_without_gap(model):
    image = torch.rand(37, 16, 16)
    slabs = list(slide(image, model, roi_vox=Size(16, 16, 16), overlap=0.5))
    ends = [slab.start + slab.scores_CXYZ.shape[1] for slab in slabs]
    assert [slab.start for slab in slabs] == [0, *ends[:-1]]
    assert ends[-1] == 37


def test_windows_end_with_the_image():
    assert window_starts(21, 8, 0.5) == [0, 4, 8, 12, 13]


def test_an_overlap_near_one_still_moves():
    assert window_starts(10, 8, 0.99) == [0, 1, 2]
