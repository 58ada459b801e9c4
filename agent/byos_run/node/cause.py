"""Why a launcher ended as it did, in one line, from what it printed last.

The number alone does not tell: MPICH gives bare signal numbers that look like exit codes, and is racy about them;
Intel MPI flattens to 255. Each launcher says in words which rank and which signal; the words are looked for here.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Callable

from byos_run.errors import printable
from byos_run.node.kernel import Victim

_PID = re.compile(r"BAD TERMINATION OF ONE OF YOUR[\s\S]{0,300}?PID (\d+) RUNNING AT")


def cause(
    *,
    tail: str,
    code: int | None,
    signal_number: int | None,
    out_of_memory: bool,
    victims: Sequence[Victim] = (),
    ranks: Mapping[int, str] | None = None,
) -> str:
    """One line for people. *tail*: the newest output; *out_of_memory*: the kernel killed for memory while it ran, *victims*, where
    it says so; *ranks*: pid → number, for those who tell only the one."""
    ranks = ranks or {}
    told = next((say(found) for pattern, say in _TABLE for found in [pattern.search(tail)] if found), "")
    pid = _PID.search(tail)
    if told.startswith("a rank ") and pid and int(pid[1]) in ranks:  # MPICH names the process alone
        told = f"rank {ranks[int(pid[1])]} {told[len('a rank ') :]}"
    if code == 0 and not told:
        return ""
    if code == 126:
        number = "exit 126: a command was found that cannot be executed"
    elif code == 127:
        number = "exit 127: a command was not found, by the shell or the launcher"
    elif code is not None:
        number = f"exit {code}"
    elif signal_number is not None:
        number = f"the command was killed by {signal_name(signal_number)}"
    else:
        number = "how the command ended is not known: the process that watched it was killed"
    killed = signal_number == signal.SIGKILL or code in (9, 137) or "SIGKILL" in told
    ours = next((each for each in victims if each.pid in ranks), None)
    who = "a process of this node"
    if ours is not None:
        size = f", {ours.resident_bytes / 1e6:,.0f} MB" if ours.resident_bytes else ""
        who = printable(f"rank {ranks[ours.pid]} ({ours.name}{size})")
    memory = f"out of memory: the kernel killed {who}; " if ours or (out_of_memory and killed) else ""
    return memory + (f"{told} ({number})" if told else number)


def signal_name(number: int) -> str:
    """``signal 11 (SIGSEGV)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _by_signal(found: re.Match[str]) -> str:
    rank = found.groupdict().get("rank")
    who = f"rank {rank}" if rank is not None else "a rank"
    return f"{who} was killed by {signal_name(int(found['signal']))}"


def _by_exit(found: re.Match[str]) -> str:
    rank = found.groupdict().get("rank")
    return f"{f'rank {rank}' if rank is not None else 'a rank'} ended with exit code {found['code']}"


def _by_abort(found: re.Match[str]) -> str:
    return f"rank {found['rank']} called MPI_Abort with code {found['code']}"


def _by_absence(found: re.Match[str]) -> str:
    why = found.groupdict().get("why") or "No such file or directory"
    return printable(f'the launcher cannot start "{found["name"].strip()}": {why}')


def _as_said(found: re.Match[str]) -> str:
    return printable(found[0].strip())[:300]


def _fixed(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text


_TABLE: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    # Open MPI 4, 5
    (re.compile(r"MPI_ABORT was invoked on rank (?P<rank>\d+)[\s\S]{0,300}?[Ee]rrorcode:? (?P<code>-?\d+)"), _by_abort),
    # MPICH, Intel MPI: "Abort(17) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 17) - process 1"
    (re.compile(r"application called MPI_Abort\([^,)]*, *(?P<code>-?\d+)\) - process (?P<rank>\d+)"), _by_abort),
    # Open MPI: "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 11 (Segmentation fault)"
    (re.compile(r"process rank (?P<rank>\d+) with PID[\s\S]{0,200}?exited on\s+signal (?P<signal>\d+)"), _by_signal),
    # Open MPI: "Process name: [prterun-vm-123@1,1]\n  Exit code:    3" and "[[31245,1],1]"
    (re.compile(r"Process name: \[.*?,(?P<rank>\d+)\]\s+Exit code: +(?P<code>\d+)"), _by_exit),
    # Intel MPI: one block for each rank; the culprit's is the first that KILL did not end
    (re.compile(r"RANK (?P<rank>\d+) PID \d+(?:(?!RANK)[\s\S]){0,200}?KILLED BY SIGNAL: (?P<signal>(?!9\b)\d+)"), _by_signal),
    (re.compile(r"RANK (?P<rank>\d+) PID \d+(?:(?!RANK)[\s\S]){0,200}?EXIT STATUS: (?P<code>\d+)"), _by_exit),
    (re.compile(r"RANK (?P<rank>\d+) PID \d+(?:(?!RANK)[\s\S]){0,200}?KILLED BY SIGNAL: (?P<signal>\d+)"), _by_signal),
    # MPICH
    (re.compile(r"APPLICATION TERMINATED WITH THE EXIT STRING: .*\(signal (?P<signal>\d+)\)"), _by_signal),
    (re.compile(r"BAD TERMINATION OF ONE OF YOUR[\s\S]{0,300}?EXIT CODE: (?P<code>\d+)"), _by_exit),
    # what keeps a launcher from starting at all
    (re.compile(r"has detected an attempt to run as root"), _fixed("Open MPI refuses to run as root unless told to")),
    (re.compile(r"There are not enough slots available"), _fixed("Open MPI has fewer slots than ranks were asked")),
    (re.compile(r"execvp error on file (?P<name>.+) \((?P<why>.+)\)"), _by_absence),
    (re.compile(r"unable to find the specified executable file[\s\S]{0,900}?Executable: (?P<name>.+)"), _by_absence),
    (re.compile(r"could not find an executable:[\s\S]{0,400}?Executable: (?P<name>.+)"), _by_absence),
    (re.compile(r"unrecognized argument \S+"), _as_said),
)  # fmt: skip
