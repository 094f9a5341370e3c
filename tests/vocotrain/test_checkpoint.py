import errno
import json

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from vocotrain.checkpoint import (
    Checkpoint,
    load_newest,
    non_finite,
    restore,
    save_checkpoint,
    training_tensors,
)
from vocotrain.errors import CheckpointError


def make(width=3, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True, fused=True)


def update(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(5, 4, generator=generator)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def save(folder, step=1, keep=9, tensors=None, **state):
    checkpoint = Checkpoint(step, tensors or {"a": torch.full((3,), float(step))}, state)
    return save_checkpoint(folder, checkpoint, keep=keep)


def newest(folder):
    damaged = []
    return load_newest(folder, on_damaged=damaged.append), damaged


def test_a_full_disk_is_an_oserror_that_leaves_nothing_of_the_checkpoint(tmp_path, monkeypatch):
    """safetensors has an error of its own for it, and what it wrote would fill the disk."""

    def full(_tensors, path, **_more):
        path.write_bytes(b"a part of it")
        msg = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(msg)

    save(tmp_path, step=1)
    monkeypatch.setattr("vocotrain.weight_files.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save(tmp_path, step=2)
    assert caught.value.errno == errno.ENOSPC
    assert "checkpoint of step 2 was not written; those before it are" in caught.value.__notes__[0]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_what_is_restored_goes_on_as_what_was_saved(tmp_path):
    model, optimizer = make()
    update(model, optimizer, 1)
    save(tmp_path, tensors=training_tensors(model, optimizer))
    update(model, optimizer, 2)
    other, its_optimizer = make(seed=9)
    restore(other, its_optimizer, newest(tmp_path)[0].tensors)
    update(other, its_optimizer, 2)
    expected = training_tensors(model, optimizer)
    got = training_tensors(other, its_optimizer)
    assert got.keys() == expected.keys()
    assert {name.rsplit(".", 1)[1] for name in got if name.startswith("optim.")} == {
        "step",
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
    }
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_tensors_of_another_model_are_refused():
    tensors = training_tensors(*make(width=5))
    with pytest.raises(CheckpointError, match=r"do not fit the model of config\.yaml"):
        restore(*make(), tensors)


def test_the_newest_is_read_with_its_state(tmp_path):
    for step in (3, 12, 7):
        save(tmp_path, step, word=f"at {step}")
    found, damaged = newest(tmp_path)
    assert (found.step, found.state["word"], damaged) == (12, "at 12", [])
    assert found.tensors["a"].tolist() == [12, 12, 12]


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 100000000, 3):
        save(tmp_path, step, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-100000000"]


def test_no_checkpoint_is_not_an_error(tmp_path):
    assert newest(tmp_path / "none") == (None, [])
    (tmp_path / ".step-00000001.tmp").mkdir()
    (tmp_path / "final").mkdir()
    assert newest(tmp_path) == (None, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "state.safetensors").write_bytes(b"\0" * 8),
        lambda path: (path / "state.safetensors").unlink(),
        lambda path: (path / "state.json").unlink(),
        lambda path: (path / "state.json").write_bytes(b'{"step": 2\xff'),
        lambda path: (path / "state.json").write_text("{}"),
        lambda path: (path / "state.json").write_text("[]"),
        lambda path: (path / "state.json").write_text(
            (path / "state.json").read_text().replace('"step": 2', '"step": "x"')
        ),
    ],
    ids=["zeros", "no tensors", "no state", "not utf-8", "no keys", "no object", "no step"],
)
def test_a_damaged_one_is_passed_over(tmp_path, damage):
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    found, damaged = newest(tmp_path)
    assert found.step == 1
    assert len(damaged) == 1
    assert "step-00000002 is damaged" in damaged[0]


def test_a_flipped_bit_is_seen(tmp_path):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found, damaged = newest(tmp_path)
    assert found.step == 1
    assert "state.safetensors is not what state.json says" in damaged[0]


def test_a_later_format_is_passed_over(tmp_path):
    path = save(tmp_path, 2) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(CheckpointError, match=r"All 1 checkpoints in"):
        newest(tmp_path)


def test_writing_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 2)
    path = save(tmp_path, 2, tensors={"a": torch.zeros(1)})
    assert newest(tmp_path)[0].tensors["a"].tolist() == [0]
    assert {p.name for p in path.iterdir()} == {"state.json", "state.safetensors"}


def test_what_is_not_finite_is_named():
    tensors = {
        "good": torch.ones(2),
        "bad": torch.tensor([1.0, float("inf")]),
        "whole": torch.ones(2, dtype=torch.int64),
    }
    assert non_finite(tensors) == ["bad"]


def test_a_checkpoint_of_another_kind_of_run_is_passed_over(tmp_path):
    save(tmp_path, step=1, scaler={})
    save(tmp_path, step=2)
    damaged = []
    found = load_newest(tmp_path, on_damaged=damaged.append, needs=["scaler", "a"])
    assert found.step == 1
    assert "of another kind of run: it lacks scaler" in damaged[0]
