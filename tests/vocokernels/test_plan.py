"""The tables that the GPU kernels look up hold each token, pair and unit once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vocokernels.errors import ShapeError
from vocokernels.window_attention.boxes import box_classes
from vocokernels.window_attention.plan import BIAS_PROGRAMS, pair_work, plan, row_work

CPU = torch.device("cpu")


@st.composite
def sizes(draw):
    """Map, window and shift."""
    window = tuple(draw(st.integers(1, 5)) for _ in range(3))
    return (
        tuple(draw(st.integers(1, 9)) for _ in range(3)),
        window,
        tuple(draw(st.integers(0, w - 1)) for w in window),
    )


def every_token(found):
    """Flat numbers of all tokens of all boxes of a map."""
    tokens = []
    for number, (n, _, count, first) in enumerate(found.kinds_K4.tolist()):
        boxes = found.boxes_N[first : first + count]
        tokens.append((boxes[:, None] + found.place_KP[number, :n]).flatten())
    return torch.cat(tokens)


@given(sizes())
@settings(max_examples=60, deadline=None)
def test_boxes_hold_each_token_once(size):
    found = plan(*size, CPU)
    x, y, z = size[0]
    assert torch.equal(every_token(found).sort().values, torch.arange(x * y * z).int())


@given(sizes())
@settings(max_examples=60, deadline=None)
def test_a_code_leads_back_to_its_token_or_pad(size):
    found = plan(*size, CPU)
    for number, (n, total, _, _) in enumerate(found.kinds_K4.tolist()):
        codes = found.code_KP[number, :total].long()
        assert torch.equal(found.inverse_KO[number, codes], torch.arange(total).int())
        assert (found.inverse_KO[number] >= 0).sum() == total
        assert 0 <= codes.min() <= codes.max() <= found.origin
        assert found.kinds[number].tokens == n
    assert found.has_pads == any(kind.code_p.numel() for kind in box_classes(*size))


@given(sizes(), st.sampled_from([16, 32]))
@settings(max_examples=60, deadline=None)
def test_tiles_hold_each_row_once(size, rows):
    found, work = plan(*size, CPU), row_work(*size, CPU, rows=rows)
    slots, tokens = [], []
    for box, kind, start, n, slot in work.works_W5.tolist():
        tokens.append(box + found.place_KP[kind, start : min(start + rows, n)])
        slots += [slot] if slot >= 0 else []
        assert (slot >= 0) == bool(found.kinds[kind].code_p.numel())
        assert start < n == found.kinds[kind].tokens
    x, y, z = size[0]
    assert torch.equal(torch.cat(tokens).sort().values, torch.arange(x * y * z).int())
    assert slots == list(range(work.slots))


@given(sizes(), st.integers(1, 400), st.integers(1, 24))
@settings(max_examples=60, deadline=None)
def test_shares_hold_each_pair_of_each_box_once(size, maps, heads):
    found = plan(*size, CPU)
    work = pair_work(*size, CPU, maps=maps, heads=heads, queries=16, keys=32)
    rows = work.works_W5.tolist()
    for number, (n, _, count, _) in enumerate(found.kinds_K4.tolist()):
        first, key_tiles, shares = work.shares_K3[number].tolist()
        assert key_tiles == -(-n // 32)
        assert shares >= 1
        for query in range(0, n, 16):
            for key in range(0, n, 32):
                start = first + (query // 16 * key_tiles + key // 32) * shares
                some = rows[start : start + shares]
                assert {tuple(row[:3]) for row in some} == {(number, query, key)}
                units = [unit for row in some for unit in range(row[3], row[4])]
                assert units == list(range(count * maps))


@pytest.mark.parametrize("maps", [1, 22, 5000])
@pytest.mark.parametrize(("side", "heads"), [(32, 3), (16, 6), (8, 12), (4, 24)])
def test_sums_of_the_table_are_few_whatever_the_batch(side, heads, maps):
    size = ((side,) * 3, (7, 7, 7), (3, 3, 3))
    work = pair_work(*size, CPU, maps=maps, heads=heads, queries=64, keys=16)
    tiles = sum(-(-n // 64) * -(-n // 16) for n, *_ in plan(*size, CPU).kinds_K4.tolist())
    assert len(work.works_W5) * heads <= BIAS_PROGRAMS + tiles * heads


@pytest.mark.parametrize(
    "size", [((16, 16, 16), (7, 7, 7), (3, 3, 3)), ((4, 4, 4), (7,) * 3, (3,) * 3)]
)
def test_tables_are_small_and_whole_numbers(size):
    found = plan(*size, CPU)
    tables = [found.kinds_K4, found.boxes_N, found.place_KP, found.code_KP, found.inverse_KO]
    assert {table.dtype for table in tables} == {torch.int32}
    assert sum(table.numel() for table in tables) * 4 < 2**18
    assert found.positions % 16 == 0


def test_the_largest_boxes_come_first():
    """They take longest, and a GPU should not end on them."""
    tokens = [kind.tokens for kind in plan((16, 16, 16), (7, 7, 7), (3, 3, 3), CPU).kinds]
    assert tokens == sorted(tokens, reverse=True)


def test_another_default_device_does_not_matter():
    with torch.device("meta"):
        found = plan((5, 3, 4), (3, 3, 3), (1, 2, 0), CPU)
    assert found.kinds_K4.device == CPU
    assert found.kinds_K4[:, 0].sum() > 0


def test_a_map_of_more_tokens_than_32_bits_count_is_refused():
    with pytest.raises(ShapeError, match="A map of 2048 x 1024 x 1024 has 2147483648 tokens; "):
        plan((2048, 1024, 1024), (7, 7, 7), (0, 0, 0), CPU)
