"""The process between byos-run and the launcher, so that nothing of a run outlives it.

Run as a program of its own, ``python -EsS shim.py STATUS CONTROL AGENT`` (two descriptors and a pid), standard library only:

    read what to run from standard input
    adopt every orphan of the run (subreaper), be readable by nobody (not dumpable), hear of the agent's death (PDEATHSIG)
    start the launcher: a process group of its own, standard input /dev/null, TERM when this process dies
    reap all that ends; say on STATUS how the launcher began and ended
    when CONTROL is closed or the agent is gone: TERM, a second, KILL until nothing of the run lives;
    then the shared memory that it had mapped goes, unless somebody else has it mapped

Signals that reach the whole job (``scancel``) are the agent's to answer; this process stays until the agent is gone.
The upper half reads ``/proc`` and is shared with ``node.process``.

Not promised: a process in uninterruptible sleep is given half a minute, then left.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36

_POLITE_S = 1.0
_UNKILLABLE_S = 30.0


class Kin(NamedTuple):
    """A process as ``/proc/PID/stat`` tells it. *pid* and *start_ticks* together are never used twice in one boot."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    """Clock ticks from the boot to the process's start."""
    name: str
    """At most 15 bytes."""
    alive: bool
    """Not a zombie; or one whose other threads go on."""


def read_small(path: str) -> bytes:
    """The whole of a file of ``/proc``; b"" if it is gone or not ours to read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    pieces = []
    try:
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    except OSError:  # the process ended between open and read
        return b""
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def kin(pid: int | str) -> Kin | None:
    """The process *pid*, or None if there is none. ``"self"`` is allowed."""
    text = read_small(f"/proc/{pid}/stat")
    head, _, rest = text.rpartition(b")")  # the name may hold blanks and brackets
    fields = rest.split()
    if len(fields) < 20:
        return None
    number, _, name = head.partition(b" (")
    alive = fields[0] not in (b"Z", b"X") or int(fields[17]) > 1
    return Kin(
        int(number), int(fields[1]), int(fields[3]), int(fields[19]), name.decode("utf-8", "backslashreplace"), alive
    )


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def shared_memory(pid: int) -> set[bytes]:
    """Paths below /dev/shm that *pid* has mapped."""
    lines = read_small(f"/proc/{pid}/maps").split(b"\n")
    return {b"/dev/shm/" + line.partition(b" /dev/shm/")[2] for line in lines if b" /dev/shm/" in line}


def descendants(table: Mapping[int, Kin], roots: Iterable[int]) -> set[int]:
    """Pids of *table* below *roots*, the roots not among them."""
    children: dict[int, list[int]] = {}
    for each in table.values():
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def prctl(option: int, value: int) -> None:
    """Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# ---------------------------------------------------------------- the program


def _living() -> list[int]:
    table = {each.pid: each for each in map(kin, pids()) if each is not None}
    return [pid for pid in descendants(table, [os.getpid()]) if table[pid].alive]


def _signal(numbers: Iterable[int], which: int) -> None:
    for pid in numbers:
        try:
            os.kill(pid, which)
        except (ProcessLookupError, PermissionError):
            continue


def _unlink(segment: bytes) -> None:
    """Nobody else is left to do it: the agent, whose work it would be, is dead."""
    try:
        status = os.lstat(segment)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            os.unlink(segment)
    except OSError:  # gone, or marked as deleted already
        return


class _Shim:
    def __init__(self, *, status: int, control: int, agent: int) -> None:
        self._status = status
        self._control = control
        self._agent = agent
        self._launcher = 0

    def run(self) -> None:
        for descriptor in (self._status, self._control):
            os.set_inheritable(descriptor, False)  # in the launcher's hands they would hide this process's death
        wake_in, wake_out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, *_FORWARDED):
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored before us stays so for the solver: nohup
                signal.signal(number, lambda *_: None)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        self._start(sys.stdin.buffer.read().split(b"\0"))
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_in, select.POLLIN)
        while os.getppid() == self._agent:
            if any(descriptor == self._control for descriptor, _ in poll.poll()):
                break
            os.read(wake_in, 4096)
            self._reap()
        self._end()

    def _start(self, fields: list[bytes]) -> None:
        """*fields*: path, directory, number of arguments, the arguments, then NAME=value pairs."""
        path, directory, count = fields[0], fields[1], int(fields[2])
        arguments = fields[3 : 3 + count]
        environ = dict(pair.split(b"=", 1) for pair in fields[3 + count :])
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        fault_in, fault_out = os.pipe2(os.O_CLOEXEC)
        shim = os.getpid()
        self._launcher = os.fork()
        if self._launcher == 0:
            _become(path=path, arguments=arguments, environ=environ, directory=directory, shim=shim, fault=fault_out)
        os.close(fault_out)
        fault = os.read(fault_in, 16)
        os.dup2(null, 1)  # what is left open here would keep the solver's output from ending
        os.dup2(null, 2)
        self._say(b"failed " + fault if fault else b"started %d" % self._launcher)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._launcher:
                self._say(b"ended %d %d" % (os.waitstatus_to_exitcode(status), used.ru_maxrss))

    def _say(self, line: bytes) -> None:
        try:
            os.write(self._status, line + b"\n")
        except BrokenPipeError:  # the agent is gone; the loop sees it
            return

    def _end(self) -> None:
        living = _living()
        left = set().union(*map(shared_memory, living))
        _signal(living, signal.SIGTERM)
        until = time.monotonic() + _POLITE_S
        while _living() and time.monotonic() < until:
            time.sleep(0.01)
            self._reap()
        until = time.monotonic() + _UNKILLABLE_S
        quiet = 0
        while quiet < 2 and time.monotonic() < until:  # twice: a fork may slip past one look
            living = _living()
            quiet = 0 if living else quiet + 1
            _signal(living, signal.SIGKILL)
            time.sleep(0.002)
            self._reap()
        if left:
            left -= set().union(*map(shared_memory, pids()))
        for path in left:
            _unlink(path)


_FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU,
)  # fmt: skip


def _become(
    *, path: bytes, arguments: list[bytes], environ: dict[bytes, bytes], directory: bytes, shim: int, fault: int
) -> NoReturn:
    """The launcher, in the forked child. What fails is written to *fault* as an errno."""
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; a solver expects the default
            signal.signal(number, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != shim:
            os.kill(os.getpid(), signal.SIGKILL)
        os.chdir(directory)
        os.execve(path, arguments, environ)  # noqa: S606 - a shell is what the user asks for or does not get
    except OSError as error:
        os.write(fault, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


if __name__ == "__main__":
    _Shim(status=int(sys.argv[1]), control=int(sys.argv[2]), agent=int(sys.argv[3])).run()
