"""Files of weights: whole or not at all, and no code from strangers."""

import pickle

import pytest
import torch

from vocotrain.errors import UnsafeWeightsError, WeightsFileError
from vocotrain.models.encoder import VoCoEncoder
from vocotrain.models.swin_unetr import SwinUNETR
from vocotrain.sizes import ModelSize
from vocotrain.weight_files import find_weights, read_metadata, read_weights, save_weights

OWN = ModelSize("own", feature_size=4, depths=(1, 1), heads=(1, 2), window=(2, 2, 2))
STATE = {"a.weight": torch.arange(6.0).view(2, 3), "index": torch.tensor([3, 1])}


def test_tensors_and_metadata_come_back_as_they_were(tmp_path):
    metadata = {
        "classes": ["liver", "spleen"],
        "spacing_mm": [1.5, 1.5, 2.0],
        "step": 7,
        "note": "7",
    }
    path = save_weights(STATE, tmp_path / "new" / "w.safetensors", metadata)
    back = read_weights(path)
    assert back.keys() == STATE.keys()
    assert all(torch.equal(back[name], STATE[name]) for name in STATE)
    assert read_metadata(path) == metadata


def test_a_model_writes_what_it_takes_to_build_it_again(tmp_path):
    path = save_weights(SwinUNETR(OWN, 2, 5), tmp_path / "w.safetensors", {"task": "spleen"})
    assert read_metadata(path) == {
        "architecture": "SwinUNETR",
        "size": OWN.as_row(),
        "in_channels": 2,
        "out_channels": 5,
        "task": "spleen",
    }
    path = save_weights(VoCoEncoder(OWN), tmp_path / "e.safetensors")
    assert read_metadata(path)["architecture"] == "VoCoEncoder"
    assert "out_channels" not in read_metadata(path)


def test_the_same_weights_are_the_same_bytes(tmp_path):
    metadata = {str(i): i for i in range(9)}
    paths = [save_weights(STATE, tmp_path / f"{i}.safetensors", metadata) for i in range(4)]
    assert len({path.read_bytes() for path in paths}) == 1


def test_tensors_in_any_order_of_memory_are_written(tmp_path):
    turned = {"a": torch.arange(6.0).view(2, 3).T, "part": torch.arange(6.0)[2:4]}
    back = read_weights(save_weights(turned, tmp_path / "w.safetensors"))
    assert all(torch.equal(back[name], turned[name]) for name in turned)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = save_weights(STATE, tmp_path / "w.safetensors")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_weights(STATE, path, {"loss": float("nan")})
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):
        save_weights({"a": shared, "b": shared}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickle_of_tensors_is_read(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save({"state_dict": STATE, "epoch": 3}, path)
    content = read_weights(path)
    assert content["epoch"] == 3
    assert torch.equal(content["state_dict"]["a.weight"], STATE["a.weight"])
    assert read_metadata(path) == {}


class Malicious:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return (exec, (f"open({str(self.witness)!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path, zipped):
    witness, path = tmp_path / "it-ran", tmp_path / "w.pt"
    content = {"state_dict": STATE, "extra": Malicious(witness)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeWeightsError, match="nothing of it was run"):
        read_weights(path)
    assert not witness.exists()
    torch.load(path, weights_only=False)
    assert witness.exists(), "the file is harmless, so the test proves nothing"


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_with_code_is_refused_and_does_not_run(tmp_path, protocol):
    witness, path = tmp_path / "it-ran", tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(Malicious(witness), protocol=protocol))
    with pytest.raises(UnsafeWeightsError) as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value), "torch's advice is to take the guard away"
    assert not witness.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\xff" * 64])
def test_a_damaged_file_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match=r"cannot be read|nothing of it was run"):
        read_weights(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = save_weights(STATE, tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_weights(path)
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_metadata(path)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    torch.save(torch.ones(3), tmp_path / "w.pt")
    with pytest.raises(
        WeightsFileError, match=r"Expected a dictionary of tensors in .*, got Tensor"
    ):
        read_weights(tmp_path / "w.pt")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(WeightsFileError, match=r"Expected weights in \.safetensors, \.pt or \.pth"):
        read_weights(tmp_path / "w.onnx")


def test_a_run_folder_means_its_final_weights(tmp_path):
    final = tmp_path / "checkpoints" / "final"
    path = save_weights(STATE, final / "encoder.safetensors")
    save_weights(STATE, final / "heads.safetensors")
    assert find_weights(tmp_path) == find_weights(final) == find_weights(path) == path


def test_a_folder_with_no_or_two_files_is_refused(tmp_path):
    with pytest.raises(WeightsFileError, match=r"Expected one \.safetensors .*, found none"):
        find_weights(tmp_path)
    save_weights(STATE, tmp_path / "a.safetensors")
    save_weights(STATE, tmp_path / "b.safetensors")
    with pytest.raises(WeightsFileError, match=r"found a\.safetensors, b\.safetensors"):
        find_weights(tmp_path)
    with pytest.raises(WeightsFileError, match="no file or run folder of weights at"):
        find_weights(tmp_path / "none")


def test_metadata_that_is_no_object_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file(STATE, path, metadata={"voco": "[1]"})
    with pytest.raises(WeightsFileError, match="metadata is no JSON object"):
        read_metadata(path)
    save_file(STATE, path, metadata={"other": "x"})
    assert read_metadata(path) == {}


def test_a_run_that_has_not_ended_says_what_it_has(tmp_path):
    save_weights(STATE, tmp_path / "checkpoints" / "step-00000003" / "state.safetensors")
    words = r"has not ended.*Resume it to its end, or name a checkpoint, such as '.*step-00000003/s"
    with pytest.raises(WeightsFileError, match=words):
        find_weights(tmp_path)
