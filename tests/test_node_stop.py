"""Signals that come when Python's main thread cannot run their handlers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

WAITS = """
import signal, threading
from byos_run.node.stop import Stop, hear_signals
stop, lock = Stop(), threading.Lock()
hear_signals(stop, [signal.SIGTERM, signal.SIGHUP])
def other():
    for number in {numbers}:  # to this thread: the main thread sleeps on, as if the signal had come just before it went to
        signal.pthread_kill(threading.get_ident(), number)
    for _ in range({waits}):
        stop.wait(60)
    print(stop.asked, stop.cut, stop.reason, flush=True)
    lock.release()
lock.acquire()
threading.Thread(target=other).start()
lock.acquire()
"""


@pytest.mark.parametrize(
    ("numbers", "waits", "heard"),
    [
        ([signal.SIGTERM], 1, "True False SIGTERM"),
        ([signal.SIGHUP, signal.SIGTERM], 2, "True True SIGHUP"),
        ([signal.SIGTERM, signal.SIGTERM], 1, "True False SIGTERM"),
    ],
    ids=["one", "two", "two-of-a-kind"],
)
def test_a_signal_is_heard_while_the_main_thread_waits_for_a_lock(numbers, waits, heard):
    """Python alone would answer it when the lock is free."""
    script = WAITS.format(numbers=[int(number) for number in numbers], waits=waits)
    ran = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True,
        timeout=100, check=True,
    )  # fmt: skip
    assert f"{heard}\n" == ran.stdout
