"""The path for processors against the specification, values and gradients."""

import itertools

import pytest
import torch

from vocokernels import voco_loss

REPAIRS = [
    dict(
        zip(("symmetric_regulariser", "clamped_similarity", "inter_needs_two"), choice, strict=True)
    )
    for choice in itertools.product((False, True), repeat=3)
]


def embeddings(volumes, crops, bases, width, dtype=torch.float64):
    generator = torch.Generator().manual_seed(volumes + crops)

    def draw(rows):
        # cosines of either sign
        return torch.randn(volumes, rows, width, generator=generator, dtype=torch.float64).to(dtype)

    labels = torch.rand(volumes, crops, bases, generator=generator, dtype=torch.float64)
    labels[labels < 0.5] = 0
    return [draw(crops), draw(crops), draw(bases), draw(bases)], labels.to(dtype)


def found(backend, tensors, labels, weights=(1.0, 0.7, 0.3), **repairs):
    students = [tensor.detach().requires_grad_() for tensor in tensors[::2]]
    terms = voco_loss(
        students[0], tensors[1], students[1], tensors[3], labels, backend=backend, **repairs
    )
    total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    return [*terms, *torch.autograd.grad(total, students)]


@pytest.mark.parametrize("repairs", REPAIRS)
@pytest.mark.parametrize("sizes", [(1, 2, 9, 7), (2, 2, 9, 16), (5, 3, 4, 33), (3, 1, 1, 8)])
def test_it_is_the_specification(sizes, repairs):
    tensors, labels = embeddings(*sizes)
    torch.testing.assert_close(
        found("cpu", tensors, labels, **repairs),
        found("reference", tensors, labels, **repairs),
        rtol=1e-11,
        atol=1e-13,
    )


def test_an_embedding_of_zeros_is_like_nothing_and_has_the_same_gradient():
    tensors, labels = embeddings(2, 2, 4, 5)
    tensors[0][0, 1] = 0
    tensors[2][1, 2] = 0
    ours, expected = (found(backend, tensors, labels) for backend in ("cpu", "reference"))
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    tensors, labels = embeddings(3, 2, 9, 64, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = found("cpu", tensors, labels)
    expected = found("reference", tensors, labels)
    assert [tensor.dtype for tensor in ours] == [torch.float32] * 3 + [dtype] * 2
    torch.testing.assert_close(ours[:3], expected[:3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[3:], expected[3:], rtol=1e-2, atol=1e-4)


# the compiler makes an object of an autograd.Function, which torch itself warns of
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_goes_through_the_compiler():
    tensors, labels = embeddings(2, 2, 9, 16)
    students = [tensor.requires_grad_() for tensor in tensors[::2]]

    def call():
        return voco_loss(*tensors, labels, backend="cpu").total()

    compiled = torch.compile(call, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(), students), torch.autograd.grad(call(), students)
    )


def test_embeddings_whose_squares_overflow_are_nan_and_not_alike_nothing():
    tensors, labels = embeddings(2, 2, 9, 16, torch.float32)
    tensors = [tensor * 1e20 for tensor in tensors]
    assert all(tensor.isnan().any() for tensor in found("cpu", tensors, labels))
