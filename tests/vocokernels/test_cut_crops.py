import math
import sys

import pytest
import torch

from vocokernels import cut_crops
from vocokernels.errors import (
    BackendUnavailableError,
    CropOutsideFieldError,
    DtypeError,
    ShapeError,
)

WINDOWS = torch.tensor([[-175.0, 250.0], [-1000.0, 500.0]])


def random_fields(shape=(2, 13, 11, 9)):
    return torch.randint(-1024, 1500, shape, dtype=torch.int16)


def random_starts(fields, crops, size):
    room = [length - s + 1 for length, s in zip(fields.shape[1:], size, strict=True)]
    axes = [torch.randint(0, places, (fields.shape[0], crops)) for places in room]
    return torch.stack(axes, dim=-1)


def plain_chain(fields, starts, size, windows, flips, turns, shifts):
    """One crop after the other, step by step."""
    volumes = []
    for b, field in enumerate(fields):
        lower, upper = windows[b]
        windowed = ((field.float() - lower) / (upper - lower)).clamp(0, 1)
        crops = []
        for n, (x, y, z) in enumerate(starts[b].tolist()):
            crop = windowed[x : x + size[0], y : y + size[1], z : z + size[2]]
            crop = torch.flip(crop, [axis for axis in range(3) if flips[b, n, axis]])
            crop = torch.rot90(crop, int(turns[b, n]), dims=(0, 1))
            crops.append(crop[None] + shifts[b, n])
        volumes.append(torch.stack(crops))
    return torch.stack(volumes)


@pytest.mark.parametrize("size", [5, (5, 5, 3), (4, 4, 9)])
def test_crops_are_those_of_the_plain_chain(size):
    triple = (size,) * 3 if isinstance(size, int) else size
    fields = random_fields()
    starts = random_starts(fields, 40, triple)
    flips, turns = torch.rand(2, 40, 3) < 0.5, torch.randint(0, 4, (2, 40))
    shifts = torch.rand(2, 40) * 0.2 - 0.1
    found = cut_crops(
        fields, starts, size, window_hu_B2=WINDOWS, flip_BN3=flips, turns_BN=turns, shift_BN=shifts
    )
    assert found.shape == (2, 40, 1, *triple)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert torch.equal(found, plain_chain(fields, starts, triple, WINDOWS, flips, turns, shifts))


def test_half_turns_of_oblong_crops():
    fields = random_fields()
    starts = random_starts(fields, 20, (4, 6, 3))
    flips, turns = torch.rand(2, 20, 3) < 0.5, torch.randint(0, 2, (2, 20)) * 2
    found = cut_crops(
        fields, starts, (4, 6, 3), window_hu_B2=WINDOWS, flip_BN3=flips, turns_BN=turns
    )
    expected = plain_chain(fields, starts, (4, 6, 3), WINDOWS, flips, turns, torch.zeros(2, 20))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_fast_path_gives_the_bits_of_the_specification(dtype, threads):
    fields = random_fields().to(dtype)
    starts = random_starts(fields, 64, (5, 5, 5))
    plan = {
        "window_hu_B2": WINDOWS.double() + 0.1,
        "flip_BN3": torch.rand(2, 64, 3) < 0.5,
        "turns_BN": torch.randint(-4, 8, (2, 64)),
        "shift_BN": torch.rand(2, 64, dtype=torch.float64) * 0.2 - 0.1,
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fast = cut_crops(fields, starts, 5, **plan, backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(fast, cut_crops(fields, starts, 5, **plan, backend="reference"))


def test_defaults_of_torch_do_not_reach_the_crops():
    fields, starts = random_fields(), torch.zeros(2, 1, 3, dtype=torch.int64)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = cut_crops(fields, starts, 3, window_hu_B2=WINDOWS, backend="cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert (found.dtype, found.device.type) == (torch.float32, "cpu")


@pytest.mark.parametrize("backend", ["cpu", "triton"])
def test_a_gradient_of_the_field_is_given_where_one_is_wanted(backend, monkeypatch):
    # as on a GPU, without one
    module = sys.modules["vocokernels.cut_crops"]
    monkeypatch.setattr(module, "chosen_backend", lambda *_: backend)
    field = torch.rand(1, 4, 4, 4, requires_grad=True)
    start = torch.tensor([[[1, 1, 1], [2, 2, 2]]])
    cut_crops(field, start, 2, window_hu_B2=torch.tensor([[0.0, 1.0]])).sum().backward()
    expected = torch.zeros(1, 4, 4, 4)
    expected[:, 1:3, 1:3, 1:3] += 1
    expected[:, 2:4, 2:4, 2:4] += 1
    assert torch.equal(field.grad, expected)


@pytest.mark.parametrize("turns", [-1, 3, 7])
def test_turns_count_around_the_clock(turns):
    fields, starts = random_fields(), torch.zeros(2, 1, 3, dtype=torch.int64)
    found = cut_crops(fields, starts, 5, window_hu_B2=WINDOWS, turns_BN=torch.full((2, 1), turns))
    plain = cut_crops(fields, starts, 5, window_hu_B2=WINDOWS)
    assert torch.equal(found, torch.rot90(plain, 3, dims=(3, 4)))


def test_the_window_maps_its_ends_and_clips():
    field = torch.tensor([-2000, -175, 0, 250, 3000], dtype=torch.int16).view(1, 5, 1, 1)
    found = cut_crops(
        field, torch.zeros(1, 1, 3, dtype=torch.int64), (5, 1, 1), window_hu_B2=WINDOWS[:1]
    )
    assert found.flatten().tolist() == pytest.approx([0.0, 0.0, 175 / 425, 1.0, 1.0])


def test_the_shift_is_added_after_clipping():
    field = torch.full((1, 2, 2, 2), 3000, dtype=torch.int16)
    found = cut_crops(
        field,
        torch.zeros(1, 2, 3, dtype=torch.int64),
        2,
        window_hu_B2=WINDOWS[:1],
        shift_BN=torch.tensor([[0.25, -0.25]]),
    )
    assert found.mean(dim=(2, 3, 4, 5)).tolist() == [[1.25, 0.75]]


def test_each_volume_has_its_own_window():
    fields = torch.zeros(2, 2, 2, 2, dtype=torch.int16)
    found = cut_crops(fields, torch.zeros(2, 1, 3, dtype=torch.int64), 2, window_hu_B2=WINDOWS)
    assert found[:, 0, 0, 0, 0, 0].tolist() == pytest.approx([175 / 425, 1000 / 1500])


def test_a_float_field_and_a_strided_one_are_taken():
    fields = random_fields()
    starts = random_starts(fields, 3, (4, 4, 4))
    expected = cut_crops(fields, starts, 4, window_hu_B2=WINDOWS)
    strided = fields.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert torch.equal(cut_crops(fields.float(), starts, 4, window_hu_B2=WINDOWS), expected)
    assert torch.equal(cut_crops(strided, starts, 4, window_hu_B2=WINDOWS), expected)


def call(**changed):
    given = {
        "field_BXYZ": torch.zeros(2, 8, 8, 8, dtype=torch.int16),
        "start_BN3": torch.zeros(2, 3, 3, dtype=torch.int64),
        "size_vox": 4,
        "window_hu_B2": WINDOWS,
    }
    return cut_crops(**{**given, **changed})


@pytest.mark.parametrize("bad", [[0, 5, 0], [0, 0, -1]])
def test_a_crop_outside_its_field_is_refused(bad):
    starts = torch.zeros(2, 3, 3, dtype=torch.int64)
    starts[1, 2] = torch.tensor(bad)
    with pytest.raises(
        CropOutsideFieldError, match=r"Crop 2 of volume 1 starts at .* from 0 to \(4, 4, 4\)"
    ):
        call(start_BN3=starts)


def test_a_crop_larger_than_the_field_is_refused():
    with pytest.raises(CropOutsideFieldError, match=r"the field has \(8, 8, 8\)"):
        call(size_vox=9)


@pytest.mark.parametrize("size", [(4, 0, 4), (4, 4), [4, 4, 4, 4]], ids=str)
def test_a_crop_without_three_sides_is_refused(size):
    with pytest.raises(ShapeError, match="expected 1 or more along each of three axes"):
        call(size_vox=size)


def test_a_quarter_turn_of_an_oblong_crop_is_refused():
    with pytest.raises(ShapeError, match="cannot make a quarter turn"):
        call(size_vox=(4, 5, 4), turns_BN=torch.ones(2, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    "window", [(5, 5), (5, 4), (math.nan, 4), (0, math.nan), (-math.inf, 4), (1e9, 1e9 + 1)]
)
def test_an_empty_or_endless_window_is_refused(window):
    window_hu_B2 = torch.tensor([(0, 1), window], dtype=torch.float64)
    with pytest.raises(ShapeError, match="is empty or not finite; expected lower, then upper end"):
        call(window_hu_B2=window_hu_B2)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("field_BXYZ", torch.zeros(8, 8, 8), r"expected \(B, X, Y, Z\)"),
        ("start_BN3", torch.zeros(2, 3), r"expected \(2, N, 3\)"),
        ("window_hu_B2", torch.zeros(2), r"expected \(2, 2\)"),
        ("flip_BN3", torch.zeros(2, 3), r"expected \(2, 3, 3\)"),
        ("turns_BN", torch.zeros(3), r"expected \(2, 3\)"),
        ("shift_BN", torch.zeros(2, 1), r"expected \(2, 3\)"),
    ],
)
def test_another_shape_is_refused(name, tensor, message):
    with pytest.raises(ShapeError, match=message):
        call(**{name: tensor})


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("field_BXYZ", torch.zeros(2, 8, 8, 8).double(), "float64; expected int16 or float32"),
        ("start_BN3", torch.zeros(2, 3, 3), "expected int16 or int32 or int64"),
        ("flip_BN3", torch.zeros(2, 3, 3), "expected bool"),
        ("turns_BN", torch.zeros(2, 3), "expected int16 or int32 or int64"),
        ("shift_BN", torch.zeros(2, 3).long(), "expected float32 or float64"),
    ],
)
def test_another_type_is_refused(name, tensor, message):
    with pytest.raises(DtypeError, match=message):
        call(**{name: tensor})


def test_a_missing_backend_is_refused():
    with pytest.raises(BackendUnavailableError, match=r"on a GPU|triton is missing"):
        call(backend="triton")
