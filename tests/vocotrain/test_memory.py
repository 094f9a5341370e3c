"""Keeping freed memory."""

import subprocess
import sys

import pytest

from vocotrain import memory

STEP = """
import sys, resource, numpy
from vocotrain.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("not glibc")
numpy.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    numpy.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", STEP, how], capture_output=True, text=True)
    if "not glibc" in done.stderr:
        pytest.skip("the allocator is not glibc's")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_kept_memory_is_used_again_without_asking_the_system():
    given_back = faults("give back")
    if given_back == 0:
        pytest.skip("this system's allocator keeps freed memory by itself")
    assert faults("keep") * 10 < given_back


def test_where_the_allocator_has_no_such_option_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())
    assert memory.keep_freed_memory() is False
