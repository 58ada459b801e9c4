"""One command and all that it starts: begun, watched, ended, and nothing of it left.

    start: pipes, the shim (``node.shim``), through it the launcher; one thread drains the output (``node.pump``)
    processes: who is of the run, by ``node.members``
    end: KILL, look again, until nobody lives; then the shim and the thread end

Not promised: the end of a process in uninterruptible sleep; it is told, and not waited for.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable

from byos_run.errors import NodeUnfit
from byos_run.model import Stop
from byos_run.node import shim
from byos_run.node.members import MARKER, Census, marker, orphans_of_dead_runs
from byos_run.node.pump import Pump
from byos_run.node.shim import Kin

_F_SETPIPE_SZ = 1031
_PIPE_BYTES = 1 << 20
_START_S = 30.0
_KILL_S = 30.0


@dataclass(frozen=True)
class Program:
    """What is to run. *path* is the file to execute; ``arguments[0]`` is the name it is called by."""

    path: str
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class Exit:
    """How the launcher ended: by *code*, or by *signal*. Neither is known if the shim was killed before."""

    code: int | None
    signal: int | None
    largest_bytes: int
    """Resident set of the largest process below the launcher, over its life; 0 if not known, never below the shim's."""
    monotonic_s: float

    @property
    def is_known(self) -> bool:
        return self.code is not None or self.signal is not None


def make_private() -> None:
    """No other process of our uid may read this one's memory or environment, nor may it leave a core."""
    shim.prctl(shim.PR_SET_DUMPABLE, 0)


class Running:
    """The command, between its start and the end of all that it started. Made by :func:`start`, used with ``with``."""

    def __init__(self, *, child: subprocess.Popen[bytes], status: int, control: int, pump: Pump, mark: str) -> None:
        self._child = child
        self._status = status
        self._control = control
        self._heard = b""
        self._census = Census(root=child.pid, mark=mark)
        self._thread = threading.Thread(target=pump.run, name="solver-output", daemon=True)
        self.pump = pump
        self.shim = child.pid
        """Pid of the process that adopts the run's orphans."""
        self.launcher = 0
        """Pid of the launcher, which leads a process group of the same number."""
        self.exit: Exit | None = None
        """How the launcher ended; None while it lives."""
        self.started_monotonic_s = 0.0
        self.started_at = 0.0
        """Seconds since 1970 UTC."""
        self.survivors: tuple[Kin, ...] = ()
        """Who was left after the end: unkillable, or not ours to kill."""
        self._thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def await_start(self) -> None:
        """Raises NodeUnfit if the command could not be executed; then nothing of it is left."""
        self._listen(_START_S, until=b"\n")
        word, _, rest = self._heard.partition(b"\n")[0].partition(b" ")
        if word == b"started":
            self.launcher = int(rest)
            self.started_monotonic_s, self.started_at = time.monotonic(), time.time()
            return
        self.end()
        if word == b"failed":
            raise OSError(int(rest), os.strerror(int(rest)))
        raise NodeUnfit("the supervising process did not start: " + self.pump.tail().decode("utf-8", "replace")[-200:])

    def wait(self, seconds: float, *, stop: Stop) -> None:
        """Wait *seconds*, or until the launcher ends, or the wish to stop grows stronger."""
        if self.exit is None:
            stop.wait(seconds, also=self._status)
            self._listen(0)
        else:
            stop.wait(seconds)

    @property
    def over(self) -> bool:
        """The launcher has ended."""
        return self.exit is not None

    def processes(self) -> tuple[Kin, ...]:
        """Every living process of the run but the shim. From any thread."""
        return self._census.take()

    @property
    def seen(self) -> frozenset[int]:
        """Pids of the run as the last look found them. Costs nothing; from any thread."""
        return self._census.seen

    def signal(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            _send(pid, number)

    def signal_launcher_group(self, number: int) -> None:
        """For launchers that are shell scripts: their own children are in their group, the ranks are not."""
        signal_group(self.launcher, number)

    def kill_all(self) -> None:
        """KILL until nobody is left, looked at twice; who is still there after half a minute is in ``survivors``."""
        until = time.monotonic() + _KILL_S
        pause_s, quiet = 0.001, 0
        ended: set[int] = set()
        while quiet < 2 and time.monotonic() < until:
            self.survivors = self._census.take(afresh=True)
            ended.update(self._census.seen)  # also who died of the shim's death before we looked
            quiet = 0 if self.survivors else quiet + 1
            for each in self.survivors:
                _send(each.pid, signal.SIGKILL)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.1)
            for pid in ended:
                _reap(pid)

    def end(self) -> None:
        """Nothing of the run lives afterwards, the output is drained, the log closed. Harmless when called again."""
        if self._control < 0:
            return
        self.kill_all()
        self._listen(0)
        os.close(self._control)
        self._control = -1
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._listen(0)
        os.close(self._status)
        self.exit = self.exit or Exit(None, None, 0, time.monotonic())
        self.pump.finish()
        self._thread.join()
        self.pump.close()

    def _listen(self, seconds: float, *, until: bytes = b"") -> None:
        """Take what the shim says; its silence for ever (it was killed) is an end too."""
        poll = select.poll()
        poll.register(self._status, select.POLLIN)
        deadline = time.monotonic() + seconds
        while self.exit is None and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            piece = os.read(self._status, 4096)
            self._heard += piece
            _, _, ended = self._heard.partition(b"ended ")
            if ended.endswith(b"\n"):
                code, largest = (int(field) for field in ended.split())
                self.exit = Exit(
                    code if code >= 0 else None, -code if code < 0 else None, largest * 1024, time.monotonic()
                )
            elif not piece:
                self.exit = Exit(None, None, 0, time.monotonic())
            if until and until in self._heard:
                return


def start(
    *, program: Program, run_id: str, log: Path, echo: Callable[[bytes], None] | None, library_path: str
) -> Running:
    """Start *program*; call it from the main thread, whose end the shim would take for ours.

    *log* is made anew. *library_path*: LD_LIBRARY_PATH of the shim's Python, if it needs one.
    Raises NodeUnfit, or OSError if the file could not be executed.
    """
    mark = marker(run_id)
    sink = _open_log(log)
    output_in, output_out = os.pipe2(os.O_CLOEXEC)
    _widen(output_in)
    child, status, control = begin(program=program, output=output_out, mark=mark, library_path=library_path)
    running = Running(
        child=child, status=status, control=control, pump=Pump(source=output_in, log=sink, echo=echo), mark=mark
    )
    running.await_start()
    return running


def begin(*, program: Program, output: int, mark: str, library_path: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """*program* below a shim: the shim's process, and the descriptors of its status and control, which are the caller's.

    *output* is the descriptor for both of its outputs, and is closed here. *mark*: its ``BYOS_RUN``, "" for none.
    Raises NodeUnfit.
    """
    assert threading.current_thread() is threading.main_thread()
    shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 1)
    status_in, status_out = os.pipe2(os.O_CLOEXEC)
    control_in, control_out = os.pipe2(os.O_CLOEXEC)
    given = {name: value for name, value in ((MARKER, mark), ("LD_LIBRARY_PATH", library_path)) if value}
    try:
        child = subprocess.Popen(
            [
                sys.executable or "/proc/self/exe",
                "-EsS",
                shim.__file__,
                str(status_out),
                str(control_in),
                str(os.getpid()),
            ],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(status_out, control_in),
            env=given,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise NodeUnfit(f'cannot start "{sys.executable}": {error.strerror}') from error
    for descriptor in (output, status_out, control_in):
        os.close(descriptor)
    _tell(child, program=program, mark=mark)
    return child, status_in, control_out


def _tell(child: subprocess.Popen[bytes], *, program: Program, mark: str) -> None:
    """By a pipe, since everybody may read a command line."""
    environ = {**program.environ, **({MARKER: mark} if mark else {})}
    head = [program.path, str(program.directory), str(len(program.arguments)), *program.arguments]
    fields = [*head, *(f"{name}={value}" for name, value in environ.items())]
    assert child.stdin is not None
    try:
        with child.stdin as pipe:
            pipe.write(b"\0".join(os.fsencode(field) for field in fields))
    except BrokenPipeError:  # it did not start; await_start says why
        return


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise NodeUnfit(f'cannot write "{path}": {error.strerror}') from error


def _widen(pipe: int) -> None:
    with suppress(OSError):  # the user's allowance of pipe memory is used up: the usual 64 KiB do
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


def signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _reap(pid: int) -> None:
    """An orphan that came to us because the shim is gone would stay a zombie."""
    with suppress(ChildProcessError):  # the shim's to reap, or reaped
        os.waitpid(pid, os.WNOHANG)


def ask(arguments: list[str], *, environ: Mapping[str, str], timeout_s: float = 10.0) -> str:
    """What a short command prints on both outputs; "" if it cannot run or does not end in time."""
    try:
        done = subprocess.run(
            arguments,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def end_leftovers() -> tuple[Kin, ...]:
    """KILL what dead runs of ours left on this node, until none is left; who was ended. A live run's is not touched."""
    ended: dict[int, Kin] = {}
    for pause_s in (0.01, 0.1, 0.5, 1.0, 0.0):
        found = orphans_of_dead_runs()
        ended.update({each.pid: each for each in found})
        for each in found:
            _send(each.pid, signal.SIGKILL)
        if not found:
            break
        time.sleep(pause_s)
    return tuple(ended.values())
