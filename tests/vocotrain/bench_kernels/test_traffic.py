import torch

from vocotrain.bench_kernels.traffic import Traffic, distinct_bytes


def test_an_operation_reads_its_inputs_and_writes_its_output():
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    with Traffic() as traffic:
        a @ b
    assert traffic.moved_bytes == 4 * (32 + 16 + 8)
    assert traffic.by_operation == {"aten::mm": 4 * 56}


def test_views_and_allocations_move_nothing():
    a = torch.ones(4, 8)
    with Traffic() as traffic:
        a.t().view(2, 4, 4)[0].detach().expand(3, 4, 4).permute(1, 2, 0)
        torch.empty(100)
        a.new_empty(100)
    assert traffic.moved_bytes == 0


def test_a_copy_of_a_view_is_read_and_written():
    a = torch.ones(4, 8)
    with Traffic() as traffic:
        a.t().contiguous()
    assert traffic.moved_bytes == 2 * 4 * 32


def test_what_is_written_in_place_counts():
    a, b = torch.ones(8), torch.ones(8)
    with Traffic() as traffic:
        a.add_(b)
    # a and b read, a written
    assert traffic.moved_bytes == 3 * 4 * 8


def test_repeated_numbers_count_once():
    wide = torch.ones(5, 1).expand(5, 1000)
    assert distinct_bytes(wide) == 4 * 5
    with Traffic() as traffic:
        wide.sum()
    assert traffic.moved_bytes == 4 * (5 + 1)


def test_gradients_are_counted_too():
    x = torch.ones(10, requires_grad=True)
    out = x.exp()
    with Traffic() as traffic:
        torch.autograd.grad(out, x, torch.ones(10))
    # the gradient and the result are read, their product is written
    assert traffic.by_operation["aten::mul"] == 3 * 4 * 10
