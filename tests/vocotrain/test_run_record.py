import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from vocotrain.errors import CheckpointError
from vocotrain.run_record import count_parameters, read_run


def write_run(folder, lines=""):
    (folder / "config.yaml").write_text("model: {}\n", encoding="utf-8")
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    whole = json.dumps({"step": 1, "loss": 0.5})
    record = read_run(write_run(tmp_path, f'{whole}\n{{"step": 2, "lo'))
    assert record.lines == ({"step": 1, "loss": 0.5},)
    assert record.last("loss") == 0.5
    assert record.last("nothing") is None


def test_lines_that_a_power_cut_left_are_left_out(tmp_path):
    write_run(tmp_path)
    cut = b'\x00\x00{"step": 1}\n[1]\n{"step": }\n\xff\xfe}\n{"step": 4, "loss": 1.5}\n'
    (tmp_path / "metrics.jsonl").write_bytes(cut)
    assert read_run(tmp_path).lines == ({"step": 4, "loss": 1.5},)


def test_a_number_is_read_where_it_was_written(tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 5, "loss": 1.0, "gap": 0.3}]
    record = read_run(write_run(tmp_path, "".join(json.dumps(line) + "\n" for line in lines)))
    assert record.series("loss") == ([1.0, 5.0], [2.0, 1.0])
    assert record.series("gap") == ([5.0], [0.3])


def test_a_run_that_has_written_nothing_yet_is_still_a_run(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    record = read_run(tmp_path)
    assert (record.environment, record.data, record.lines) == ({}, {}, ())


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        read_run(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    write_run(tmp_path)
    (tmp_path / "data.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"data\.json is not JSON"):
        read_run(tmp_path)
    (tmp_path / "data.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"data\.json holds list; expected names and"):
        read_run(tmp_path)


def test_only_floating_point_numbers_are_parameters(tmp_path):
    tensors = {"a": np.zeros((2, 3), np.float32), "index": np.zeros(50, np.int64)}
    save_file(tensors, tmp_path / "w.safetensors")
    assert count_parameters(tmp_path / "w.safetensors") == 6
