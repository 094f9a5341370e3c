import os
import signal
import threading
import time

import pytest

from vocotrain.stop_signal import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish(number):
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number == 0
        os.kill(os.getpid(), number)
        assert stop.number == number
    assert signal.getsignal(number) is before


@pytest.fixture
def interrupting():
    """SIGINT as Python has it; a shell starts what it runs in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupting")
def test_the_second_signal_acts_at_once():
    def send_twice(stop):
        os.kill(os.getpid(), signal.SIGINT)
        # another thread may have taken it, and two at once count as one
        while not stop.number:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        send_twice(stop)


def test_another_thread_listens_to_nothing():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with StopSignal():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]
