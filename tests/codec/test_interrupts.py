"""Interrupts wait where they must, and are not lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from codec.interrupts import held, noted

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals of POSIX")


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """As in a terminal; shells let what they start in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupts_wait_while_they_are_held() -> None:
    """Also one that another thread takes, as a library's do that were started before and block nothing."""
    going, other = threading.Event(), threading.Thread(target=lambda: going.wait(10))
    other.start()
    done = False
    with noted() as came, pytest.raises(KeyboardInterrupt), held():
        assert other.ident
        signal.pthread_kill(other.ident, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        done = True
    going.set()
    other.join()
    assert done and set(came) == {signal.SIGINT}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_interrupts_raise_where_they_are_only_noted() -> None:
    with noted() as came, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    assert came == [signal.SIGINT]
