import json

import nibabel
import numpy as np
import pytest
from safetensors.numpy import save_file

from vocodata.errors import StoreError, UnreadableScanError
from vocotrain.errors import ConfigError
from vocotrain.inspection import inspect_path, inspect_toolkit


def test_the_toolkit_names_its_own_version_and_what_is_missing():
    found = inspect_toolkit()
    assert found.kind == "toolkit"
    assert found.facts["voco-toolkit"]
    assert "triton" in found.facts


def test_nothing_is_said_to_be_nothing(tmp_path):
    with pytest.raises(ConfigError, match="is not there; expected a store, a run, weights or"):
        inspect_path(tmp_path / "nothing")


@pytest.mark.parametrize(("lean_mm", "told"), [(0.0, None), (0.5, 26.57)])
def test_slices_that_lean_are_told(tmp_path, lean_mm, told):
    affine = np.eye(4)
    affine[1, 2] = lean_mm
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), affine), tmp_path / "a.nii")
    facts = inspect_path(tmp_path / "a.nii").facts
    assert facts.get("straightened_by_degrees") == told
    assert facts["shape_xyz"] == ([4, 4, 4] if told is None else [4, 6, 4])


def test_a_zarr_group_of_others_is_called_by_its_name(tmp_path):
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(StoreError, match="not a store of this toolkit"):
        inspect_path(tmp_path)


def test_any_other_folder_is_taken_for_a_dicom_series(tmp_path):
    with pytest.raises(UnreadableScanError):
        inspect_path(tmp_path)


def test_a_folder_of_stores_and_runs_says_which(tmp_path):
    for name in ("b/config.yaml", "a.zarr/zarr.json", "other/x"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=r"it holds \S+a\.zarr, \S+b\. Give one of those"):
        inspect_path(tmp_path)


def test_metadata_of_weights_is_opened(tmp_path):
    path = tmp_path / "w.safetensors"
    tensors = {"a": np.zeros((2, 3), np.float32), "index": np.zeros(4, np.int64)}
    save_file(tensors, path, metadata={"voco": json.dumps({"size": {"name": "tiny"}})})
    found = inspect_path(path)
    assert (found.kind, found.facts["tensors"], found.facts["parameters"]) == ("weights", 2, 6)


def test_the_folder_of_a_checkpoint_is_its_weights(tmp_path):
    save_file({"model.a": np.zeros((2, 3), np.float32)}, tmp_path / "state.safetensors")
    (tmp_path / "state.json").write_text("{}")
    found = inspect_path(tmp_path)
    assert (found.kind, found.facts["parameters"]) == ("weights", 6)


def test_a_fine_tuning_tells_its_task_and_its_dice(tmp_path):
    lines = [{"step": 2, "loss": 1.5}, {"step": 2, "dice_native": 0.25}]
    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "data.json").write_text(json.dumps({"task": "btcv"}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = inspect_path(tmp_path).facts
    assert (facts["task"], facts["loss"], facts["dice_native"]) == ("btcv", 1.5, 0.25)
