"""How many cores the slot has, and whether it is one of several on this node, or spread over several nodes.

    the platform's RESCALE_CORES_PER_SLOT
    else what Slurm, PBS, SGE or LSF say
    else the smaller of the affinity mask and the control group's processor quota

``os.cpu_count`` is not asked for that: it counts the machine (and is all that macOS tells, where only a stage-in asks).
A value that is no positive whole number is passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from byos_run.node import cgroup


@dataclass(frozen=True)
class Cores:
    count: int
    source: str
    """For people: the variable that said so, or "affinity", "cgroup quota", "processors"."""


def of_slot(environ: Mapping[str, str]) -> Cores:
    """The cores that this run may use; at least 1."""
    if count := _number(environ, "RESCALE_CORES_PER_SLOT"):
        return Cores(count, "RESCALE_CORES_PER_SLOT")
    if slurm := _of_slurm(environ):
        return slurm
    for name in ("PBS_NP", "NCPUS", "NSLOTS", "LSB_DJOB_NUMPROC"):
        if name == "NCPUS" and "PBS_JOBID" not in environ:
            continue  # too common a name to be trusted outside PBS
        if count := _number(environ, name):
            return Cores(count, name)
    return usable()


def usable() -> Cores:
    """The processors that the kernel lets us use at once; at least 1."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return Cores(os.cpu_count() or 1, "processors")
    affinity = len(os.sched_getaffinity(0))
    quota = cgroup.quota_cores()
    if quota is not None and quota < affinity:
        return Cores(max(1, int(quota)), "cgroup quota")
    return Cores(affinity, "affinity")


def _of_slurm(environ: Mapping[str, str]) -> Cores | None:
    """Several tasks in the batch script are the ranks to come; in a step each task is a run of its own (srun)."""
    per_task = _number(environ, "SLURM_CPUS_PER_TASK")
    tasks = _number(environ, "SLURM_NTASKS") or _number(environ, "SLURM_NPROCS")
    if tasks > 1 and environ.get("SLURM_STEP_ID", "").isdigit():
        return Cores(per_task or 1, "SLURM_CPUS_PER_TASK")
    if tasks > 1:
        return Cores(tasks * (per_task or 1), "SLURM_NTASKS")
    if count := _number(environ, "SLURM_CPUS_ON_NODE"):
        return Cores(count, "SLURM_CPUS_ON_NODE")
    if per_task:
        return Cores(per_task, "SLURM_CPUS_PER_TASK")
    if found := re.match(r"[1-9]\d*", environ.get("SLURM_JOB_CPUS_PER_NODE", "")):  # may read 8(x2)
        return Cores(int(found[0]), "SLURM_JOB_CPUS_PER_NODE")
    return None


def shares_node(environ: Mapping[str, str]) -> bool:
    """Whether other slots of the same job are likely to run on this node."""
    if _number(environ, "RESCALE_SLOTS_PER_NODE") > 1:
        return True
    whole = _number(environ, "RESCALE_CORES_PER_NODE") or (os.cpu_count() or 1)
    mine = _number(environ, "RESCALE_CORES_PER_SLOT")
    if not mine and "SLURM_JOB_ID" in environ:
        mine = of_slot(environ).count
    return 0 < mine < whole


def nodes(environ: Mapping[str, str]) -> tuple[int, str]:
    """How many nodes the slot spans, and which variable says so."""
    for name in ("RESCALE_NODES_PER_SLOT", "SLURM_STEP_NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES", "NHOSTS"):
        if name == "NHOSTS" and "PE_HOSTFILE" not in environ:
            continue
        if count := _number(environ, name):
            return count, name
    if environ.get("PBS_NODEFILE"):
        return _hosts_in(Path(environ["PBS_NODEFILE"])), "PBS_NODEFILE"
    lsf = environ.get("LSB_MCPU_HOSTS", "").split()  # host count host count ...
    return (max(1, len(set(lsf[::2]))), "LSB_MCPU_HOSTS") if lsf else (1, "")


def _hosts_in(path: Path) -> int:
    try:
        return max(1, len(set(path.read_text("utf-8", "replace").split())))
    except OSError:
        return 1


def _number(environ: Mapping[str, str], name: str) -> int:
    """0 if it is not set, or no positive whole number."""
    text = environ.get(name, "").strip()
    return int(text) if text.isdecimal() and text.isascii() else 0
