import pytest
import torch

from vocokernels import crop_similarity
from vocokernels.errors import DtypeError, ShapeError


def test_values_are_those_of_torch():
    crops, bases = torch.randn(3, 5, 7), torch.randn(3, 4, 7)
    expected = torch.nn.functional.cosine_similarity(crops[:, :, None], bases[:, None], dim=-1)
    torch.testing.assert_close(crop_similarity(crops, bases), expected)


def test_finite_differences_agree():
    crops = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    bases = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(crop_similarity, (crops, bases))


def test_a_zero_embedding_is_like_nothing_and_has_finite_gradients():
    crops = torch.zeros(1, 1, 3, requires_grad=True)
    bases = torch.randn(1, 2, 3, requires_grad=True)
    found = crop_similarity(crops, bases)
    found.sum().backward()
    assert found.tolist() == [[[0.0, 0.0]]]
    assert torch.isfinite(crops.grad).all()
    assert bases.grad.tolist() == torch.zeros(1, 2, 3).tolist()


def test_half_precision_is_computed_in_float32_also_under_autocast():
    crops, bases = torch.randn(2, 3, 64).bfloat16(), torch.randn(2, 4, 64).bfloat16()
    expected = crop_similarity(crops.float(), bases.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = crop_similarity(crops, bases)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("crops", "bases"),
    [((2, 3, 5), (3, 4, 5)), ((2, 3, 5), (2, 4, 6)), ((2, 5), (2, 5)), ((2, 0, 5), (2, 4, 5))],
)
def test_embeddings_that_do_not_belong_together_are_refused(crops, bases):
    with pytest.raises(ShapeError, match=r"do not belong together; expected \(B, N, D\)"):
        crop_similarity(torch.zeros(crops), torch.zeros(bases))


def test_integer_embeddings_are_refused():
    with pytest.raises(DtypeError, match=r"bases are torch\.int64; expected a floating type"):
        crop_similarity(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))
