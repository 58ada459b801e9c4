"""Who belongs to a run.

    by ancestry: below the shim, which adopts every orphan of the run; finds what lost the marker (``env -i``)
    by the marker in the environment; finds what lost its ancestry (the shim was killed)
    by memory: once seen, a process stays the run's by its pid and start time

The marker is ``BYOS_RUN=run id:agent pid:agent start:boot id:pid namespace``: nobody else's process ever has the same.
When the shim is dead the agent adopts: whatever of the shim's is handed to it has another session than its own children.

Not promised: a process that another host or another daemon (sshd, slurmstepd) started for the run and that lost the
marker.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping

from byos_run.node import shim
from byos_run.node.shim import Kin

MARKER = "BYOS_RUN"


def marker(run_id: str) -> str:
    """What every process of the run has as ``BYOS_RUN``: names the run, and this agent beyond doubt."""
    own = shim.kin("self")
    boot = shim.read_small("/proc/sys/kernel/random/boot_id").decode().strip()
    return f"{run_id}:{os.getpid()}:{own.start_ticks if own else 0}:{boot}:{os.stat('/proc/self/ns/pid').st_ino}"


def environ_of(pid: int) -> dict[bytes, bytes]:
    """The environment that *pid* was started with; empty if it is not ours to read."""
    pairs = (pair.partition(b"=") for pair in shim.read_small(f"/proc/{pid}/environ").split(b"\0"))
    return {name: value for name, _, value in pairs if name}


class Census:
    """Who belongs to the run. Remembers who does not, so that a look at a crowded node stays cheap."""

    def __init__(self, *, root: int, mark: str) -> None:
        self._root = root
        self._mark = os.fsencode(f"{MARKER}={mark}")
        self._agent = os.getpid()
        self._session = os.getsid(0)
        everybody = (shim.kin(pid) for pid in shim.pids())
        self._children = {(k.pid, k.start_ticks) for k in everybody if k is not None and k.parent == self._agent}
        self._strangers: set[int] = set()
        self._seen: dict[int, int] = {}
        self._lock = threading.Lock()

    def take(self, *, afresh: bool = False) -> tuple[Kin, ...]:
        """The living processes of the run, the shim not among them. *afresh*: trust nothing that was remembered."""
        with self._lock:
            pids = shim.pids()
            self._strangers = set() if afresh else self._strangers.intersection(pids)
            known = (shim.kin(pid) for pid in pids if pid not in self._strangers)
            table = {each.pid: each for each in known if each is not None}
            ours = {pid for pid, each in table.items() if self._is_ours(each)}
            ours |= shim.descendants(table, [self._root, *ours])
            ours -= {self._root, self._agent}
            self._seen = {pid: table[pid].start_ticks for pid in ours}
            self._strangers.update(pid for pid in table if pid not in ours and _settled(pid, table, self._strangers))
            self._strangers -= {self._root, self._agent}
            return tuple(table[pid] for pid in sorted(ours) if table[pid].alive)

    @property
    def seen(self) -> frozenset[int]:
        """Pids of the run at the last look, the ended ones that nobody has reaped among them."""
        with self._lock:
            return frozenset(self._seen)

    def _is_ours(self, each: Kin) -> bool:
        if self._seen.get(each.pid) == each.start_ticks:
            return True
        adopted = each.parent == self._agent and (each.pid, each.start_ticks) not in self._children
        if adopted and each.session != self._session and each.pid != self._root:
            return True  # an orphan of the shim: children of our own are older, or in our session
        return self._mark in shim.read_small(f"/proc/{each.pid}/environ").split(b"\0")


def _settled(pid: int, table: Mapping[int, Kin], strangers: Iterable[int]) -> bool:
    """Whether the line of parents of *pid* was seen whole: with a gap in it, a parent may just have died."""
    while pid in table and table[pid].parent != pid:
        pid = table[pid].parent
    return pid in (0, 1) or pid in strangers


def orphans_of_dead_runs() -> tuple[Kin, ...]:
    """Living processes of this boot and pid namespace that carry the marker of an agent which is no more."""
    _, _, _, *here = marker("").split(":")
    found = []
    for pid in shim.pids():
        mark = os.fsdecode(environ_of(pid).get(MARKER.encode(), b"")).split(":")
        if len(mark) != 5 or mark[3:] != here or not (mark[1] + mark[2]).isdecimal():
            continue
        agent, each = shim.kin(int(mark[1])), shim.kin(pid)
        agent_lives = agent is not None and agent.start_ticks == int(mark[2])
        if each is not None and each.alive and not agent_lives:
            found.append(each)
    return tuple(found)
