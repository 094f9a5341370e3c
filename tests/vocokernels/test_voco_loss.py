"""The oracle below is plain Python: lists, loops and math, no tensor expression of ours."""

import itertools
import math

import pytest
import torch

from vocokernels import voco_loss
from vocokernels.errors import (
    BackendUnavailableError,
    DtypeError,
    ShapeError,
    UnknownBackendError,
    UnknownVariantError,
)

E = 1e-6
NAMES = ("x_student", "x_teacher", "bases_student", "bases_teacher", "labels")
REPAIRS = ("symmetric_regulariser", "clamped_similarity", "inter_needs_two")


def cosine(a, b):
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    return dot / max(math.hypot(*a), 1e-8) / max(math.hypot(*b), 1e-8)


def similarity(a, b):
    return max(0.0, cosine(a, b))


def position_loss(label, s):
    """Of one volume: rows of crops, columns of bases."""
    pairs = [(y, v) for ys, vs in zip(label, s, strict=True) for y, v in zip(ys, vs, strict=True)]
    positive = -sum(y * math.log(1 - abs(y - v) + E) for y, v in pairs)
    negative = -sum(math.log(1 - v + E) for y, v in pairs if y == 0)
    absent = sum(1 for y, _ in pairs if y == 0)
    return positive / (sum(y for y, _ in pairs) + E) + negative / (absent + E)


def table(crops, bases):
    return [[similarity(crop, base) for base in bases] for crop in crops]


def oracle_intra(x_student, bases_teacher, labels):
    losses = [
        position_loss(labels[b], table(x_student[b], bases_teacher[b]))
        for b in range(len(x_student))
    ]
    return sum(losses) / len(losses)


def oracle_inter(x_student, bases_student, x_teacher, bases_teacher):
    losses = []
    for volume in range(len(x_student)):
        partner = (volume + 1) % len(x_student)
        target = table(x_teacher[volume], bases_teacher[partner])
        losses.append(position_loss(target, table(x_student[volume], bases_student[partner])))
    return sum(losses) / len(losses)


def oracle_regulariser(bases, others):
    """The second of a pair comes from `others`, so that it can be held still."""
    losses = []
    for volume, held in zip(bases, others, strict=True):
        pairs = list(itertools.combinations(range(len(volume)), 2))
        losses.append(sum(similarity(volume[a], held[b]) ** 2 for a, b in pairs) / len(pairs))
    return sum(losses) / len(losses)


def slope(function, values, step=1e-6):
    """Central differences of a function of nested lists, in their shape."""
    tensor = torch.tensor(values, dtype=torch.float64)
    found = torch.zeros_like(tensor)
    for place in itertools.product(*(range(length) for length in tensor.shape)):
        up, down = tensor.clone(), tensor.clone()
        up[place] += step
        down[place] -= step
        found[place] = (function(up.tolist()) - function(down.tolist())) / (2 * step)
    return found


def random_inputs(volumes=2, crops=3, bases=4, channels=5, *, dtype=torch.float64):
    shapes = [(crops, channels)] * 2 + [(bases, channels)] * 2
    inputs = [torch.randn(volumes, *shape, dtype=torch.float64).to(dtype) for shape in shapes]
    for tensor in inputs:
        tensor.requires_grad_()
    share = torch.rand(volumes, crops, 2, dtype=torch.float64)
    labels = torch.zeros(volumes, crops, bases, dtype=torch.float64)
    labels[..., :2] = share / share.sum(-1, keepdim=True)
    return [*inputs, labels.to(dtype)]


def lists(inputs):
    return [tensor.detach().double().tolist() for tensor in inputs]


@pytest.mark.parametrize("variant", ["reference", "voco"])
@pytest.mark.parametrize("volumes", [2, 3])
def test_values_are_those_of_plain_python(variant, volumes):
    inputs = random_inputs(volumes)
    x_student, x_teacher, bases_student, bases_teacher, labels = lists(inputs)
    found = voco_loss(*inputs, variant=variant)
    intra = oracle_intra(x_student, bases_teacher, labels)
    inter = oracle_inter(x_student, bases_student, x_teacher, bases_teacher)
    regulariser = oracle_regulariser(bases_student, bases_student)
    assert found.intra.item() == pytest.approx(intra, rel=1e-12)
    assert found.inter.item() == pytest.approx(inter, rel=1e-12)
    assert found.regulariser.item() == pytest.approx(regulariser, rel=1e-12)
    assert found.total().item() == pytest.approx(intra + inter + regulariser, rel=1e-12)


def gradient(value, *tensors):
    found = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def test_intra_moves_only_the_crops_of_the_student():
    inputs = random_inputs()
    _, _, _, bases_teacher, labels = lists(inputs)
    found = gradient(voco_loss(*inputs).intra, *inputs[:4])
    expected = slope(lambda x: oracle_intra(x, bases_teacher, labels), lists(inputs)[0])
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-8)
    assert all(not grad.any() for grad in found[1:])


def test_inter_moves_crops_and_bases_of_the_student():
    inputs = random_inputs(3)
    x_student, x_teacher, bases_student, bases_teacher, _ = lists(inputs)
    found = gradient(voco_loss(*inputs).inter, *inputs[:4])
    of_crops = slope(lambda x: oracle_inter(x, bases_student, x_teacher, bases_teacher), x_student)
    of_bases = slope(lambda b: oracle_inter(x_student, b, x_teacher, bases_teacher), bases_student)
    torch.testing.assert_close(found[0], of_crops, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[2], of_bases, rtol=1e-6, atol=1e-8)
    assert not found[1].any()
    assert not found[3].any()


def test_the_released_regulariser_moves_the_first_of_a_pair():
    inputs = random_inputs()
    bases = lists(inputs)[2]
    (found,) = gradient(voco_loss(*inputs).regulariser, inputs[2])
    torch.testing.assert_close(
        found, slope(lambda b: oracle_regulariser(b, bases), bases), rtol=1e-6, atol=1e-8
    )
    assert not found[:, -1].any()


def test_the_repaired_regulariser_moves_both_of_a_pair():
    inputs = random_inputs()
    (found,) = gradient(voco_loss(*inputs, variant="voco").regulariser, inputs[2])
    expected = slope(lambda b: oracle_regulariser(b, b), lists(inputs)[2])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert found[:, -1].any()


@pytest.mark.parametrize("variant", ["reference", "voco"])
@pytest.mark.parametrize("volumes", [1, 2])
def test_finite_differences_agree(variant, volumes):
    inputs = random_inputs(volumes, dtype=torch.float64)

    def intra_and_inter(x_student, bases_student):
        terms = voco_loss(
            x_student, inputs[1], bases_student, inputs[3], inputs[4], variant=variant
        )
        return terms.intra, terms.inter

    # the released regulariser holds one side still, which differences cannot see
    assert torch.autograd.gradcheck(intra_and_inter, (inputs[0], inputs[2]))


def test_a_perfect_crop_costs_nothing_but_epsilon():
    crop = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    bases = torch.tensor([[[1.0, 0.0], [0.0, 3.0]]], dtype=torch.float64)
    labels = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    terms = voco_loss(crop, crop, bases, bases, labels)
    expected = -2 * math.log(1 + E) / (1 + E)
    assert terms.intra.item() == pytest.approx(expected, rel=1e-9)
    assert terms.regulariser.item() == 0.0


def test_a_crop_between_two_bases_by_hand():
    crop = torch.tensor([[[1.0, 1.0]]], dtype=torch.float64)
    bases = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    labels = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    found = voco_loss(crop, crop, bases, bases, labels).intra.item()
    assert found == pytest.approx(-math.log(1.5 - math.sqrt(0.5) + E) / (1 + E), rel=1e-9)


def test_parallel_bases_cost_their_square():
    bases = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    crop, labels = torch.ones(1, 1, 2, dtype=torch.float64), torch.ones(1, 1, 3).double() / 3
    # of three pairs one is parallel and two point apart, which the rectifier forgives
    assert voco_loss(crop, crop, bases, bases, labels).regulariser.item() == pytest.approx(1 / 3)


def test_the_only_volume_is_its_own_partner_as_released_and_skipped_as_repaired():
    inputs = random_inputs(1)
    x_student, x_teacher, bases_student, bases_teacher, _ = lists(inputs)
    released = voco_loss(*inputs).inter.item()
    expected = oracle_inter(x_student, bases_student, x_teacher, bases_teacher)
    assert released == pytest.approx(expected, rel=1e-12)
    assert voco_loss(*inputs, variant="voco").inter.item() == 0.0
    voco_loss(*inputs, variant="voco").total().backward()
    assert torch.isfinite(inputs[0].grad).all()


def test_the_partner_is_the_next_volume():
    inputs = random_inputs(3)
    before = voco_loss(*inputs).inter
    lonely = inputs[0].detach().clone()
    lonely[0] = 0
    moved = voco_loss(lonely, *inputs[1:]).inter
    (grad,) = gradient(before - moved, inputs[2])
    assert grad[1].any()
    assert not grad[0].any()
    assert not grad[2].any()


def test_a_cosine_beyond_one_is_clamped_where_repaired():
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(64, 1, 1000, generator=generator)
    labels = torch.zeros(64, 1, 1)
    plain = voco_loss(rows, rows, rows, rows, labels, clamped_similarity=False)
    clamped = voco_loss(rows, rows, rows, rows, labels, clamped_similarity=True)
    assert clamped.intra.item() <= -math.log(E) / (1 + E) * (1 + 1e-6)
    assert plain.intra.item() != clamped.intra.item()


@pytest.mark.parametrize("repair", REPAIRS)
def test_each_repair_is_a_switch_of_its_own(repair):
    generator = torch.Generator().manual_seed(3)
    bases = torch.randn(1, 4, 1000, generator=generator, requires_grad=True)
    crops = bases.detach()[:, :2].clone().requires_grad_()
    inputs = [crops, crops.detach(), bases, bases.detach(), torch.eye(4)[None, :2]]

    def outcome(**switches):
        terms = voco_loss(*inputs, **switches)
        return [term.item() for term in terms] + [gradient(terms.total(), bases)[0].tolist()]

    others = {name: True for name in REPAIRS if name != repair}
    all_on = outcome(variant="voco")
    assert outcome(variant="reference", **others, **{repair: True}) == all_on
    if repair != "clamped_similarity":
        assert outcome(variant="voco", **{repair: False}) != all_on
    all_off = dict.fromkeys(REPAIRS, False)
    assert outcome(variant="voco", **all_off) == outcome(variant="reference")


def test_one_base_has_nothing_to_keep_apart_from():
    inputs = random_inputs(2, bases=2)
    alone = [inputs[0], inputs[1], inputs[2][:, :1], inputs[3][:, :1], torch.ones(2, 3, 1).double()]
    assert voco_loss(*alone).regulariser.item() == 0.0


@pytest.mark.parametrize("variant", ["reference", "voco"])
def test_half_precision_is_computed_in_float32_also_under_autocast(variant):
    inputs = random_inputs(channels=64, dtype=torch.bfloat16)
    exact = [tensor.detach().float() for tensor in inputs]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = voco_loss(*inputs, variant=variant)
    expected = voco_loss(*exact, variant=variant)
    assert [term.dtype for term in found] == [torch.float32] * 3
    assert [term.item() for term in found] == [term.item() for term in expected]


def test_weights_of_the_total():
    terms = voco_loss(*random_inputs())
    found = terms.total(intra=2.0, inter=0.0, regulariser=3.0)
    assert found.item() == pytest.approx(2 * terms.intra.item() + 3 * terms.regulariser.item())


def test_an_unknown_variant_is_refused():
    with pytest.raises(UnknownVariantError, match="'cvpr' is unknown; expected reference or voco"):
        voco_loss(*random_inputs(), variant="cvpr")


def test_labels_of_another_shape_are_refused():
    inputs = random_inputs()
    with pytest.raises(ShapeError, match=r"expected \(B, N, K\) = \(2, 3, 4\)"):
        voco_loss(*inputs[:4], inputs[4].mT)


def test_heads_that_differ_are_refused():
    inputs = random_inputs()
    with pytest.raises(ShapeError, match=r"crops are .* from the student .* expected the same"):
        voco_loss(inputs[0], inputs[1][:, :1], *inputs[2:])


def test_crops_and_bases_of_other_widths_are_refused():
    inputs = random_inputs()
    with pytest.raises(ShapeError, match="do not belong together"):
        voco_loss(inputs[0][..., :2], inputs[1][..., :2], *inputs[2:])


def test_integer_embeddings_are_refused():
    inputs = [tensor.detach().long() for tensor in random_inputs()]
    with pytest.raises(DtypeError, match="expected a floating type"):
        voco_loss(*inputs)


def test_backends_are_checked():
    with pytest.raises(BackendUnavailableError, match=r"on a GPU|triton is missing"):
        voco_loss(*random_inputs(), backend="triton")
    with pytest.raises(UnknownBackendError, match="is unknown"):
        voco_loss(*random_inputs(), backend="cuda")
