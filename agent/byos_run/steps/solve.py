"""The MPI command → how it ended. Its failure is a result, not an exception.

    prepare   before the fetch: cores, the command's file, its environment, what is known to go wrong
    solve     start → watch until it ends, or somebody wants it to stop, or it hangs → ask the ranks to stop →
              end whatever still lives → say how it ended

When ``solve`` returns or raises, no process of the run lives, and the log is whole and closed.

How it is stopped is told in ``node.watch``.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from byos_run.errors import NodeUnfit, UsageError, printable
from byos_run.model import Case, Job, Place, Solved, Stop
from byos_run.node import cgroup, command, cores, process
from byos_run.node.cause import cause
from byos_run.node.kernel import KernelWords, Victim
from byos_run.node.process import Running
from byos_run.node.pump import LINE_BYTES
from byos_run.node.shim import Kin
from byos_run.node.stall import Stall
from byos_run.node.usage import Memory
from byos_run.node.watch import Watch, span

_TOLD_S = 10.0
_USUAL_S = 60.0
_SAME_WISH_S = 2.0
_BY_TERM = (signal.SIGTERM, 128 + signal.SIGTERM)
"""MPICH ends with the bare number of the signal that ended a rank."""
_HOPELESS_S = 2.0
_TAIL_LINES = 50
_WINDOW_BYTES = 1 << 20


@dataclass(frozen=True)
class Launch:
    """The command, ready to start as soon as the case is there."""

    command: tuple[str, ...]
    """``{cores}`` expanded."""
    path: str
    """The file to execute; "" for a relative path, which only the fetched case can have."""
    environ: dict[str, str] = field(repr=False)
    slot: cores.Cores
    warnings: tuple[str, ...]
    """One line each."""


def prepare(*, job: Job, place: Place) -> Launch:
    """Raises NodeUnfit: no such command, not executable, several nodes."""
    command.refuse_several_nodes(place.environ)
    slot = cores.Cores(job.solver.cores, "solver.cores") if job.solver.cores else cores.of_slot(place.environ)
    words = tuple(word.replace("{cores}", str(slot.count)) for word in job.command)
    environ = command.environment(place.environ, added=job.solver.env, given_back=job.solver.pass_env)
    path = ""
    if "/" not in words[0] or words[0].startswith("/"):
        path = command.find(words[0], search_path=environ.get("PATH", os.defpath), directory=place.run_directory)
    warnings = command.warnings(words, path=path, environ=environ, slot=slot)
    return Launch(words, path, environ, slot, warnings)


def solve(
    *,
    launch: Launch,
    job: Job,
    case: Case,
    place: Place,
    attempt_id: str,
    stop: Stop,
    echo: Callable[[bytes], None] | None,
    on_start: Callable[[Running], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    memory: Memory | None = None,
    saw: Callable[[Iterable[str]], None] = lambda _: None,
) -> Solved:
    """Run the command to its end; call it from the main thread.

    *echo* gets the solver's output as ``solver.echo`` asks, whole lines, from another thread; it must not block.
    *on_start* gets the running command once it runs, *warn* hears of a stall at once, *memory* is told what the run uses,
    *saw* what MPI would leave on the node if all were killed.
    Raises NodeUnfit (the command cannot be executed, singletons), UsageError (``solver.directory`` is not in the case),
    Stopped (before the start).
    """
    stop.check()
    directory = _directory(job, case)
    program = process.Program(
        path=launch.path or command.find(launch.command[0], search_path="", directory=directory),
        arguments=launch.command,
        environ={**launch.environ, "PWD": str(directory)},
        directory=directory,
    )
    killed_before, kernel = cgroup.oom_kills(), KernelWords()
    try:
        running = process.start(
            program=program,
            run_id=attempt_id,
            log=case.log,
            echo=echo if job.solver.echo == "all" else None,
            library_path=place.library_path,
        )
    except OSError as error:
        raise NodeUnfit(f'command "{program.path}" cannot be executed: {error.strerror}', hint=_SHEBANG) from error
    with running:
        on_start(running)
        watch = Watch(running, given=launch.environ, stop=stop, memory=memory or Memory(), saw=saw)
        reason = _until_over(watch, running=running, job=job, case=case, warn=warn) or _told_with_us(running, stop)
        if reason:
            stop_file = directory / job.solver.stop_file if job.solver.stop_file else None
            quick = bool(watch.singletons or watch.hang)
            watch.ask_to_stop(
                stop_file=None if quick else stop_file, grace_s=_HOPELESS_S if quick else _grace_s(job, stop)
            )
        else:
            watch.end_stragglers()
    if job.solver.echo == "tail" and echo is not None:
        echo(_last_lines(running.pump.tail()))
    if watch.singletons:
        raise NodeUnfit(watch.singletons, hint="start the program with the mpirun of the MPI it was built with")
    victims = kernel.victims()
    out_of_memory = (cgroup.oom_kills() or 0) > (killed_before or 0)
    return _result(
        running,
        watch=watch,
        job=job,
        case=case,
        launch=launch,
        directory=directory,
        reason=reason,
        out_of_memory=out_of_memory,
        victims=victims,
    )


def _until_over(watch: Watch, *, running: Running, job: Job, case: Case, warn: Callable[[str], None]) -> str:
    """What asks for the end before the command's own, or ""."""
    settings = job.solver
    if settings.stall_s is None:
        return watch.until_over(time_limit_s=settings.time_limit_s, stalled=lambda: "", look_every_s=math.inf)
    stall = Stall(after_s=settings.stall_s, case=case.directory, size_bytes=lambda: running.pump.size_bytes)
    told = f"no output and no change of a file for {span(settings.stall_s)}"

    def stalled() -> str:
        if not stall.look():
            return ""
        warn(f"the solver seems to hang: {told}")
        return f"a stall: {told}" if settings.stall_action == "stop" else ""

    return watch.until_over(time_limit_s=settings.time_limit_s, stalled=stalled, look_every_s=stall.look_every_s)


def _told_with_us(running: Running, stop: Stop) -> str:
    """What asked for the end, of a command that TERM ended: Slurm tells the steps of a job a moment before its batch script."""
    ended = running.exit
    if ended is None or (ended.signal != signal.SIGTERM and ended.code not in _BY_TERM):
        return ""
    return stop.reason if stop.asked or stop.wait(_SAME_WISH_S) else ""


_SHEBANG = (
    "the first line of a script must name an interpreter that exists (no CR LF); a program must fit this processor"
)


def _grace_s(job: Job, stop: Stop) -> float:
    """Seconds between asking the ranks to stop and killing them, as the job file's ``grace`` says."""
    if job.solver.grace_s is not None:
        return job.solver.grace_s
    if stop.seconds_left is not None:
        return min(_USUAL_S, stop.seconds_left / 3)
    return _TOLD_S if stop.asked else _USUAL_S


def _directory(job: Job, case: Case) -> Path:
    """Where the command runs; auto: the one directory of the case that holds ``inputs.in``, else its top."""
    if job.solver.directory != "auto":
        chosen = case.directory / job.solver.directory
        if not chosen.is_dir() or not chosen.resolve().is_relative_to(case.directory.resolve()):
            raise UsageError([f'solver.directory: "{job.solver.directory}" is not a directory of the case'])
        return chosen
    found = [path for path, _, names in os.walk(case.directory) if "inputs.in" in names]
    return Path(found[0]) if len(found) == 1 else case.directory


def _result(
    running: Running,
    *,
    watch: Watch,
    job: Job,
    case: Case,
    launch: Launch,
    directory: Path,
    reason: str,
    out_of_memory: bool,
    victims: Sequence[Victim],
) -> Solved:
    ended = running.exit
    assert ended is not None  # Running.end has seen to it
    stopped_by = "" if watch.hang else reason
    unmet = _unmet(job, case, code=ended.code)
    if watch.hang:
        told = watch.hang
    elif stopped_by or not unmet:
        told = ""
    elif ended.code in job.solver.success.exit:
        told = unmet
    else:
        told = cause(
            tail=running.pump.tail().decode("utf-8", "replace"),
            code=ended.code,
            signal_number=ended.signal,
            out_of_memory=out_of_memory,
            victims=victims,
            ranks=watch.ranks,
        )
    return Solved(
        exit_code=None if watch.hang else ended.code,
        signal=None if watch.hang else ended.signal,
        stopped_by=stopped_by,
        cause=told,
        succeeded=not unmet and not reason,
        seconds=max(0.0, ended.monotonic_s - running.started_monotonic_s),  # two clocks' readings of one short moment
        peak_memory_bytes=max(watch.memory.peak_bytes, ended.largest_bytes),
        cores=launch.slot.count,
        started_at=running.started_at,
        notes=_notes(running, watch),
        stop_file=os.path.relpath(directory / job.solver.stop_file, case.directory) if watch.stop_file_left else "",
        shared_memory=watch.shared_memory,
    )


def _unmet(job: Job, case: Case, *, code: int | None) -> str:
    """Which part of ``solver.success`` does not hold; "" if all do."""
    wanted = job.solver.success
    if code not in wanted.exit:
        return f"exit {code} is not among {list(wanted.exit)}"
    if wanted.file and not (case.directory / wanted.file).exists():
        return f'exit {code}, but the file "{wanted.file}" that success asks for does not exist'
    if wanted.log_pattern and not _in_log(case.log, wanted.log_pattern):
        return f'exit {code}, but the solver\'s output has nothing that matches "{wanted.log_pattern}"'
    return ""


def _in_log(log: Path, pattern: str) -> bool:
    """Whether a line of *log* matches; a line of more than a mebibyte is looked at in pieces."""
    wanted = re.compile(pattern, re.MULTILINE)
    with log.open("rb") as file:
        rest = b""
        while piece := file.read(_WINDOW_BYTES):
            lines, newline, rest = (rest + piece).rpartition(b"\n")
            if not newline and len(rest) >= _WINDOW_BYTES:
                lines, rest = rest, b""
            if lines and wanted.search(lines.decode("utf-8", "replace")):
                return True
    return bool(rest and wanted.search(rest.decode("utf-8", "replace")))


def _notes(running: Running, watch: Watch) -> tuple[str, ...]:
    """What else a user should know, one line each."""
    pump = running.pump
    found = []
    if watch.stragglers:
        found.append(f"outlived the command and were ended: {_names(watch.stragglers)}")
    if running.survivors:
        found.append(f"could not be killed: {_names(running.survivors)}")
    if watch.stop_file_left:
        found.append("the solver did not remove the stop file")
    if pump.lost_bytes and pump.log_fault is not None:
        found.append(f"solver.log lacks {pump.lost_bytes} bytes of output: {pump.log_fault.strerror}")
    if pump.echo_fault is not None:
        found.append(f"the solver's output was not shown to its end: {pump.echo_fault}")
    return tuple(found)


def _names(processes: Sequence[Kin]) -> str:
    return printable(", ".join(f"{each.name} ({each.pid})" for each in processes[:10]))


def _last_lines(tail: bytes) -> bytes:
    lines = tail.split(b"\n")[-_TAIL_LINES - 1 :]
    return b"".join(line[:LINE_BYTES] + b"\n" for line in lines if line or line is not lines[-1])
