import sys

import pytest
import torch

import vocokernels  # noqa: F401 - fills sys.modules
from vocokernels.window_attention.boxes import box_classes
from vocokernels.window_attention.slabs import gather, parts, scatter

SLABS = sys.modules["vocokernels.window_attention.slabs"]
MAP, WINDOW, SHIFT = (9, 8, 13), (4, 3, 4), (2, 1, 0)


@pytest.mark.parametrize("numbers", [1, 500, 3000, 10**9])
def test_parts_hold_each_token_of_each_map_once(numbers, monkeypatch):
    monkeypatch.setattr(SLABS, "PART_NUMBERS", numbers)
    source = torch.arange(3 * 9 * 8 * 13 * 5.0).view(3, *MAP, 5)
    target, seen = torch.full_like(source, -1), 0
    for kind in box_classes(MAP, WINDOW, SHIFT):
        for part in parts(kind, 3, 5):
            rows = gather(source, kind, part, dtype=torch.float32)
            assert rows.shape == (part.boxes, kind.tokens, 5)
            scatter(target, kind, part, rows)
            seen += part.boxes * kind.tokens
    assert torch.equal(target, source)
    assert seen == 3 * 9 * 8 * 13


def test_a_class_is_cut_for_as_many_workers_as_it_can_serve():
    (kind,) = box_classes((6, 6, 6), (3, 3, 3), (0, 0, 0))
    assert [part.boxes for part in parts(kind, 5, 1, at_least=2)] == [16, 16, 8]
    assert [part.boxes for part in parts(kind, 1, 1, at_least=2)] == [4, 4]
    assert [part.boxes for part in parts(kind, 1, 1, at_least=5)] == [4, 4]


def test_tokens_of_a_box_lie_together_in_order():
    source = torch.arange(6 * 6 * 6.0).view(1, 6, 6, 6, 1)
    (kind,) = box_classes((6, 6, 6), (3, 3, 3), (0, 0, 0))
    (part,) = parts(kind, 1, 1)
    rows = gather(source, kind, part, dtype=torch.float32)
    assert rows[1, :, 0].tolist() == source[0, :3, :3, 3:, 0].flatten().tolist()


def test_the_sink_is_the_last_token_and_is_not_written_back():
    source = torch.zeros(1, 4, 4, 4, 2)
    kind = box_classes((4, 4, 4), (3, 3, 3), (0, 0, 0))[-1]
    (part,) = parts(kind, 1, 2)
    rows = gather(source, kind, part, dtype=torch.float64, sink_W=torch.tensor([5.0, 6.0]))
    assert rows.dtype == torch.float64
    assert rows.tolist() == [[[0.0, 0.0], [5.0, 6.0]]]
    scatter(source, kind, part, rows)
    assert not source.any()
