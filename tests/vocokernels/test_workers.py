import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocokernels.workers import MOST_WORKERS, run_shares, share_out, worker_count


@given(st.lists(st.integers(0, 100)), st.integers(1, 9))
def test_shares_hold_each_item_once_and_none_is_empty(costs, shares):
    found = share_out(list(range(len(costs))), costs, shares=shares)
    assert sorted(item for share in found for item in share) == list(range(len(costs)))
    assert all(found)
    assert len(found) <= shares


@given(st.lists(st.integers(1, 100), min_size=1), st.integers(1, 9))
def test_no_share_exceeds_the_mean_by_more_than_one_item(costs, shares):
    found = share_out(costs, costs, shares=shares)
    assert max(map(sum, found)) <= sum(costs) / shares + max(costs)


def test_each_share_runs_in_a_thread_of_its_own_with_one_torch_thread():
    together = threading.Barrier(3, timeout=20)

    def task(share):
        together.wait()
        return share * 2, threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    torch.set_num_threads(2)
    found = run_shares(task, [1, 2, 3])
    assert [result for result, *_ in found] == [2, 4, 6]
    assert len({thread for _, thread, *_ in found} - {threading.get_ident()}) == 3
    assert {(threads, grad) for *_, threads, grad in found} == {(1, False)}
    assert torch.get_num_threads() == 2


def test_threads_to_come_keep_the_number_of_torch_threads():
    torch.set_num_threads(2)
    run_shares(lambda share: share, [1, 2])
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2]


def test_one_share_runs_here():
    assert run_shares(lambda _: threading.get_ident(), ["all"]) == [threading.get_ident()]


def test_an_error_of_a_share_is_raised_here():
    def task(share):
        return 1 / share

    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        run_shares(task, [1, 0])


def test_workers_are_as_many_as_torch_threads_within_reason():
    torch.set_num_threads(2)
    assert worker_count() == 2
    assert MOST_WORKERS >= 2


@pytest.mark.parametrize("shares", [1, 2])
def test_memory_made_in_inference_mode_can_be_filled(shares):
    torch.set_num_threads(2)
    with torch.inference_mode():
        target = torch.zeros(shares)
        run_shares(lambda at: target[at].fill_(1.0), list(range(shares)))
        assert torch.equal(target, torch.ones(shares))
    kept = torch.zeros(shares)
    # of no inference mode that a thread had before
    made = run_shares(lambda at: kept[at] + 1.0, list(range(shares)))
    assert not any(tensor.is_inference() for tensor in made)
