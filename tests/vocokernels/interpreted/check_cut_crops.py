from functools import partial

import pytest
import torch

from vocokernels import cut_crops
from vocokernels.cut_crops import kernel
from vocokernels.cut_crops.reference import Augmentation
from vocokernels.errors import ShapeError

WINDOWS = torch.tensor([[-175.0, 250.0], [-1000.0, 500.0]])


def random_fields(shape=(2, 13, 11, 12)):
    return torch.randint(-1500, 2000, shape, dtype=torch.int16)


def random_plan(fields, size, crops=9):
    room = [length - s + 1 for length, s in zip(fields.shape[1:], size, strict=True)]
    starts = torch.stack([torch.randint(0, places, (2, crops)) for places in room], dim=-1)
    step = 1 if size[0] == size[1] else 2
    return {
        "start_BN3": starts,
        "flip_BN3": torch.rand(2, crops, 3) < 0.5,
        "turns_BN": torch.randint(-3, 9, (2, crops)) // step * step,
        "shift_BN": torch.rand(2, crops) * 0.2 - 0.1,
    }


def cut(fields, size, plan, backend):
    return cut_crops(fields, size_vox=size, window_hu_B2=WINDOWS, backend=backend, **plan)


def same(fields, size, plan):
    found, expected = (cut(fields, size, plan, backend) for backend in ("triton", "reference"))
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


# 11 x 11 x 9 needs two programs a crop
@pytest.mark.parametrize("size", [(5, 5, 5), (5, 5, 3), (4, 7, 6), (11, 11, 9), (1, 1, 1)])
def test_crops_are_those_of_the_specification_bit_for_bit(size):
    fields = random_fields()
    same(fields, size, random_plan(fields, size))


@pytest.mark.parametrize("without", ["flip_BN3", "turns_BN", "shift_BN", "all"])
def test_what_is_not_planned_is_not_done(without):
    fields = random_fields()
    plan = random_plan(fields, (4, 4, 4))
    names = ("flip_BN3", "turns_BN", "shift_BN") if without == "all" else (without,)
    same(fields, (4, 4, 4), {**plan, **dict.fromkeys(names)})


def test_float_fields_keep_nan_and_infinity():
    fields = random_fields().float()
    fields[0, 2:5, 3:8, 4], fields[1, 5] = torch.nan, torch.inf
    plan = random_plan(fields, (6, 6, 6))
    assert cut(fields, (6, 6, 6), plan, "triton").isnan().any()
    same(fields, (6, 6, 6), plan)


def test_strided_fields_are_read_where_they_lie():
    fields = random_fields().permute(0, 3, 1, 2)[:, ::2]
    same(fields, (5, 5, 3), random_plan(fields, (5, 5, 3)))
    shared = random_fields((1, 9, 9, 9)).expand(2, -1, -1, -1)
    same(shared, (5, 5, 3), random_plan(shared, (5, 5, 3)))


def test_small_integers_and_doubles_are_taken_as_plans():
    fields = random_fields()
    plan = random_plan(fields, (4, 4, 4))
    plan["start_BN3"] = plan["start_BN3"].short()
    plan["turns_BN"] = plan["turns_BN"].short()
    plan["shift_BN"] = plan["shift_BN"].double()
    same(fields, (4, 4, 4), plan)


def test_no_crops_are_no_crops():
    fields = random_fields()
    plan = {name: tensor[:, :0] for name, tensor in random_plan(fields, (4, 4, 4)).items()}
    assert cut(fields, (4, 4, 4), plan, "triton").shape == (2, 0, 1, 4, 4, 4)


def test_places_in_large_fields_are_counted_in_64_bits():
    start = torch.full((3, 1, 3), 1000, dtype=torch.int16)
    plan = Augmentation(torch.ones(3, 1, 3, dtype=torch.bool), torch.full((3, 1), 2), None)
    strides = (2048**3, 2048**2, 2048, 1)
    found = kernel.crop_map(strides, start, (64, 64, 64), plan)
    # both flips of the plane are undone by the half turn; z runs backwards
    origin = 2 * 2048**3 + 1000 * 2048**2 + 1000 * 2048 + 1063
    assert found[2, 0].tolist() == [origin, 2048**2, 2048, -1]
    assert origin > 2**32


def test_the_operator_keeps_the_rules_of_torch():
    fields = random_fields()
    plan = Augmentation(None, None, None)
    start = torch.zeros(2, 1, 3, dtype=torch.int64)
    map_BN4 = kernel.crop_map(fields.stride(), start, (4, 4, 4), plan)
    light_BN3 = kernel._light(start, WINDOWS.to(start.device), plan)
    torch.library.opcheck(kernel._cut_op, (fields, map_BN4, light_BN3, 4, 4, 4))


# torch's own rules of forward derivatives are still scripts
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_a_forward_mode_derivative_is_that_of_the_specification():
    fields = random_fields().float()
    plan = random_plan(fields, (4, 4, 4))

    def derivative(backend):
        function = partial(cut, size=(4, 4, 4), plan=plan, backend=backend)
        return torch.func.jvp(function, (fields,), (fields,))[1]

    found = derivative("triton")
    assert found.any()
    assert torch.equal(found, derivative("reference"))


def test_a_crop_of_more_voxels_than_32_bits_count_is_refused():
    field = torch.zeros(1, 1, 1, 1).expand(1, 1300, 1300, 1300)
    start, window = torch.zeros(1, 0, 3, dtype=torch.int64), torch.tensor([[0.0, 1.0]])
    with pytest.raises(ShapeError, match=r"A crop of 1300 x 1300 x 1300 has 2197000000 voxels; .*"):
        cut_crops(field, start, 1300, window_hu_B2=window, backend="triton")
