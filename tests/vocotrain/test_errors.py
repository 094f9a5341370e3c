import inspect
import pickle

import pytest

from vocotrain import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.VocoTrainError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_arrives_whole_from_another_process(kind):
    there = pickle.loads(pickle.dumps(kind("what, where, what to do")))
    assert type(there) is kind
    assert str(there) == "what, where, what to do"


def test_a_stopped_run_has_the_exit_code_a_shell_expects():
    stopped = pickle.loads(pickle.dumps(errors.TrainingStoppedError("stopped", 2)))
    assert (stopped.signal_number, stopped.exit_code) == (2, 130)
