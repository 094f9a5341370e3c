"""Sizes as rows, and the parameter counts of the released models."""

import pytest
import torch

from vocodata.geometry import Size
from vocotrain.errors import ModelSizeError
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.head import ProjectionHead
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize, load_sizes, model_size, parse_sizes, size_from_row


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Source: counted from the authors' modules (MONAI SwinUNETR v2 of these sizes).
@pytest.mark.parametrize(
    ("name", "encoder", "swin", "head", "classes_21", "classes_14"),
    [
        ("B", 53_164_146, 18_637_362, 3_279_872, 72_762_999, 72_762_656),
        ("L", 211_999_362, 73_894_914, 4_459_520, 290_392_695, 290_392_016),
        ("H", 847_276_194, 294_863_778, 6_818_816, 1_160_845_431, 1_160_844_080),
    ],
)
def test_released_sizes_have_their_parameters(name, encoder, swin, head, classes_21, classes_14):
    size = model_size(name)
    with torch.device("meta"):
        half = VoCoEncoder(size)
        whole = SwinUNETR(size)
        assert count(half) == encoder
        assert count(half.swinViT) == swin
        assert count(half) - count(half.swinViT) == encoder - swin
        projection = ProjectionHead(
            size.feature_width, hidden=size.head_hidden, out=size.head_width
        )
        assert count(projection) == head
        assert count(whole) == classes_21
        assert count(SwinUNETR(size, out_channels=14)) == classes_14
    assert len(half.state_dict()) == 145
    assert len(whole.state_dict()) == 167
    assert half.feature_width == 24 * size.feature_size


@pytest.mark.parametrize("name", list(load_sizes()))
def test_every_row_builds_and_takes_its_own_crop(name):
    size = model_size(name)
    assert size.name == name
    assert not any(side % size.step_vox for side in size.crop_vox)
    assert all(a >= b for a, b in zip(sorted(size.crop_vox), size.smallest_crop_vox, strict=True))
    with torch.device("meta"):
        assert SwinUNETR(size)(torch.empty(1, 1, *size.crop_vox)).shape == (1, 21, *size.crop_vox)


def test_a_released_row_differs_in_the_merging_alone():
    for name in "BLH":
        new, old = model_size(name).as_row(), model_size(f"{name}-released").as_row()
        assert {key for key in new if new[key] != old[key]} == {"name", "merging"}


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(ModelSizeError, match=r"no model size 'tinny'; did you mean 'tiny'\?"):
        model_size("tinny")
    with pytest.raises(ModelSizeError, match=r"did you mean 'B'\?"):
        model_size("b")
    with pytest.raises(ModelSizeError, match="sizes are tiny, B, L, H"):
        model_size("enormous")


def test_a_size_made_by_hand_is_taken_as_it_is():
    size = ModelSize("mine", 24, [2, 2], [2, 4], window=[4, 4, 4])
    assert model_size(size) is size
    assert (size.depths, size.window) == ((2, 2), Size(4, 4, 4))
    assert hash(size) == hash(ModelSize("mine", 24, (2, 2), (2, 4), window=Size(4, 4, 4)))


def test_a_row_goes_out_and_comes_back():
    for size in load_sizes().values():
        assert size_from_row(size.as_row()) == size


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_size": 10}, "stage 1 has 10 channels, which 3 heads do not divide"),
        ({"feature_size": 0}, "feature_size is 0, expected a whole number above 0"),
        ({"patch": 2.0}, "patch is 2.0, expected a whole number above 0"),
        ({"heads": (3, 6)}, "as many depths as heads, got 3 depths and 2 heads"),
        ({"depths": (1,), "heads": (3,)}, "at least two stages"),
        ({"mlp_ratio": 0.01}, "mlp_ratio is 0.01, expected"),
        ({"merging": "none"}, "merging is 'none', expected 'octants' or 'doubled'"),
        ({"window": (7, 7)}, "window and crop_vox three numbers"),
        ({"window": (7, 0, 7)}, "window.y is 0"),
        ({"depths": 2}, "depths and heads are lists with a number a stage"),
    ],
)
def test_numbers_that_make_no_model_are_refused(change, words):
    row = {"name": "mine", "feature_size": 12, "depths": (2, 2, 2), "heads": (3, 6, 12)}
    with pytest.raises(ModelSizeError, match=words):
        ModelSize(**{**row, **change})


def test_a_row_with_an_unknown_key_lists_the_known_ones():
    with pytest.raises(
        ModelSizeError, match=r"unexpected keyword argument 'dephts'.*The keys .* depths"
    ):
        size_from_row({"name": "mine", "feature_size": 12, "dephts": [2]})


def test_a_row_like_one_that_is_not_above_is_refused():
    with pytest.raises(ModelSizeError, match="'B' is like 'A', which is not a row above it"):
        parse_sizes("B: {like: A, feature_size: 12}")
