import pytest
import torch

from tests.vocokernels.interpreted.tolerances import TOLERANCE, assert_near
from vocokernels import crop_similarity
from vocokernels.crop_similarity import kernel
from vocokernels.errors import ShapeError

# B, N, K, D; 16 is a tile of crops or bases, 32 one of channels
SHAPES = [(2, 3, 5, 70), (1, 20, 18, 33), (3, 17, 1, 6)]


def random_embeddings(shape, dtype=torch.float64):
    B, N, K, D = shape
    return [torch.randn(B, rows, D, dtype=dtype).requires_grad_() for rows in (N, K)]


def value_and_gradients(inputs, grad, **settings):
    found = crop_similarity(*inputs, **settings)
    return [found, *torch.autograd.grad(found, inputs, grad.to(found.dtype))]


def compare(inputs, dtype):
    """Triton in its own types against the specification in float64."""
    grad = torch.randn(*inputs[0].shape[:2], inputs[1].shape[1], dtype=torch.float64)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found = value_and_gradients(inputs, grad, backend="triton")
    expected = value_and_gradients(exact, grad, backend="reference")
    for name, ours, theirs in zip(("value", "crops", "bases"), found, expected, strict=True):
        assert_near(name, ours, theirs, dtype)
    assert [t.dtype for t in found[1:]] == [t.dtype for t in inputs]


def test_memory_that_nobody_wrote_is_nan():
    assert torch.zeros(1).new_empty(7).isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_specification(shape, dtype):
    compare(random_embeddings(shape, dtype), dtype)


def test_strided_embeddings_and_types_that_differ_are_taken():
    crops = torch.randn(2, 6, 5, dtype=torch.float32).mT[:, ::2].requires_grad_()
    bases = torch.randn(4, 2, 12).half().transpose(0, 1)[..., ::2].requires_grad_()
    compare([crops, bases], torch.float16)


def test_finite_differences_agree():
    inputs = random_embeddings((1, 2, 3, 2))

    def similarity(*given):
        return crop_similarity(*given, backend="triton")

    assert torch.autograd.gradcheck(similarity, inputs, fast_mode=True)


@pytest.mark.parametrize("scale", [0.0, 1e-10])
def test_embeddings_shorter_than_the_floor_have_the_gradient_of_the_specification(scale):
    for dtype in (torch.float64, torch.float32):
        inputs = random_embeddings((2, 3, 4, 5), dtype)
        for tensor in inputs:
            tensor.data[0, 1] *= scale
        compare(inputs, dtype)


def test_a_zero_embedding_is_like_nothing():
    inputs = random_embeddings((2, 3, 4, 5))
    for tensor in inputs:
        tensor.data[0, 1] = 0
    found = crop_similarity(*inputs, backend="triton")
    assert not found[0, 1].any()
    assert not found[0, :, 1].any()


def test_sums_beyond_half_precision_stay_finite():
    inputs = [torch.full((1, rows, 300), 60000.0).half().requires_grad_() for rows in (2, 3)]
    assert crop_similarity(*inputs, backend="triton").flatten().tolist() == pytest.approx([1.0] * 6)
    compare(random_embeddings((1, 2, 3, 300), torch.float16), torch.float16)


def test_nan_stays_where_it_is():
    crops, bases = (tensor.detach() for tensor in random_embeddings((1, 3, 4, 5)))
    crops[0, 1, 2] = torch.nan
    found = crop_similarity(crops, bases, backend="triton")
    assert found[0, 1].isnan().all()
    assert found[0, [0, 2]].isfinite().all()


def test_autocast_changes_nothing():
    inputs = random_embeddings((2, 3, 4, 40), torch.float32)
    plain = crop_similarity(*inputs, backend="triton")
    with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
        assert torch.equal(crop_similarity(*inputs, backend="triton"), plain)


def test_the_operators_keep_the_rules_of_torch():
    inputs = random_embeddings((2, 3, 4, 5), torch.float32)
    torch.library.opcheck(kernel._forward_op, inputs)
    saved = [tensor.detach() for tensor in kernel._forward_op(*inputs)]
    plain = [tensor.detach() for tensor in inputs]
    backward = (torch.ones_like(saved[0]), saved[0], *plain, *saved[1:])
    torch.library.opcheck(kernel._backward_op, backward)


def test_it_compiles_into_one_graph():
    inputs = random_embeddings((2, 3, 4, 5), torch.float32)

    def loss(crops, bases):
        return crop_similarity(crops, bases, backend="triton").square().sum()

    expected = torch.autograd.grad(loss(*inputs), inputs)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*inputs), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_second_derivative_is_refused():
    inputs = random_embeddings((1, 2, 3, 4))
    found = crop_similarity(*inputs, backend="triton").square().sum()
    (grad,) = torch.autograd.grad(found, inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        grad.sum().backward()


def test_more_tiles_than_a_gpu_starts_are_refused():
    few, many = torch.ones(1, 1, 1), torch.ones(1, 16 * 65_535 + 1, 1)
    for crops, bases in ((few, many), (many, few)):
        with pytest.raises(ShapeError, match=r"similarity_fwd_kernel was to start .*65536"):
            crop_similarity(crops, bases, backend="triton")
    wide, one = torch.ones(1, 1, 32 * 65_535 + 1), torch.ones(1, 1)
    with pytest.raises(ShapeError, match="similarity_bwd_kernel was to start 1 x 1 x 65536"):
        kernel._backward_op(few, few, wide, wide, one, one)
