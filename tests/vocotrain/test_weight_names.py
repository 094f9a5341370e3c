"""Names of tensors in checkpoints."""

import pytest
import torch

from vocotrain.errors import WeightsFileError
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.sizes import ModelSize
from vocotrain.weight_names import architecture_of, infer_size, plain_names

ONE = torch.ones(1)
OWN = ModelSize("own", feature_size=6, depths=(1, 2), heads=(1, 3), window=(2, 2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "encoder1.layer.w",
        "module.encoder1.layer.w",
        "backbone.encoder1.layer.w",
        "module.backbone.encoder1.layer.w",
        "module._orig_mod.encoder.encoder1.layer.w",
    ],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "network_weights", "net", "student"])
def test_wrappers_and_prefixes_come_off(wrapper, name):
    content = {name: ONE}
    content = content if wrapper is None else {wrapper: content, "epoch": 3, "other": {"x": ONE}}
    assert plain_names(content) == {"encoder1.layer.w": ONE}


def test_the_old_name_of_the_transformer_is_mapped():
    assert list(plain_names({"module.swin_vit.patch_embed.proj.weight": ONE})) == [
        "swinViT.patch_embed.proj.weight"
    ]


def test_wrapper_keys_are_looked_for_in_the_order_of_the_release():
    content = {"net": {"b": ONE}, "state_dict": {"a": ONE}}
    assert list(plain_names(content)) == ["a"]


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(WeightsFileError, match="Two tensors of the checkpoint are called 'a'"):
        plain_names({"a": ONE, "module.a": ONE})


def test_a_checkpoint_without_tensors_is_refused():
    with pytest.raises(
        WeightsFileError, match="Expected tensors by name in the checkpoint, got epoch"
    ):
        plain_names({"epoch": 3})


def test_the_architecture_shows_in_the_shapes():
    found = architecture_of(VoCoEncoder(OWN).state_dict())
    assert found == (6, (1, 2), (1, 3), (2, 2, 2))
    assert architecture_of({"layers.0.weight": ONE}) is None


@pytest.mark.parametrize("name", ["tiny", "B", "L", "H"])
def test_the_size_shows_in_the_shapes(name):
    with torch.device("meta"):
        assert infer_size(VoCoEncoder(name).state_dict()) == name


def test_a_size_that_is_no_row_has_no_name():
    with pytest.raises(WeightsFileError, match=r"of no known size: Architecture\(feature_size=6"):
        infer_size(VoCoEncoder(OWN).state_dict())
    with pytest.raises(WeightsFileError, match="it has no Swin transformer"):
        infer_size({"a": ONE})
