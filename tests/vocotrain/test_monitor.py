import math

import pytest
import torch

from tests.training_store import SHAPES, small_run, write_store
from vocodata.store import open_store
from vocotrain.errors import ScanReadError
from vocotrain.fields import FieldSettings
from vocotrain.monitor import (
    constant_guess,
    effective_rank,
    make_monitor,
    plain_settings,
    similarity_gap,
)
from vocotrain.run import build_objective
from vocotrain.sizes import model_size
from vocotrain.training_data import look_up_data


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitor")
    return small_run(write_store(folder / "ct.zarr", SHAPES), folder / "run")


def monitor_of(config, held_out=None, fields=5):
    data = look_up_data(config)
    return make_monitor(
        data.store,
        training=data.training,
        held_out=data.held_out if held_out is None else held_out,
        settings=data.settings,
        seed=1,
        fields=fields,
        batch_size=2,
        device=torch.device("cpu"),
    )


def test_the_same_held_out_fields_are_seen_every_time(config):
    one, two = monitor_of(config), monitor_of(config)
    assert [batch.scans for batch in one.batches] == [("trial/d",) * 2] * 2 + [("trial/d",)]
    for a, b in zip(one.batches, two.batches, strict=True):
        assert torch.equal(a.field_BXYZ, b.field_BXYZ)
        assert torch.equal(a.start_BM3, b.start_BM3)
    objective = build_objective(config, model_size("tiny"))
    assert one.look(objective) == two.look(objective)


def test_without_held_out_scans_training_scans_are_looked_at_and_not_called_held_out(config):
    data = look_up_data(config)
    monitor = monitor_of(config, held_out=type(data.held_out)(()))
    assert {scan for batch in monitor.batches for scan in batch.scans} == {
        "clinic/a",
        "clinic/b",
        "clinic/c",
    }
    objective = build_objective(config, model_size("tiny"))
    assert monitor.look(objective).keys() == {"effective_rank", "gap"}


def test_nothing_is_changed_by_chance_in_what_is_looked_at(config):
    settings = look_up_data(config).settings
    assert settings.shift_probability > 0
    plain = plain_settings(settings)
    assert isinstance(plain, FieldSettings)
    assert (plain.shift_probability, plain.row_dropout, plain.crop_turn) == (0, 0, 0)
    assert plain.crop_flips == plain.field_flips == (0, 0, 0)
    assert (plain.grid, plain.crop_vox, plain.crops) == (
        settings.grid,
        settings.crop_vox,
        settings.crops,
    )
    for batch in monitor_of(config).batches:
        assert not batch.shift_BM.any()


def test_the_best_constant_guess_is_counted_on_the_same_labels():
    labels = torch.eye(3)[torch.tensor([0, 1, 1, 1, 2, 0])].reshape(3, 2, 3)
    assert constant_guess(labels) == 0.5


def test_a_constant_guess_scores_a_quarter_on_the_released_grid():
    grid = torch.linspace(0, 128, 129)
    near = torch.stack([(64 - (grid - 64 * i).abs()).clamp(0) / 64 for i in range(3)], dim=1)
    labels = torch.einsum("ai,bj->abij", near, near).reshape(1, -1, 9)
    assert constant_guess(labels) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_effective_rank_counts_equal_directions(rank):
    directions = torch.linalg.qr(torch.randn(16, rank, generator=torch.manual_seed(0)))[0]
    coordinates = torch.cat([torch.eye(rank), -torch.eye(rank)])
    rows = coordinates @ directions.T + 7.0  # a common offset hides nothing
    assert effective_rank(rows) == pytest.approx(rank, rel=1e-4)


def test_a_collapsed_model_has_no_rank():
    assert effective_rank(torch.ones(10, 4)) == 0.0
    assert math.isfinite(effective_rank(torch.zeros(10, 4)))


def test_the_gap_is_between_the_best_cell_and_cells_not_touched():
    similarity = torch.tensor([[[0.9, 0.5, 0.1], [0.8, 0.0, 0.3]]])
    labels = torch.tensor([[[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]]])
    assert similarity_gap(similarity, labels) == pytest.approx(0.85 - (0.1 + 0.0 + 0.3) / 3)
    assert similarity_gap(similarity, labels + 0.1) == pytest.approx(0.85)


def test_a_held_out_scan_that_cannot_be_read_is_named(tmp_path):
    root = write_store(tmp_path / "ct.zarr", SHAPES)
    for shard in (root / "scans/trial/d/0").glob("c*"):
        shard.unlink()
    assert open_store(root).ids()
    with pytest.raises(ScanReadError, match="Scan 'trial/d' cannot be read"):
        monitor_of(small_run(root, tmp_path / "run"))
