"""Processes of a run: begun, recognised, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from byos_run.errors import NodeUnfit
from byos_run.node import members, process, shim
from byos_run.node.process import Program
from byos_run.node.stop import Stop

RUN_ID = "c" * 32


@pytest.fixture
def start(tmp_path):
    """Starts a shell script; returns it running."""

    def go(script, *, environ=None, echo=None, directory=tmp_path):
        return process.start(
            program=Program("/bin/sh", ("sh", "-c", script), {"PATH": os.defpath, **(environ or {})}, directory),
            run_id=RUN_ID,
            log=tmp_path / "solver.log",
            echo=echo,
            library_path="",
        )

    return go


def lines_of(start, script, **more):
    """The running script, once it has printed a line; and that line."""
    reading, writing = os.pipe()
    running = start(script, echo=lambda lines: os.write(writing, lines), **more)
    line = os.read(reading, 4096).decode().strip()
    os.close(reading)
    return running, line


def test_command_runs_to_its_end(start, tmp_path):
    """Its arguments, environment and directory are what they should be; code and output arrive."""
    stop = Stop()
    (tmp_path / "é").mkdir()
    with start('echo "$X in $PWD"; exit 7', environ={"X": "a\nb="}, directory=tmp_path / "é") as running:
        while not running.over:
            running.wait(5, stop=stop)

    assert (running.exit.code, running.exit.signal) == (7, None)
    assert (tmp_path / "solver.log").read_bytes() == f"a\nb= in {tmp_path / 'é'}\n".encode()


def test_arguments_that_are_no_utf8_arrive(tmp_path):
    name = os.fsdecode(b"\xff\xfe")
    program = Program("/bin/echo", ("echo", name), {}, tmp_path)
    with process.start(program=program, run_id=RUN_ID, log=tmp_path / "log", echo=None, library_path="") as running:
        running.wait(5, stop=Stop())

    assert (tmp_path / "log").read_bytes() == b"\xff\xfe\n"


def test_large_environment_arrives(start):
    """More than a pipe holds."""
    many = {f"NAME_{number}": "x" * 100 for number in range(5000)}
    with start("env | grep -c ^NAME_", environ=many) as running:
        running.wait(10, stop=Stop())

    assert running.pump.tail() == b"5000\n"


def children() -> set[int]:
    """Our own living children: a worker of the tests may have servers."""
    return {each.pid for each in map(shim.kin, shim.pids()) if each and each.alive and each.parent == os.getpid()}


def test_file_that_cannot_be_executed_leaves_nothing(tmp_path):
    program = Program("/no/such/file", ("x",), {}, tmp_path)
    before = children()
    with pytest.raises(FileNotFoundError):
        process.start(program=program, run_id=RUN_ID, log=tmp_path / "log", echo=None, library_path="")

    assert children() == before


def test_interpreter_that_does_not_start_is_told(start, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(NodeUnfit, match="supervising process did not start"):
        start("true")


def test_signals_that_were_ignored_at_our_start_stay_ignored_for_the_solver(start):
    """nohup: HUP stays ignored; the pipe's signal, which Python ignores for itself, is back at its default."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with start("grep SigIgn /proc/self/status") as running:
            running.wait(5, stop=Stop())
    finally:
        signal.signal(signal.SIGHUP, before)
    ignored = int(running.pump.tail().split()[1], 16)

    assert ignored & 1 << signal.SIGHUP - 1
    assert not ignored & 1 << signal.SIGPIPE - 1


def test_solver_inherits_no_descriptor_of_ours(start):
    """Standard input, output, error, and the one that reads the directory."""
    with start("ls /proc/self/fd | wc -l") as running:
        running.wait(5, stop=Stop())

    assert running.pump.tail().strip() == b"4"


def test_members_are_known_by_ancestry_or_by_mark(start):
    """One lost its parents, one lost its environment, one lost both; a stranger is not among them."""
    stranger = subprocess.Popen(["sleep", "600"])
    script = "(setsid sleep 601 &); env -i sleep 602 & (setsid env -i sleep 603 &); sleep 0.2; echo ready; wait"
    running, _ = lines_of(start, script)
    with running:
        found = running.processes()
        names = sorted(Path(f"/proc/{each.pid}/cmdline").read_bytes() for each in found)
        stranger_alive = stranger.poll() is None
    stranger_survived = stranger.poll() is None
    stranger.kill()
    stranger.wait()

    assert names[1:] == [b"sleep\x00601\x00", b"sleep\x00602\x00", b"sleep\x00603\x00"]
    assert len(found) == 4
    assert stranger_alive
    assert stranger_survived
    assert not [each for each in found if shim.kin(each.pid)]


def test_shim_killed_and_marks_lost_is_still_ended(start):
    """Orphans that come to us from the dead shim are known by their session; our own child is not touched."""
    own = subprocess.Popen(["sleep", "604"])
    running, _ = lines_of(start, "(setsid env -i sleep 605 &); sleep 0.2; echo ready; exec sleep 606")
    with running:
        members = running.processes()
        os.kill(running.shim, signal.SIGKILL)
    survived = own.poll() is None
    own.kill()
    own.wait()

    assert len(members) == 2
    assert not [each for each in members if shim.kin(each.pid)]
    assert survived
    assert running.exit.code is None
    assert running.exit.signal is None


def test_children_of_our_own_are_not_of_the_run(start):
    """A process that we started before, in a session of its own, is not taken for an orphan of the shim."""
    own = subprocess.Popen(["sleep", "608"], start_new_session=True)
    running, _ = lines_of(start, "echo ready; exec sleep 609")
    with running:
        members = running.processes()
    survived = own.poll() is None
    own.kill()
    own.wait()

    assert own.pid not in {each.pid for each in members}
    assert survived


def test_output_ends_though_a_stranger_keeps_it_open(start):
    """Our log must end with the run even if somebody who is not of it was given its other end."""
    running, line = lines_of(start, "echo $$; exec sleep 607")
    foreign = os.open(f"/proc/{line}/fd/1", os.O_WRONLY)
    with running:
        pass
    os.close(foreign)

    assert running.exit.signal == signal.SIGKILL


def test_zombie_is_not_alive():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    alive = shim.kin(child).alive
    os.waitpid(child, 0)

    assert not alive
    assert shim.kin(child) is None


def test_process_whose_first_thread_has_ended_is_alive():
    """Its state reads Z, and its other threads go on writing."""
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (print('on', flush=True), time.sleep(600))).start()\n"
        "time.sleep(0.1)\n"
        "ctypes.CDLL(None).syscall(60, 0) if __import__('platform').machine() == 'x86_64' "
        "else ctypes.CDLL(None).syscall(93, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        while "Z" not in Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            assert child.poll() is None
        alive = shim.kin(child.pid).alive
        child.kill()

    assert alive


def test_names_with_blanks_and_brackets_are_read(tmp_path):
    file = tmp_path / "a) S 1 (b"
    file.symlink_to("/bin/sleep")
    with subprocess.Popen([str(file), "600"]) as child:
        each = shim.kin(child.pid)
        child.kill()

    assert (each.name, each.parent, each.session) == ("a) S 1 (b", os.getpid(), os.getsid(0))


PRIVATE = """
import os, sys
from byos_run.node import members, process
if os.getuid() == 0:
    os.setuid(65534)
process.make_private()
print(members.marker("a"), os.listdir("/proc/self/fd") != [], flush=True)
sys.stdin.read()
"""


def test_nobody_of_our_own_uid_may_read_us():
    """Another process of the same user can open neither our memory nor our environment; we ourselves still can work."""
    agent = subprocess.Popen(
        [sys.executable, "-c", PRIVATE],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "AWS_SECRET_ACCESS_KEY": "s3cret"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with agent:
        line = agent.stdout.readline().split()
        spy = (
            "import os\nif os.getuid() == 0: os.setuid(65534)\nfor name in ('environ', 'mem', 'maps'):\n"
            f"    try: open(f'/proc/{agent.pid}/{{name}}', 'rb').read(1); print('read', name)\n"
            "    except PermissionError: pass\n"
        )
        seen = subprocess.run([sys.executable, "-c", spy], check=True, capture_output=True)
        agent.stdin.close()

    assert line[1] == b"True"
    assert len(line[0].split(b":")) == 5
    assert seen.stdout == b""


def test_leftovers_of_a_dead_agent_are_ended_and_a_living_ones_are_not(start):
    """The next start on this node: what carries the mark of an agent that is no more goes; a neighbour's does not."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    mark = members.marker(RUN_ID).split(":")
    left = subprocess.Popen(["sleep", "608"], env={members.MARKER: ":".join([RUN_ID, str(dead.pid), "1", *mark[3:]])})
    other_boot = subprocess.Popen(["sleep", "609"], env={members.MARKER: f"{RUN_ID}:{dead.pid}:1:other-boot:{mark[4]}"})
    running, _ = lines_of(start, "echo ready; exec sleep 610")
    with running:
        ended = process.end_leftovers()
        untouched = len(running.processes()) == 1 and other_boot.poll() is None
    other_boot.kill()
    other_boot.wait()

    assert left.wait() == -signal.SIGKILL
    assert left.pid in [each.pid for each in ended]
    assert untouched
