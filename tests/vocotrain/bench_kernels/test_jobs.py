import torch

from vocotrain.bench_kernels.jobs import fixed_weights


def test_the_sum_over_all_tokens_of_a_step_stays_within_float16():
    # one channel of 22 maps of 32^3, as a bias adds them up; half of that is left for what follows
    weights = fixed_weights(torch.empty(22 * 32**3))
    assert weights.sum().abs() < 0.5 * torch.finfo(torch.float16).max
    # and not because they cancel one another: the sum of as many throws of a coin
    assert weights.sum().abs() > 20


def test_weights_are_the_same_at_each_call_and_none_is_small():
    first, second = (fixed_weights(torch.empty(5, 7)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.unique().numel() == first.numel()
    assert first.abs().min() >= 1
    assert fixed_weights(torch.empty(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
