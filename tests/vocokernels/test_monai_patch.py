"""A patched MONAI model is the same function with the same parameters."""

import copy
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import nn

from tests.vocokernels import patched_models
from tests.vocokernels.patched_models import largest_difference, swin_transformer, swin_unetr
from vocokernels import patch_monai, unpatch_monai
from vocokernels.errors import KernelError, PatchError, UnknownBackendError

# maps of 7 x 5 x 9, 4 x 3 x 5, 2 x 2 x 3 and 1 x 1 x 2 tokens
ODD_INPUT = (1, 1, 14, 10, 18)


def blocks_of(model):
    return [m for m in model.modules() if type(m).__name__ == "SwinTransformerBlock"]


def test_importing_the_kernels_does_not_import_monai():
    code = "import sys, vocokernels; print('monai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("use_v2", [False, True])
@pytest.mark.parametrize("window", [(3, 3, 3), (2, 3, 4), (7, 7, 7)])
def test_outputs_and_all_gradients_are_monais(window, use_v2):
    model = swin_transformer(window=window, use_v2=use_v2).double()
    assert largest_difference(model, torch.randn(ODD_INPUT).double()) < 1e-10


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_each_backend_computes_it(backend):
    model = swin_transformer().double()
    x = torch.randn(ODD_INPUT).double()
    expected = model(x)
    patch_monai(model, backend=backend)
    for ours, theirs in zip(model(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_the_whole_network_is_monais():
    model = swin_unetr(use_v2=True).double()
    assert largest_difference(model, torch.randn(1, 1, 32, 32, 64).double()) < 1e-9


def test_single_precision_is_monais_to_rounding():
    assert largest_difference(swin_transformer(), torch.randn(ODD_INPUT)) < 1e-3


def test_checkpointed_blocks_are_monais():
    model = swin_transformer(use_checkpoint=True).double()
    assert largest_difference(model, torch.randn(ODD_INPUT).double()) < 1e-10


def test_without_a_bias_of_the_linear_layer_pads_are_zero():
    model = swin_transformer(qkv_bias=False).double()
    assert largest_difference(model, torch.randn(ODD_INPUT).double()) < 1e-10


def test_dropout_after_the_attention_and_dropped_paths_rest_in_evaluation():
    model = swin_transformer(drop_rate=0.3, drop_path_rate=0.2, attn_drop_rate=0.1).double().eval()
    assert largest_difference(model, torch.randn(ODD_INPUT).double()) < 1e-10


def test_the_flash_path_of_monai_is_the_same_function():
    if "use_flash_attention" not in SwinTransformer.__init__.__code__.co_varnames:
        pytest.skip("this MONAI has no flash path")
    model = swin_transformer(use_flash_attention=True).double()
    x = torch.randn(ODD_INPUT).double()
    with torch.no_grad():
        expected = model(x)
        patch_monai(model)
        for ours, theirs in zip(model(x), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_autocast_gives_monais_types_and_numbers():
    model = swin_transformer()
    x = torch.randn(ODD_INPUT)
    exact = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = model(x)
        patch_monai(model)
        ours = model(x)
    for one, other, truth in zip(ours, theirs, exact, strict=True):
        assert one.dtype == other.dtype
        assert (one - truth).norm() < 0.05 * truth.norm()


def test_parameters_and_the_state_dict_are_the_very_same():
    model = swin_transformer()
    parameters, state = list(model.parameters()), model.state_dict()
    patch_monai(model)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert list(model.state_dict()) == list(state)
    model.load_state_dict(state)


def test_undo_gives_the_very_same_classes_and_bits_back():
    model = swin_transformer()
    before = [type(module) for module in model.modules()]
    x = torch.randn(ODD_INPUT)
    expected = model(x)
    patch = patch_monai(model)
    assert patch.blocks == len(blocks_of(model)) == 6
    assert [type(module) for module in model.modules()] != before
    patch.undo()
    patch.undo()
    assert [type(module) for module in model.modules()] == before
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))


def test_a_with_block_undoes_itself_even_when_it_fails():
    model = swin_transformer()

    def fail():
        with patch_monai(model):
            assert blocks_of(model)[0].forward_part1.__qualname__.startswith("_BoxBlock")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not hasattr(blocks_of(model)[0], "original")


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_of_a_patched_model_is_patched_and_stands_alone(again):
    model = swin_transformer()
    x = torch.randn(ODD_INPUT)
    patch_monai(model)
    twin = again(model)
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    expected = twin(x)
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(twin(x), expected, strict=True))
    unpatch_monai(twin)
    assert not any(hasattr(m, "original") for m in twin.modules())


def test_the_region_mask_is_no_longer_built(monkeypatch):
    import monai.networks.nets.swin_unetr as monai_swin

    model = swin_transformer()

    def refuse(*_arguments):
        raise AssertionError

    monkeypatch.setattr(monai_swin, "compute_mask", refuse)
    patch_monai(model)
    model(torch.randn(ODD_INPUT))


def test_an_adapter_in_place_of_the_linear_layer_is_asked_what_a_pad_is():
    class Adapter(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.more = linear, nn.Parameter(torch.randn(linear.out_features))

        def forward(self, x):
            return self.linear(x) + self.more

    model = swin_transformer().double()
    for block in blocks_of(model):
        block.attn.qkv = Adapter(block.attn.qkv)
    assert largest_difference(model.double(), torch.randn(ODD_INPUT).double()) < 1e-10


def test_a_block_in_another_module_is_found():
    model = nn.ModuleDict({"net": nn.Sequential(swin_transformer())})
    assert patch_monai(model).blocks == 6


def test_a_model_that_is_wrapped_for_several_processes_is_patched_in_place():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = swin_transformer().double()
        x = torch.randn(ODD_INPUT).double()
        expected = patched_models.results(model, x)
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        patch_monai(wrapped)
        found = patched_models.results(wrapped, x)
    finally:
        torch.distributed.destroy_process_group()
    for name, theirs in expected.items():
        ours = found[name if name.startswith(("output", "input")) else f"module.{name}"]
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_a_layer_that_does_more_than_monais_is_left_as_it_is():
    model = swin_transformer().double()
    x = torch.randn(ODD_INPUT).double()
    layer = model.layers1[0]

    class BasicLayer(type(layer)):
        def forward(self, x):
            return 2 * torch.neg(super().forward(x))

    layer.__class__ = BasicLayer
    assert largest_difference(model, x) < 1e-10
    patch_monai(model)
    assert type(layer) is BasicLayer


def test_a_model_without_blocks_is_refused():
    with pytest.raises(PatchError, match=r"Linear holds no SwinTransformerBlock; expected MONAI's"):
        patch_monai(nn.Linear(1, 1))


def test_a_second_patch_is_refused():
    model = swin_transformer()
    patch_monai(model)
    with pytest.raises(PatchError, match=r"'layers1.0.blocks.0' is patched already; undo"):
        patch_monai(model)


def test_two_dimensions_are_refused():
    model = SwinTransformer(1, 8, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1, 1, 1), spatial_dims=2)
    with pytest.raises(PatchError, match=r"has a window of 2 axes; expected 3"):
        patch_monai(model)
    assert not any(hasattr(m, "original") for m in model.modules())


def test_attention_dropout_is_refused_while_training_only():
    model = swin_transformer(attn_drop_rate=0.25)
    with pytest.raises(PatchError, match=r"drops a share of 0.25 .*attn_drop_rate=0"):
        patch_monai(model)
    patch_monai(model.eval())
    model(torch.randn(ODD_INPUT))
    with pytest.raises(PatchError, match=r"This block drops a share of 0.25"):
        model.train()(torch.randn(ODD_INPUT))


@pytest.mark.parametrize("part", ["attn", "attn.softmax", "attn.attn_drop"])
def test_a_hook_that_would_be_passed_by_is_refused(part):
    model = swin_transformer()
    hooked = blocks_of(model)[1].get_submodule(part)
    hook = hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(PatchError, match=r"'layers1.0.blocks.1' has a hook on its attention"):
        patch_monai(model)
    hook.remove()
    patch_monai(model)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(PatchError, match=r"This block has a hook on its attention"):
        model(torch.randn(ODD_INPUT))


def test_hooks_on_what_is_still_called_are_called():
    model = swin_transformer()
    patch_monai(model)
    called = []
    for part in ("norm1", "attn.qkv", "attn.proj", "attn.proj_drop"):
        module = blocks_of(model)[0].get_submodule(part)
        module.register_forward_hook(lambda *_, part=part: called.append(part))
    model(torch.randn(ODD_INPUT))
    assert set(called) == {"norm1", "attn.qkv", "attn.proj", "attn.proj_drop"}


def test_linear_layers_need_no_weight_to_look_at():
    class Packed(nn.Module):
        """As torch's quantised layers, whose weight is a method."""

        def __init__(self, linear):
            super().__init__()
            self.linear = linear

        def weight(self):
            raise NotImplementedError

        def forward(self, x):
            return self.linear(x)

    model = swin_transformer().double()
    for block in blocks_of(model):
        block.attn.qkv, block.attn.proj = Packed(block.attn.qkv), Packed(block.attn.proj)
    assert largest_difference(model, torch.randn(ODD_INPUT).double()) < 1e-10


def test_another_scale_is_refused():
    model = swin_transformer()
    blocks_of(model)[0].attn.scale = 1.0
    with pytest.raises(PatchError, match=r"scales its logits by 1.0; expected .* 0.353553"):
        patch_monai(model)


def test_another_order_of_the_bias_table_is_refused():
    model = swin_transformer()
    blocks_of(model)[0].attn.relative_position_index.zero_()
    with pytest.raises(PatchError, match=r"reads its bias table of \(125, 1\) in another order"):
        patch_monai(model)


def test_a_block_of_that_name_from_elsewhere_is_refused():
    class SwinTransformerBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1 = self.attn = nn.Identity()

    with pytest.raises(PatchError, match=r"without window_size, shift_size, forward_part1;"):
        patch_monai(nn.Sequential(SwinTransformerBlock()))


def test_a_block_with_an_attention_half_of_its_own_is_refused():
    model = swin_transformer()
    block = blocks_of(model)[0]

    class MyBlock(type(block)):
        def forward_part1(self, x, mask_matrix):
            return 2 * super().forward_part1(x, mask_matrix)

    block.__class__ = MyBlock
    with pytest.raises(PatchError, match=r"is a MyBlock with an attention half of its own"):
        patch_monai(model)


def test_an_unknown_backend_is_refused_before_anything_is_patched():
    model = swin_transformer()
    with pytest.raises(UnknownBackendError, match="'cuda' is unknown"):
        patch_monai(model, backend="cuda")
    assert not any(hasattr(m, "original") for m in model.modules())


def test_a_refusal_is_an_error_of_ours_and_a_value_error():
    assert issubclass(PatchError, KernelError)
    assert issubclass(PatchError, ValueError)


@pytest.mark.slow
def test_a_patched_model_compiles_whole():
    model = swin_transformer()
    patch_monai(model)
    x = torch.randn(ODD_INPUT)
    expected = [one.detach() for one in model(x)]
    # without the C++ of inductor, which has nothing to do with us and takes minutes
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(x)
    for ours, theirs in zip(out, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    sum(one.sum() for one in out).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.network
@pytest.mark.parametrize("version", ["1.3.2", "1.4.0", "1.5.0"])
def test_older_versions_of_monai_are_patched_too(version, tmp_path):
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"monai=={version}"]
    subprocess.run([*pip, "--dest", str(tmp_path)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "monai")
    run = subprocess.run(
        [sys.executable, Path(patched_models.__file__)],
        env={"PYTHONPATH": str(tmp_path / "monai"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith(version)
