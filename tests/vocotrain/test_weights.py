"""Loading weights, and the report of it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vocotrain.errors import WeightsFileError, WeightsMismatchError
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize, model_size
from vocotrain.weights import load_model, load_weights, save_weights

OWN = ModelSize("own", feature_size=4, depths=(1, 1), heads=(1, 2), window=(2, 2, 2))
HEAD = ("out.conv.conv.weight", "out.conv.conv.bias")


def equal_in(names, a, b):
    a, b = a.state_dict(), b.state_dict()
    return [torch.equal(a[name], b[name]) for name in names]


def test_an_encoder_fills_the_encoder_half_of_swin_unetr(tmp_path):
    encoder, network = VoCoEncoder(OWN), SwinUNETR(OWN)
    path = save_weights(encoder, tmp_path / "w.safetensors")
    report = load_weights(network, path)
    assert report.share == 1
    assert report.matched == tuple(encoder.state_dict())
    assert all(name.startswith(("decoder", "out.")) for name in report.missing)
    assert len(report.missing) == len(network.state_dict()) - len(report.matched)
    assert (report.unexpected, report.adapted, report.mismatched) == ((), (), ())
    assert all(equal_in(report.matched, encoder, network))


def test_a_network_fills_an_encoder_and_its_decoder_is_unexpected(tmp_path):
    network, encoder = SwinUNETR(OWN), VoCoEncoder(OWN)
    report = load_weights(encoder, save_weights(network, tmp_path / "w.safetensors"))
    assert report.share == 1
    assert report.missing == ()
    assert all(name.startswith(("decoder", "out.")) for name in report.unexpected)
    assert all(equal_in(report.matched, encoder, network))


def test_other_classes_keep_the_fresh_head_and_say_so(tmp_path):
    trained, fresh = SwinUNETR(OWN, out_channels=21), SwinUNETR(OWN, out_channels=3)
    before = {name: fresh.state_dict()[name].clone() for name in HEAD}
    report = load_weights(fresh, save_weights(trained, tmp_path / "w.safetensors"))
    assert report.adapted == HEAD
    assert report.share == 1
    assert all(torch.equal(fresh.state_dict()[name], before[name]) for name in HEAD)
    assert all(equal_in(report.matched, trained, fresh))
    assert len(report.matched) == len(fresh.state_dict()) - 2


@pytest.mark.parametrize(("trained_on", "used_on"), [(1, 3), (3, 1)])
def test_other_input_channels_act_as_before_on_equal_channels(tmp_path, trained_on, used_on):
    trained, used = VoCoEncoder(OWN, trained_on).double(), VoCoEncoder(OWN, used_on).double()
    report = load_weights(used, save_weights(trained, tmp_path / "w.safetensors"))
    assert len(report.adapted) == 3
    assert report.share == 1
    x = torch.randn(2, 1, 16, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            used(x.expand(-1, used_on, -1, -1, -1)),
            trained(x.expand(-1, trained_on, -1, -1, -1)),
            rtol=0,
            atol=1e-10,
        )


def test_a_training_checkpoint_of_the_authors_form_loads(tmp_path):
    encoder, network = VoCoEncoder(OWN), SwinUNETR(OWN)
    state = {f"module.backbone.{name}": tensor for name, tensor in encoder.state_dict().items()}
    state |= {
        "module.student.layer.weight": torch.ones(2),
        "module.teacher.layer.weight": torch.ones(2),
    }
    torch.save({"global_step": 4, "state_dict": state}, tmp_path / "w.pt")
    report = load_weights(network, tmp_path / "w.pt")
    assert report.share == 1
    assert report.unexpected == ("student.layer.weight", "teacher.layer.weight")
    assert all(equal_in(report.matched, encoder, network))


def test_a_run_folder_loads(tmp_path):
    encoder, fresh = VoCoEncoder(OWN), VoCoEncoder(OWN)
    save_weights(encoder, tmp_path / "checkpoints" / "final" / "encoder.safetensors")
    report = load_weights(fresh, tmp_path)
    assert report.source.endswith("encoder.safetensors")
    assert all(equal_in(report.matched, encoder, fresh))


def test_a_module_of_another_kind_loads_by_all_its_names(tmp_path):
    trained, fresh = nn.Linear(2, 3), nn.Linear(2, 3)
    report = load_weights(fresh, save_weights(trained, tmp_path / "w.safetensors"))
    assert report.share == 1
    assert torch.equal(trained.weight, fresh.weight)


def test_another_size_is_refused_by_name_and_changes_nothing(tmp_path):
    wide = replace(model_size("tiny"), name="wide", feature_size=24)
    path = save_weights(VoCoEncoder("tiny").state_dict(), tmp_path / "w.safetensors")
    model = VoCoEncoder(wide)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(
        WeightsMismatchError, match=r"seems to be size 'tiny' .* the model is size 'wide'"
    ):
        load_weights(model, path)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_file_of_an_unnamed_size_is_described_by_its_numbers(tmp_path):
    path = save_weights(VoCoEncoder(OWN), tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"seems to be a size of its own \(4, \(1, 1\)"):
        load_weights(VoCoEncoder("tiny"), path)


def test_a_file_with_more_stages_does_not_pass_for_a_smaller_model(tmp_path):
    deeper = replace(OWN, depths=(1, 1, 1), heads=(1, 2, 4))
    path = save_weights(VoCoEncoder(deeper), tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatchError, match="of the tensors that ought to match"):
        load_weights(VoCoEncoder(OWN), path)


def test_half_a_file_is_refused_unless_told_otherwise(tmp_path):
    encoder, fresh = VoCoEncoder(OWN), VoCoEncoder(OWN)
    state = dict(list(encoder.state_dict().items())[::2])
    path = save_weights(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"matches 5\d\.\d% .* expected at least 95%"):
        load_weights(fresh, path)
    report = load_weights(fresh, path, min_match=0)
    assert report.share == pytest.approx(0.5, abs=0.02)
    assert report.matched == tuple(state)
    assert all(equal_in(state, encoder, fresh))


def test_weights_of_another_model_are_refused(tmp_path):
    path = save_weights({"conv.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"matches 0\.0% .* of another model"):
        load_weights(VoCoEncoder(OWN), path)


def test_weights_that_are_not_finite_are_refused_and_nothing_is_loaded(tmp_path):
    encoder = VoCoEncoder(OWN)
    state = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state["encoder10.layer.conv2.conv.weight"].view(-1)[5] = float("nan")
    before = encoder.swinViT.patch_embed.proj.bias.clone()
    state["swinViT.patch_embed.proj.bias"] += 1
    path = save_weights(state, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsFileError, match=r"'encoder10.layer.conv2.conv.weight' .* not finite"
    ):
        load_weights(encoder, path)
    assert torch.equal(encoder.swinViT.patch_embed.proj.bias, before)


def test_weights_trained_with_another_merging_are_refused(tmp_path):
    path = save_weights(VoCoEncoder(replace(OWN, merging="doubled")), tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsMismatchError, match="trained with merging 'doubled', the model 'own'"
    ):
        load_weights(VoCoEncoder(OWN), path)


def test_a_file_that_does_not_say_how_it_was_trained_is_noted(tmp_path):
    torch.save(VoCoEncoder(OWN).state_dict(), tmp_path / "w.pt")
    assert "before 1.5" in load_weights(VoCoEncoder(OWN), tmp_path / "w.pt").notes[0]
    old = VoCoEncoder(replace(OWN, merging="doubled"))
    assert load_weights(old, tmp_path / "w.pt").notes == ()


def test_the_report_reads_as_a_table(tmp_path):
    path = save_weights(VoCoEncoder(OWN), tmp_path / "w.safetensors")
    lines = str(load_weights(SwinUNETR(OWN), path)).splitlines()
    assert lines[0] == f"weights     {path}"
    assert lines[1] == "share       100.0% of what ought to match"
    assert lines[4] == "missing       16  decoder3 4, decoder2 4, decoder1 4, out 2".replace(
        "16", "14"
    )
    assert lines[6] == "mismatched     0"


@pytest.mark.parametrize("model", [SwinUNETR(OWN, 2, 5), VoCoEncoder(OWN, 3)])
def test_a_file_builds_its_own_model_again(tmp_path, model):
    again = load_model(save_weights(model, tmp_path / "w.safetensors"), checkpointing=True)
    assert type(again) is type(model)
    assert again.size == model.size
    assert again.checkpointing
    assert all(equal_in(model.state_dict(), model, again))


def test_a_pickle_without_metadata_builds_the_size_its_shapes_show(tmp_path):
    model = SwinUNETR("tiny", 2, 4)
    torch.save({"net": model.state_dict()}, tmp_path / "w.pt")
    again = load_model(tmp_path / "w.pt")
    assert isinstance(again, SwinUNETR)
    assert (again.size.name, again.in_channels, again.out_channels) == ("tiny", 2, 4)
    assert all(equal_in(model.state_dict(), model, again))


def test_a_file_that_describes_no_model_and_is_none_builds_nothing(tmp_path):
    path = save_weights({"student.weight": torch.ones(2)}, tmp_path / "w.safetensors", {"step": 3})
    with pytest.raises(WeightsFileError, match="it has no Swin transformer"):
        load_model(path)
