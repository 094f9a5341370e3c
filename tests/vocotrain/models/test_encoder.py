"""The encoder half and its pooled feature."""

import monai.networks.nets
import pytest
import torch

from vocokernels.errors import TransformError
from vocotrain.errors import InputShapeError
from vocotrain.models import encoder as encoder_module
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize

SMALL = ModelSize("small", feature_size=4, depths=(2, 2), heads=(1, 2), window=(3, 3, 3))
FOUR = ModelSize("four", feature_size=12, depths=(2, 2, 2, 2), heads=(3, 6, 12, 24))


def test_its_tensors_are_those_of_swin_unetr():
    own = VoCoEncoder(SMALL).state_dict()
    whole = SwinUNETR(SMALL).state_dict()
    assert list(own) == [name for name in whole if not name.startswith(("decoder", "out"))]
    assert all(own[name].shape == whole[name].shape for name in own)


def test_the_feature_is_the_five_maps_of_monai_pooled_and_joined():
    torch.manual_seed(0)
    theirs = monai.networks.nets.SwinUNETR(1, 2, feature_size=12, use_v2=True).double()
    ours = VoCoEncoder(FOUR).double()
    ours.load_state_dict({name: theirs.state_dict()[name] for name in ours.state_dict()})
    x = torch.randn(1, 1, 64, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        hidden = theirs.swinViT(x, True)
        maps = [
            theirs.encoder1(x),
            theirs.encoder2(hidden[0]),
            theirs.encoder3(hidden[1]),
            theirs.encoder4(hidden[2]),
            theirs.encoder10(hidden[4]),
        ]
        expected = torch.cat([map_.mean((2, 3, 4)) for map_ in maps], dim=1)
        feature, own_maps = ours(x), ours.feature_maps(x)
    assert feature.shape == (1, ours.feature_width) == (1, 24 * 12)
    torch.testing.assert_close(feature, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(own_maps, maps, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_the_feature_width_follows_from_the_stages(stages):
    size = ModelSize("any", 2, (1,) * stages, (1,) * stages, window=(2, 2, 2))
    side = size.step_vox * 2
    feature = VoCoEncoder(size)(torch.randn(1, 1, side, size.step_vox, size.step_vox))
    assert feature.shape == (1, size.feature_width)
    assert size.feature_width == 3 * 2 ** (stages - 1) * 2


def test_a_crop_no_multiple_of_anything_is_padded_as_monai_does():
    torch.manual_seed(0)
    theirs = monai.networks.nets.SwinUNETR(1, 2, feature_size=12, use_v2=True).double()
    ours = VoCoEncoder(FOUR).double()
    ours.load_state_dict({name: theirs.state_dict()[name] for name in ours.state_dict()})
    x = torch.randn(1, 1, 39, 42, 37, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs.encoder10(theirs.swinViT(x, True)[4])
        bottom = ours.feature_maps(x)[-1]
    torch.testing.assert_close(bottom, expected, rtol=0, atol=1e-10)


def test_under_autocast_the_feature_is_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        feature = VoCoEncoder(SMALL)(torch.randn(2, 1, 16, 16, 16))
    assert feature.dtype == torch.float32
    assert feature.isfinite().all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_an_encoder_of_half_precision_weights_learns(kind):
    encoder = VoCoEncoder(size="tiny").to(kind)
    feature = encoder(torch.rand(2, 1, 16, 16, 16, dtype=kind))
    feature.float().sum().backward()
    assert feature.isfinite().all()
    assert all(p.grad is None or p.grad.dtype == kind for p in encoder.parameters())


def test_every_weight_but_the_dead_one_learns():
    model = VoCoEncoder(SMALL)
    model(torch.randn(2, 1, 16, 16, 16)).square().sum().backward()
    still = [
        name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0
    ]
    assert still == []


def test_a_batch_in_any_order_of_memory_gives_the_same_feature():
    model = VoCoEncoder(SMALL, in_channels=2)
    x = torch.randn(2, 2, 16, 16, 16)
    strided = x.transpose(2, 4).contiguous().transpose(2, 4)
    with torch.no_grad():
        assert torch.equal(model(x), model(strided))
        last = x.contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(model(x), model(last))


def test_checkpointing_changes_no_gradient():
    plain, saving = VoCoEncoder(SMALL), VoCoEncoder(SMALL, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 16, 16, 16)
    for model in (plain, saving):
        model(x).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


# the compiler makes an object of an autograd.Function, which torch itself warns of
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_in_one_graph_and_changes_no_bit():
    model, x = VoCoEncoder(SMALL), torch.randn(2, 1, 16, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    found = []
    for function in (model, compiled):
        feature = function(x)
        found.append(
            [feature, *torch.autograd.grad(feature.square().sum(), list(model.parameters()))]
        )
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_pooled_feature_sends_back_one_number_a_channel():
    map_ = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    feature = encoder_module._pooled(map_)
    grad = torch.randn_like(feature)
    (found,) = torch.autograd.grad(feature, map_, grad)
    (wanted,) = torch.autograd.grad(map_.mean((1, 2, 3)), map_, grad)
    torch.testing.assert_close(feature, map_.mean((1, 2, 3)))
    torch.testing.assert_close(found, wanted)
    assert found.stride()[1:4] == (0, 0, 0)


def test_a_crop_of_which_one_voxel_is_left_is_refused_with_the_smallest_that_works():
    model = VoCoEncoder(FOUR)
    with pytest.raises(InputShapeError, match=r"32x32x32 voxels is too small .* 32x32x64 voxels"):
        model(torch.zeros(1, 1, 32, 32, 32))
    with pytest.raises(InputShapeError, match=r"Expected a batch .* got shape \(0, 1"):
        model(torch.zeros(0, 1, 64, 64, 64))
    assert model(torch.randn(1, 1, *FOUR.smallest_crop_vox)).isfinite().all()


def test_a_batch_without_channels_is_refused():
    with pytest.raises(
        InputShapeError, match=r"Expected a batch \(B, 1, X, Y, Z\), got shape \(16,"
    ):
        VoCoEncoder(SMALL)(torch.zeros(16, 16, 16))


def test_a_gradient_by_torch_func_is_refused_in_our_words():
    map_BXYZC = torch.randn(1, 2, 2, 2, 3)
    with pytest.raises(TransformError, match=r"The encoder's pooling was called under torch.func"):
        torch.func.grad(lambda x: encoder_module._pooled(x).sum())(map_BXYZC)
