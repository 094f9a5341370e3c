"""Swin UNETR v2 against MONAI's, with the same weights."""

import monai.networks.nets
import pytest
import torch

from vocotrain.errors import InputShapeError
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize

HEADS = (3, 6, 12, 24)
SMALL = ModelSize("small", feature_size=12, depths=(2, 2), heads=(2, 4), window=(3, 3, 3))


def pair(
    feature_size, in_channels, out_channels, *, dtype=torch.float32, window=7, depths=(2, 2, 2, 2)
):
    torch.manual_seed(5)
    theirs = monai.networks.nets.SwinUNETR(
        in_channels,
        out_channels,
        feature_size=feature_size,
        window_size=window,
        depths=depths,
        num_heads=HEADS,
        use_v2=True,
    )
    size = ModelSize("test", feature_size, depths, HEADS, window=(window,) * 3)
    ours = SwinUNETR(size, in_channels, out_channels)
    with torch.no_grad():  # fresh biases are zero or nothing: make every parameter count
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    ours.load_state_dict(theirs.state_dict())
    return ours.to(dtype), theirs.to(dtype)


def relative(ours, theirs, scale):
    return ((ours - theirs).norm() / scale).item()


def test_tensors_have_monais_names_order_shapes_and_types():
    ours, theirs = pair(24, 2, 3)
    described = [
        [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()]
        for model in (ours, theirs)
    ]
    assert described[0] == described[1]
    assert [name for name, _ in ours.named_parameters()] == [
        n for n, _ in theirs.named_parameters()
    ]


def test_position_indices_are_monais():
    size = ModelSize("test", 12, (2, 2, 2, 2), HEADS)
    own = SwinUNETR(size).state_dict()
    _, theirs = pair(12, 1, 2)
    indices = {name: t for name, t in theirs.state_dict().items() if t.dtype == torch.int64}
    assert len(indices) == 8
    assert all(torch.equal(own[name], index) for name, index in indices.items())


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "window", "shape"),
    [(2, 3, 7, (64, 32, 32)), (1, 2, 4, (32, 96, 32))],
)
def test_values_and_all_gradients_are_monais(in_channels, out_channels, window, shape):
    # float64: in float32 a value within rounding of a leaky ReLU's kink sends gradients astray,
    # MONAI's own too, by a percent.
    ours, theirs = pair(12, in_channels, out_channels, window=window, dtype=torch.float64)
    x = torch.randn(1, in_channels, *shape, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    logits = [model(x) for model, x in zip((ours, theirs), inputs, strict=True)]
    weights = torch.randn(logits[0].shape, dtype=torch.float64)
    assert relative(*logits, logits[1].norm()) < 1e-10
    for y in logits:
        (y * weights).mean().backward()
    assert relative(inputs[0].grad, inputs[1].grad, inputs[1].grad.norm()) < 1e-10
    scale = max(parameter.grad.norm() for parameter in theirs.parameters())
    grads = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    errors = {
        name: relative(parameter.grad, grads[name], max(grads[name].norm(), 1e-3 * scale))
        for name, parameter in ours.named_parameters()
    }
    assert max(errors.values()) < 1e-10, max(errors, key=errors.get)


def test_in_float32_and_at_the_size_of_pretraining_the_logits_are_monais():
    ours, theirs = pair(24, 1, 5)
    x = torch.randn(1, 1, 64, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert relative(ours(x), expected, expected.norm()) < 1e-5


def test_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    plain = SwinUNETR(SMALL, 1, 2).double()
    saving = SwinUNETR(SMALL, 1, 2, checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64)
    for model in (plain, saving):
        model(x).square().mean().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_training_and_evaluation_are_one_function():
    model = SwinUNETR(SMALL, 1, 2)
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.train()(x), model.eval()(x))


def test_bfloat16_autocast_trains_and_stays_near_float32():
    torch.manual_seed(0)
    model = SwinUNETR(SMALL, 1, 2)
    x = torch.randn(2, 1, 16, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(x)
    rounded.float().square().mean().backward()
    exact = model(x)
    assert rounded.dtype == torch.bfloat16
    assert relative(rounded.float(), exact, exact.norm()) < 0.05
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_size_with_two_stages_and_a_patch_of_four_gives_logits_of_the_input():
    size = ModelSize("mine", feature_size=4, depths=(1, 1), heads=(1, 2), window=(3, 3, 3), patch=4)
    assert SwinUNETR(size, 2, 5)(torch.randn(1, 2, 32, 16, 16)).shape == (1, 5, 32, 16, 16)


def test_fresh_weights_are_drawn_as_in_monai():
    torch.manual_seed(0)
    ours, theirs = (
        SwinUNETR(ModelSize("test", 12, (2, 2, 2, 2), HEADS), 1, 3),
        monai.networks.nets.SwinUNETR(1, 3, feature_size=12, use_v2=True, num_heads=HEADS),
    )
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        if tensor.dtype.is_floating_point and tensor.numel() > 1000:
            assert tensor.std().item() == pytest.approx(expected[name].std().item(), rel=0.1), name
            assert tensor.abs().max() <= 1.2 * expected[name].abs().max(), name
        elif name.split(".")[-2].startswith("norm"):
            assert torch.equal(tensor, expected[name])


def test_a_side_that_is_no_multiple_is_refused_with_the_size_to_pad_to():
    with pytest.raises(
        InputShapeError, match=r"multiples of 8 voxels, got 16x17x24\. Pad .* 16x24x24"
    ):
        SwinUNETR(SMALL)(torch.zeros(1, 1, 16, 17, 24))


def test_other_channels_are_refused():
    with pytest.raises(InputShapeError, match=r"Expected a batch \(B, 2, X, Y, Z\), got shape"):
        SwinUNETR(SMALL, 2)(torch.zeros(1, 1, 16, 16, 16))
