import os
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vocokernels import workers
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


def test_threads_that_begin_while_others_are_made_keep_the_number_of_torch_threads():
    torch.set_num_threads(2)
    seen = []

    def begin():
        together.wait()
        seen.append((worker_count(), *run_shares(lambda _: torch.get_num_threads(), [1, 2])))
        seen.append(torch.get_num_threads())

    for _ in range(10):
        workers._made.cache_clear()
        together = threading.Barrier(5, timeout=20)
        threads = [threading.Thread(target=begin) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(seen) == {(2, 1, 1), 2}


def test_threads_to_come_do_not_get_what_a_caller_took_for_itself():
    torch.set_num_threads(3)
    common = threading.Thread(target=torch.set_num_threads, args=(2,))
    common.start()
    common.join()
    workers._made.cache_clear()
    run_shares(lambda share: share, [1, 2])
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert (torch.get_num_threads(), seen) == (3, [2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_waits_until_threads_are_made_and_makes_its_own():
    torch.set_num_threads(2)
    run_shares(lambda share: share, [1, 2])
    with workers._making:
        # held by another thread, it would be held in the child for ever
        found = []
        forking = threading.Thread(target=lambda: found.append(_forked()), daemon=True)
        forking.start()
        forking.join(0.05)
        assert forking.is_alive()
    forking.join(20)
    assert found == [0]


def _forked():
    """Exit status of a child that shares work among threads."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(run_shares(lambda share: 2 * share, [1, 2]) != [2, 4])
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


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
