"""Standard output that blocks nobody."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
import time

import pytest

from byos_run.node.outlet import Outlet

MIB = 1 << 20


@pytest.fixture(params=["pipe", "socket"])
def ends(request):
    """Reading and writing descriptor of something that fills up."""
    if request.param == "pipe":
        reading, writing = os.pipe()
        opened = []
    else:
        opened = list(socket.socketpair())
        reading, writing = (each.fileno() for each in opened)
    yield reading, writing
    for each in opened:
        each.close()
    if not opened:
        for descriptor in (reading, writing):
            try:
                os.close(descriptor)
            except OSError:  # the test has closed it
                continue


def read_all(descriptor):
    os.set_blocking(descriptor, False)
    pieces = []
    try:
        while piece := os.read(descriptor, MIB):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


def test_reader_gets_all_in_order(ends):
    outlet = Outlet(ends[1])
    outlet.write(b"one\ntwo\n")
    outlet.write(b"three\n")
    outlet.close(within_s=1)

    assert read_all(ends[0]) == b"one\ntwo\nthree\n"
    assert outlet.lost_lines == 0


def test_reader_who_sleeps_blocks_nobody_and_is_told_what_he_missed(ends):
    """8 MiB to a reader that takes none of it: at most 1 MiB waits, the rest is counted; he wakes and is told."""
    outlet = Outlet(ends[1])
    lines = b"x" * 1023 + b"\n"
    began = time.monotonic()
    for _ in range(8192):
        outlet.write(lines)

    assert time.monotonic() - began < 30
    lost = outlet.lost_lines
    assert 8192 - 3072 < lost < 8192

    seen = read_all(ends[0])
    while True:
        outlet.tend()
        more = read_all(ends[0])
        seen += more
        if not more:
            break
    outlet.write(b"awake\n")
    outlet.close(within_s=1)
    seen += read_all(ends[0])
    assert seen.endswith(b"byos-run | %d lines are missing here: the reader is too slow\nawake\n" % lost)
    assert seen.count(b"\n") == 8192 - lost + 2
    assert outlet.lost_lines == lost


def test_reader_who_is_gone_is_no_error(ends):
    """EPIPE: everything is dropped from then on."""
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    os.close(reading)
    outlet.write(b"one\ntwo\n")
    outlet.write(b"three\n")
    outlet.close(within_s=1)
    os.close(writing)

    assert (outlet.broken, outlet.lost_lines) == (True, 3)


def test_output_that_was_closed_before_the_start_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    outlet = Outlet(writing)
    outlet.write(b"one\n")
    outlet.close(within_s=1)

    assert outlet.lost_lines == 1


def test_full_disk_under_the_output_is_no_error():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(descriptor)
    outlet.write(b"one\n")
    outlet.close(within_s=1)
    os.close(descriptor)

    assert outlet.lost_lines == 1


def test_others_who_share_the_pipe_still_wait_for_their_reader():
    """Not blocking is ours alone: the flag is not set on what our parent handed us."""
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    outlet.write(b"one\n")

    assert not fcntl.fcntl(writing, fcntl.F_GETFL) & os.O_NONBLOCK
    outlet.close(within_s=0)
    os.close(reading)
    os.close(writing)


def test_terminal_that_is_held_blocks_nobody():
    """Nobody reads the terminal's other side, as after Ctrl-S."""
    master, slave = pty.openpty()
    outlet = Outlet(slave)
    began = time.monotonic()
    for _ in range(4096):
        outlet.write(b"x" * 1023 + b"\n")
    outlet.close(within_s=0.1)

    assert time.monotonic() - began < 30
    assert outlet.lost_lines > 1000
    os.close(slave)
    os.close(master)


def test_file_is_appended_to_where_it_stands(tmp_path):
    """The platform's own log may hold lines already; it is neither opened anew nor overwritten."""
    file = tmp_path / "process_output.log"
    with file.open("wb", buffering=0) as stream:
        stream.write(b"before\n")
        outlet = Outlet(stream.fileno())
        outlet.write(b"after\n")
        outlet.close(within_s=1)

    assert file.read_bytes() == b"before\nafter\n"


def test_close_does_not_wait_for_ever(ends):
    outlet = Outlet(ends[1])
    for _ in range(1024):
        outlet.write(b"x" * 1023 + b"\n")
    began = time.monotonic()
    outlet.close(within_s=0.2)

    assert time.monotonic() - began < 30
    assert outlet.lost_lines > 0
