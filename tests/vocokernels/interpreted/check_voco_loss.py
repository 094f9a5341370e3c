import itertools

import pytest
import torch

from tests.vocokernels.interpreted.tolerances import TOLERANCE, assert_near
from vocokernels import voco_loss
from vocokernels.errors import ShapeError
from vocokernels.voco_loss import op

VARIANTS = ("reference", "voco")
# B, N, K, D; 16 is a tile of crops or bases, 32 one of channels
SHAPES = [(3, 3, 5, 70), (1, 20, 18, 33), (2, 2, 9, 65), (3, 17, 1, 5), (2, 1, 2, 6)]
HALF = (torch.float16, torch.bfloat16)


def random_inputs(shape, dtype=torch.float64):
    B, N, K, D = shape
    inputs = [torch.randn(B, rows, D, dtype=dtype).requires_grad_() for rows in (N, N, K, K)]
    labels = torch.rand(B, N, K, dtype=torch.float64) * (torch.rand(B, N, K) < 0.4)
    return [*inputs, (labels / labels.sum(-1, keepdim=True).clamp_min(1e-3)).to(dtype)]


def terms_and_gradients(inputs, weights, **settings):
    """Terms, and what their weighted sum gives to crops and bases of the student."""
    terms = voco_loss(*inputs, **settings)
    total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    grads = torch.autograd.grad(total, (inputs[0], inputs[2]), allow_unused=True)
    found = dict(zip(terms._fields, terms, strict=True))
    for side, grad, tensor in zip(("crops", "bases"), grads, (inputs[0], inputs[2]), strict=True):
        found[f"to {side}"] = torch.zeros_like(tensor) if grad is None else grad
    return found


def compare(inputs, dtype, weights=(1.0, 0.7, 1.9), **settings):
    """Triton in its own types against the specification in float64."""
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found = terms_and_gradients(inputs, weights, backend="triton", **settings)
    expected = terms_and_gradients(exact, weights, backend="reference", **settings)
    for name, theirs in expected.items():
        assert_near(name, found[name], theirs, dtype)


@pytest.mark.parametrize("weights", torch.eye(3).tolist(), ids=["intra", "inter", "regulariser"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_term_has_the_gradient_of_the_specification(variant, weights):
    compare(random_inputs((3, 3, 4, 7)), torch.float64, weights, variant=variant)


@pytest.mark.parametrize("dtype", [dtype for dtype in TOLERANCE if dtype not in HALF])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_terms_and_gradients_are_those_of_the_specification(shape, variant, dtype):
    compare(random_inputs(shape, dtype), dtype, variant=variant)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_is_read_and_written_as_such(variant, dtype):
    compare(random_inputs(SHAPES[0], dtype), dtype, variant=variant)


@pytest.mark.parametrize("choices", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("volumes", [1, 2])
def test_each_repair_is_a_switch_of_its_own(choices, volumes):
    names = ("symmetric_regulariser", "clamped_similarity", "inter_needs_two")
    inputs = random_inputs((volumes, 3, 4, 9))
    compare(inputs, torch.float64, **dict(zip(names, choices, strict=True)))


def test_gradients_go_to_the_student_alone():
    inputs = random_inputs((2, 3, 4, 5))
    inputs[4].requires_grad_()
    total = voco_loss(*inputs, backend="triton").total()
    grads = torch.autograd.grad(total, inputs, allow_unused=True)
    assert [grad is not None for grad in grads] == [True, False, True, False, False]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_student_that_equals_its_teacher_has_ties_everywhere(variant):
    inputs = random_inputs((3, 4, 5, 6))
    inputs[1], inputs[3] = inputs[0].detach().clone(), inputs[2].detach().clone()
    compare(inputs, torch.float64, variant=variant)
    inputs[4] = torch.full_like(inputs[4], 1.0)
    inputs[3] = torch.ones_like(inputs[3])
    inputs[0] = torch.ones_like(inputs[0]).requires_grad_()
    # label 1, cosine 1, up to rounding
    assert voco_loss(*inputs, backend="triton", variant=variant).intra.abs() < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", [0.0, 1e-10])
def test_embeddings_shorter_than_the_floor_have_the_gradient_of_the_specification(variant, scale):
    for dtype in (torch.float64, torch.float32):
        inputs = random_inputs((2, 3, 4, 5), dtype)
        for tensor in inputs[:4]:
            tensor.data[0, 1] *= scale
        compare(inputs, dtype, variant=variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_labels_all_zero_or_of_bools_are_taken(variant):
    inputs = random_inputs((2, 3, 4, 5))
    compare([*inputs[:4], torch.zeros_like(inputs[4])], torch.float64, variant=variant)
    labels = inputs[4] > 0
    found = voco_loss(*inputs[:4], labels, variant=variant, backend="triton")
    expected = voco_loss(*inputs[:4], labels.double(), variant=variant, backend="reference")
    torch.testing.assert_close(found.intra, expected.intra)


@pytest.mark.parametrize("clamped", [False, True])
def test_a_cosine_beyond_one_is_clamped_where_asked_and_stays_finite(clamped):
    rows = torch.randn(32, 1, 64)
    none = torch.zeros(32, 1, 1)
    cosines = op._forward_op(rows, rows, rows, rows, none, True, clamped, False)[1][:, 0, 0]
    # which ones is a matter of rounding, and no two devices round alike
    beyond, within = (rows[chosen][:2] for chosen in (cosines > 1, cosines < 1))
    assert len(beyond) == len(within) == 2

    def intra_and_slopes(chosen):
        inputs = [chosen.clone().requires_grad_() for _ in range(4)]
        given = [*inputs, none[:2]]
        settings = {"backend": "triton", "clamped_similarity": clamped}
        all_terms = terms_and_gradients(given, (1, 1, 1), **settings)
        assert all(value.isfinite().all() for value in all_terms.values())
        found = terms_and_gradients(given, (1, 0, 0), **settings)
        return found["intra"], found["to crops"]

    intra, slopes = intra_and_slopes(beyond)
    # of one volume the loss is at most -log(1e-6); of label 0 and cosine 1
    assert (intra <= 13.81552) == clamped
    assert bool((slopes != 0).any()) != clamped
    _, slopes = intra_and_slopes(within)
    assert (slopes != 0).any()


def test_nan_is_not_hidden():
    inputs = random_inputs((3, 2, 4, 5))
    inputs[0].data[1, 0, 2] = torch.nan
    terms = voco_loss(*inputs, backend="triton")
    assert terms.intra.isnan()
    assert terms.inter.isnan()
    assert terms.regulariser.isfinite()
    inputs[2].data[1, 0, 2] = torch.nan
    assert voco_loss(*inputs, backend="triton").regulariser.isnan()


def test_sums_beyond_half_precision_stay_finite():
    inputs = random_inputs((2, 3, 4, 300))
    inputs = [(tensor.detach() * 15000).half().requires_grad_() for tensor in inputs[:4]]
    labels = torch.rand(2, 3, 4)
    found = terms_and_gradients([*inputs, labels], (1.0, 1.0, 1.0), backend="triton")
    assert all(value.isfinite().all() for value in found.values())


def test_strided_embeddings_and_types_that_differ_are_taken():
    inputs = random_inputs((2, 3, 4, 6), torch.float32)
    strided = [tensor.detach().mT.contiguous().mT.requires_grad_() for tensor in inputs[:4]]
    compare([*strided, inputs[4].mT.contiguous().mT], torch.float32)
    mixed = [strided[0].detach().bfloat16().requires_grad_(), *strided[1:], inputs[4]]
    compare(mixed, torch.bfloat16)


def test_autocast_changes_nothing():
    inputs = random_inputs((2, 3, 4, 40), torch.bfloat16)
    plain = voco_loss(*inputs, backend="triton")
    with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
        assert voco_loss(*inputs, backend="triton") == plain
    assert plain.intra.dtype == torch.float32


def test_finite_differences_agree():
    inputs = random_inputs((2, 2, 3, 4))

    def total(crops, bases):
        given = (crops, inputs[1], bases, inputs[3], inputs[4])
        return voco_loss(*given, variant="voco", backend="triton").total(inter=0.5)

    assert torch.autograd.gradcheck(total, (inputs[0], inputs[2]), fast_mode=True)


def test_the_operators_keep_the_rules_of_torch():
    inputs = random_inputs((2, 3, 4, 5), torch.float32)
    choices = (True, True, False)
    torch.library.opcheck(op._forward_op, (*inputs, *choices))
    terms, *saved = (tensor.detach() for tensor in op._forward_op(*inputs, *choices))
    plain = [inputs[place].detach() for place in (0, 2, 3, 4)]
    backward = (torch.ones_like(terms), *plain, *saved, *choices)
    torch.library.opcheck(op._backward_op, backward)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_compiles_into_one_graph(variant):
    inputs = random_inputs((2, 3, 4, 5), torch.float32)

    def total(*given):
        return voco_loss(*given, variant=variant, backend="triton").total()

    learning = (inputs[0], inputs[2])
    expected = torch.autograd.grad(total(*inputs), learning)
    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*inputs), learning)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_more_tiles_than_a_gpu_starts_are_refused():
    crops, bases = torch.ones(1, 1, 1), torch.ones(1, 4096, 1)
    with pytest.raises(ShapeError, match="cosines_kernel was to start 1 x 4 x 65536 programs"):
        voco_loss(crops, crops, bases, bases, torch.zeros(1, 1, 4096), backend="triton")
