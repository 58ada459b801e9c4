"""How many cores the slot has, and on how many nodes."""

from __future__ import annotations

import os

import pytest

from byos_run.node import cgroup, cores

SLURM_ARRAY = {"SLURM_CPUS_ON_NODE": "8", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "8", "SLURM_JOB_ID": "3"}


@pytest.mark.parametrize(
    ("environ", "count", "source"),
    [
        ({"RESCALE_CORES_PER_SLOT": "8", **SLURM_ARRAY, "SLURM_NTASKS": "4"}, 8, "RESCALE_CORES_PER_SLOT"),
        ({"RESCALE_CORES_PER_SLOT": "${cores}", **SLURM_ARRAY}, 8, "SLURM_NTASKS"),
        (SLURM_ARRAY, 8, "SLURM_NTASKS"),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8, "SLURM_CPUS_ON_NODE"),
        ({"SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "8"}, 8, "SLURM_CPUS_ON_NODE"),
        ({"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "2", "SLURM_CPUS_ON_NODE": "16"}, 8, "SLURM_NTASKS"),
        ({"SLURM_NTASKS": "4", "SLURM_CPUS_PER_TASK": "8", "SLURM_STEP_ID": "0"}, 8, "SLURM_CPUS_PER_TASK"),
        ({"SLURM_JOB_CPUS_PER_NODE": "8(x2)"}, 8, "SLURM_JOB_CPUS_PER_NODE"),
        ({"PBS_NP": "8", "NSLOTS": "4"}, 8, "PBS_NP"),
        ({"PBS_JOBID": "1", "NCPUS": "8"}, 8, "NCPUS"),
        ({"NSLOTS": "8"}, 8, "NSLOTS"),
        ({"LSB_DJOB_NUMPROC": "8"}, 8, "LSB_DJOB_NUMPROC"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "+".join(value) if isinstance(value, dict) else value,
)
def test_the_platform_speaks_before_the_scheduler(environ, count, source):
    assert cores.of_slot(environ) == cores.Cores(count, source)


def test_without_a_word_from_anybody_the_kernel_decides():
    """What this process may use, not what the machine has."""
    found = cores.of_slot({"NCPUS": "99", "OMP_NUM_THREADS": "99"})

    assert 1 <= found.count <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (1, "")),
        ({"RESCALE_NODES_PER_SLOT": "2"}, (2, "RESCALE_NODES_PER_SLOT")),
        ({"SLURM_NNODES": "3"}, (3, "SLURM_NNODES")),
        ({"SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_NUM_NODES": "4"}, (1, "SLURM_STEP_NUM_NODES")),
        ({"LSB_MCPU_HOSTS": "a 8 b 8"}, (2, "LSB_MCPU_HOSTS")),
        ({"PE_HOSTFILE": "/x", "NHOSTS": "2"}, (2, "NHOSTS")),
        ({"NHOSTS": "2"}, (1, "")),
    ],
)
def test_nodes_of_the_slot(environ, expected):
    assert cores.nodes(environ) == expected


def test_nodes_in_pbs_are_the_different_hosts_of_its_file(tmp_path):
    (tmp_path / "nodes").write_text("a\na\nb\n")

    assert cores.nodes({"PBS_NODEFILE": str(tmp_path / "nodes")}) == (2, "PBS_NODEFILE")
    assert cores.nodes({"PBS_NODEFILE": str(tmp_path / "gone")}) == (1, "PBS_NODEFILE")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RESCALE_SLOTS_PER_NODE": "2"}, True),
        ({"RESCALE_CORES_PER_SLOT": "8", "RESCALE_CORES_PER_NODE": "16"}, True),
        ({"RESCALE_CORES_PER_SLOT": "16", "RESCALE_CORES_PER_NODE": "16"}, False),
        ({}, False),
    ],
)
def test_slots_that_share_a_node(environ, expected):
    assert cores.shares_node(environ) is expected


class Group:
    """Files as /proc/self/cgroup and /sys/fs/cgroup have them."""

    def __init__(self, directory):
        self.proc = directory / "proc"
        self.mount = directory / "cgroup"
        self.proc.mkdir()
        self.mount.mkdir()

    def member(self, text):
        (self.proc / "cgroup").write_text(text)

    def file(self, path, text):
        (self.mount / path).parent.mkdir(parents=True, exist_ok=True)
        (self.mount / path).write_text(text)

    @property
    def quota(self):
        return cgroup.quota_cores(proc=self.proc, mount=self.mount)

    @property
    def kills(self):
        return cgroup.oom_kills(proc=self.proc, mount=self.mount)


@pytest.fixture
def group(tmp_path):
    return Group(tmp_path)


def test_quota_of_version_2_is_the_least_up_to_the_top(group):
    group.member("0::/job/step\n")
    group.file("job/step/cpu.max", "max 100000\n")
    group.file("job/cpu.max", "150000 100000\n")

    assert group.quota == 1.5


def test_quota_of_version_1(group):
    group.member("3:cpu,cpuacct:/job\n0::/\n")
    group.file("cpu/job/cpu.cfs_quota_us", "400000\n")
    group.file("cpu/job/cpu.cfs_period_us", "100000\n")
    group.file("cpu/cpu.cfs_quota_us", "-1\n")

    assert group.quota == 4.0


def test_quota_inside_a_container_is_that_of_the_top_of_the_mount(group):
    """The path that the kernel names lies outside of what is mounted."""
    group.member("0::/../../kubepods/pod7\n")
    group.file("cpu.max", "200000 100000\n")

    assert group.quota == 2.0


def test_no_quota_is_none(group):
    group.member("0::/\n")

    assert group.quota is None


def test_kills_for_memory_are_counted_in_our_group(group):
    group.member("4:memory:/job\n0::/\n")
    group.file("memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")

    assert group.kills == 3
