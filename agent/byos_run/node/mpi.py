"""The ranks among a run's processes, and what is wrong with them while they run.

A rank is told by its environment: every launcher gives each rank a number in a variable that the launcher itself does
not have. ``killpg`` reaches no rank of any MPI, so whoever wants to ask the ranks asks them one by one.

    look at the processes:  which are ranks; which MPI library each has mapped; which shared memory
    singletons:  all ranks of an N-rank launch have mapped a library that this launcher cannot serve, twice in a row
    hang:        hydra's proxy was there and is gone, or all ranks were and are, and the launcher still waits

Not promised: seeing singletons that are over in less than half a second, or that link MPI statically.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Callable, NamedTuple

from byos_run.node.members import environ_of
from byos_run.node.process import ask
from byos_run.node.shim import Kin, read_small

_RANK = (b"OMPI_COMM_WORLD_RANK", b"PMIX_RANK", b"PMI_RANK", b"MPI_LOCALRANKID", b"MPI_RANKID", b"SLURM_PROCID")
_LAUNCH = (b"PMIX_NAMESPACE", b"PMI_FD", b"PMI_PORT", b"HYDI_CONTROL_FD", b"SLURM_STEP_ID")
"""Differs from one launch to the next: tells a rank from us, when we were ourselves started as a rank."""
_LAUNCHERS = frozenset(
    [
        *("mpirun", "mpirun.openmpi", "mpirun.mpich", "mpiexec", "mpiexec.openmpi", "mpiexec.mpich", "mpiexec.hydra"),
        *("hydra_pmi_proxy", "hydra_bstrap_pr", "orterun", "orted", "prterun", "prted", "srun"),
    ]
)
_PROXY = "hydra_pmi_proxy"
_HANG_S = 3.0
_ALL_GONE_S = 10.0
_SINGLETON_S = 0.4
_MAPS_FIRST_S = 0.1
_MAPS_LAST_S = 120.0

_OPEN_MPI_LIBRARY = re.compile(rb"/lib(?:mpi\.so\.(?:20|40)|open-pal\.so|open-rte\.so)")
_MPICH_LIBRARY = re.compile(rb"/lib(?:mpi\.so\.12|mpich\.so|pmpich)")
_PMIX_LIBRARY = re.compile(rb"/libpmix?2?\.so")
_SHARED_MEMORY = re.compile(rb"/dev/shm/[^\n]+")
SESSION = re.compile(rb"/[^\n]*/(?:ompi|ompi\.[^/\n]+/pid)\.(\d+)")
"""Directory that Open MPI's launcher makes for its ranks, with its own number: ``ompi.PID``, before 5 ``ompi.HOST.UID/pid.PID``."""
_BELOW_SESSION = re.compile(rb"(" + SESSION.pattern + rb")/[^\n]*")


class Rank(NamedTuple):
    pid: int
    start_ticks: int
    number: str
    size: int
    """Ranks in the launch as the launcher says; 0: it does not."""
    launcher: str
    """"open mpi", "hydra" (MPICH, Intel), or ""."""


class Mapped(NamedTuple):
    """What of interest a process has in its address space."""

    open_mpi: bool
    mpich: bool
    """MPICH or Intel MPI: they share their library's name."""
    pmi_client: bool
    """A separate PMI or PMIx library, by which a foreign launcher may serve it after all."""
    shared_memory: tuple[str, ...]
    sessions: tuple[str, ...]
    """Open MPI's session directories in which it has a file mapped."""


def rank_of(each: Kin, *, given: Mapping[str, str]) -> Rank | None:
    """*given*: the environment that the command was started with; a rank's variables are not from there."""
    environ = environ_of(each.pid)

    def is_new(name: bytes) -> bool:
        return name in environ and os.fsdecode(environ[name]) != given.get(name.decode())

    other_launch = any(is_new(name) for name in _LAUNCH)
    for name in _RANK:
        value = environ.get(name)
        if value is not None and (other_launch or is_new(name)):
            size = environ.get(b"OMPI_COMM_WORLD_SIZE") or environ.get(b"PMI_SIZE") or b"0"
            if b"OMPI_COMM_WORLD_RANK" in environ:
                launcher = "open mpi"
            elif b"PMI_RANK" in environ and not any(key.startswith((b"PMIX_", b"SLURM_STEP")) for key in environ):
                launcher = "hydra"
            else:
                launcher = ""
            return Rank(each.pid, each.start_ticks, os.fsdecode(value), int(size) if size.isdigit() else 0, launcher)
    return None


def mapped(pid: int) -> Mapped:
    text = read_small(f"/proc/{pid}/maps")
    segments = {os.fsdecode(name).removesuffix(" (deleted)") for name in _SHARED_MEMORY.findall(text)}
    return Mapped(
        bool(_OPEN_MPI_LIBRARY.search(text)),
        bool(_MPICH_LIBRARY.search(text)),
        bool(_PMIX_LIBRARY.search(text)),
        tuple(sorted(segments)),
        tuple(sorted({os.fsdecode(found[1]) for found in _BELOW_SESSION.finditer(text)})),
    )


def to_stop(processes: Sequence[Kin], *, ranks: Sequence[Rank]) -> list[int]:
    """Whom to ask to end: of each rank the process that speaks MPI, else its innermost ones.

    Without ranks: all, or, below an MPI launcher, the innermost processes that are no launchers; the launcher answers
    TERM by killing its ranks within half a second.
    """
    parents = {each.parent for each in processes}
    if not ranks:
        if not any(each.name in _LAUNCHERS for each in processes):
            return [each.pid for each in processes]
        inner = [each.pid for each in processes if each.pid not in parents and each.name not in _LAUNCHERS]
        return inner or [each.pid for each in processes]
    groups: dict[str, list[int]] = {}
    for rank in ranks:
        groups.setdefault(rank.number, []).append(rank.pid)
    chosen: list[int] = []
    for pids in groups.values():
        seen = {pid: mapped(pid) for pid in pids} if len(pids) > 1 else {}
        speakers = [pid for pid, its in seen.items() if its.open_mpi or its.mpich]
        chosen += speakers or [pid for pid in pids if pid not in parents] or pids
    return chosen


class Lookout:
    """Watches one run; asked by one thread, every other second, more often at the start."""

    def __init__(
        self,
        *,
        given: Mapping[str, str],
        launcher: int,
        shim: int,
        saw: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """*saw* hears of shared memory and session directories that the run's processes have mapped."""
        self._given = given
        self._saw = saw
        self._shim = shim
        self._launcher = launcher
        self._known: dict[tuple[int, int], Rank] = {}
        self._proxy_seen = False
        self._proxy_missing_s: float | None = None
        self._ranks_missing_s: float | None = None
        self._singletons_s: float | None = None
        self._maps_next_s = 0.0
        self._maps_pause_s = _MAPS_FIRST_S
        self.ranks: tuple[Rank, ...] = ()
        """Of the last look."""
        self.most_ranks = 0
        self.shared_memory: set[str] = set()
        """Paths below /dev/shm that a process of the run had mapped at some look."""
        self.numbers: dict[int, str] = {}
        """Pid → number of every rank that was ever seen."""

    def look(self, processes: Sequence[Kin]) -> tuple[Rank, ...]:
        """Find the ranks among *processes*; now and then read what they have mapped."""
        known = {}
        for each in processes:
            key = (each.pid, each.start_ticks)
            rank = self._known.get(key) or rank_of(each, given=self._given)
            if rank is not None:
                known[key] = rank
        self._known = known
        self.numbers.update({rank.pid: rank.number for rank in known.values()})
        now = time.monotonic()
        if len(known) > len(self.ranks):  # they map their libraries and segments soon after they have begun
            self._maps_next_s, self._maps_pause_s = now, _MAPS_FIRST_S
        self.ranks = tuple(known.values())
        self.most_ranks = max(self.most_ranks, len({rank.number for rank in self.ranks}))
        if now >= self._maps_next_s:
            self.look_at_maps(processes)
            self._maps_pause_s = min(2 * self._maps_pause_s, _MAPS_LAST_S)
            self._maps_next_s = now + self._maps_pause_s
        return self.ranks

    def look_at_maps(self, processes: Sequence[Kin]) -> None:
        """Costs about 0.1 ms for each process, and its memory lock for as long."""
        ranks = {rank.pid: rank for rank in self.ranks}
        of_run = {self._launcher, *(each.pid for each in processes)}
        wrong = 0
        for each in processes:
            its = mapped(each.pid)
            self.shared_memory.update(its.shared_memory)
            self._saw(its.shared_memory)
            self._saw(path for path in its.sessions if int(path.rpartition(".")[2]) in of_run)
            wrong += each.pid in ranks and _is_alone(ranks[each.pid], its)
        everybody = wrong >= 2 and wrong == len({rank.number for rank in self.ranks}) == self.ranks[0].size
        if not everybody:
            self._singletons_s = None
        elif self._singletons_s is None:
            self._singletons_s = time.monotonic()

    @property
    def singletons(self) -> str:
        """Why these ranks are certainly no job of N but N jobs of one; "" if they may be one."""
        since = self._singletons_s
        if since is None or time.monotonic() - since < _SINGLETON_S or not self.ranks:
            return ""
        rank = self.ranks[0]
        names = ("Open MPI", "MPICH or Intel MPI")
        ours, theirs = reversed(names) if rank.launcher == "hydra" else names
        return (
            f"{rank.size} one-rank jobs run where one job of {rank.size} ranks was asked: "
            f"the launcher is of {ours}, the program uses {theirs}"
        )

    def hang(self, processes: Sequence[Kin]) -> str:
        """What the launcher waits for in vain; "" if all is well. Call it after :meth:`look`."""
        now = time.monotonic()
        proxy = any(each.name == _PROXY for each in processes)
        of_hydra = {rank.pid for rank in self.ranks if rank.launcher == "hydra"}
        orphaned = any(each.pid in of_hydra and each.parent == self._shim for each in processes)
        self._proxy_seen = self._proxy_seen or proxy or orphaned
        waiting = any(each.pid == self._launcher or each.name in _LAUNCHERS for each in processes)
        if proxy or not self._proxy_seen or not waiting:
            self._proxy_missing_s = None
        elif self._proxy_missing_s is None:
            self._proxy_missing_s = now
        only_launchers = bool(processes) and all(each.name in _LAUNCHERS for each in processes)
        if not self.most_ranks or not only_launchers:
            self._ranks_missing_s = None
        elif self._ranks_missing_s is None:
            self._ranks_missing_s = now
        if self._proxy_missing_s is not None and now - self._proxy_missing_s >= _HANG_S:
            return f"{_PROXY} was killed; the launcher would wait for ever"
        if self._ranks_missing_s is not None and now - self._ranks_missing_s >= _ALL_GONE_S:
            return "all ranks are gone; the launcher still waits"
        return ""


def _is_alone(rank: Rank, its: Mapped) -> bool:
    """Certain only if exactly one MPI library is mapped, it is not the launcher's, and nothing could bridge the two."""
    if rank.size < 2:
        return False
    if rank.launcher == "hydra":
        return its.open_mpi and not its.mpich
    return rank.launcher == "open mpi" and its.mpich and not its.open_mpi and not its.pmi_client


_VERSIONS = (
    ("Open MPI", re.compile(r"\((?:Open MPI|OpenRTE)\) (\S+)|prterun \(PRRTE\) (\S+)")),
    ("Intel MPI", re.compile(r"Intel\(R\) MPI Library.*Version (\S+)")),
    ("MPICH", re.compile(r"HYDRA build details:\s+Version:\s+(\S+)")),
    ("Platform MPI", re.compile(r"(?:HP|Platform) MPI (\S+)")),
)


def flavour(path: str, *, environ: Mapping[str, str]) -> tuple[str, str]:
    """Name and version of the launcher *path*; ("", "") if it does not say. Runs it, at most three times.

    Its own directory goes first on PATH: Intel's ``mpirun`` is a script that runs whatever ``mpiexec.hydra`` it finds.
    """
    directory = os.path.dirname(path)
    given = {**environ, "PATH": f"{directory}:{environ.get('PATH', '')}", "LC_ALL": "C"}
    for option in ("--version", "-version", "-V"):
        text = ask([path, option], environ=given)
        for name, pattern in _VERSIONS:
            if found := pattern.search(text):
                return name, next(group for group in found.groups() if group)
    return "", ""


def asked_ranks(command: Iterable[str]) -> int:
    """How many ranks the command line asks for; 0 if it does not say so in a way that is known."""
    words = list(command)
    for word, following in zip(words, words[1:]):
        if word in ("-n", "-np", "--n", "--np", "-c") and following.isdecimal():
            return int(following)
    return 0
