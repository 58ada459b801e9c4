"""Ranks among processes, and the launchers' flavours."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from byos_run.node import mpi, shim
from byos_run.node.mpi import Rank
from byos_run.node.shim import Kin


def kin(pid, parent, name="solver"):
    return Kin(pid=pid, parent=parent, session=1, start_ticks=pid, name=name, alive=True)


def rank(pid, number, *, size=2, launcher="hydra"):
    return Rank(pid, pid, str(number), size, launcher)


@pytest.fixture
def process_with():
    """A living process with the environment given, as the kernel tells of it."""
    children = []

    def go(environ):
        child = subprocess.Popen([sys.executable, "-S", "-c", "print(flush=True); input()"], env=environ,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        child.stdout.readline()
        children.append(child)
        return shim.kin(child.pid)

    yield go
    for child in children:
        child.kill()
        child.communicate()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "PMIX_RANK": "3"}, ("3", 8, "open mpi")),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, ("3", 8, "hydra")),
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "PMIX_NAMESPACE": "x"}, ("3", 8, "")),
        ({"SLURM_PROCID": "3"}, ("3", 0, "")),
    ],
)
def test_rank_is_known_by_its_environment(process_with, environ, expected):
    found = mpi.rank_of(process_with(environ), given={"SLURM_PROCID": "0"})

    assert (found.number, found.size, found.launcher) == expected


def test_variables_that_everybody_has_make_no_rank(process_with):
    """A batch script of Slurm has SLURM_PROCID=0, and so has all that it starts."""
    inherited = {"SLURM_PROCID": "0", "SLURM_STEP_ID": "1"}

    assert mpi.rank_of(process_with(inherited), given=inherited) is None
    assert mpi.rank_of(process_with({**inherited, "SLURM_STEP_ID": "2"}), given=inherited).number == "0"


def test_each_rank_is_asked_at_its_innermost_process():
    """A shell around a rank would die of TERM before the solver has written anything."""
    processes = [kin(1, 0, "mpirun"), kin(2, 1, "hydra_pmi_proxy"), kin(3, 2, "bash"), kin(4, 3), kin(5, 2)]

    asked = mpi.to_stop(processes, ranks=[rank(3, 0), rank(4, 0), rank(5, 1)])

    assert sorted(asked) == [4, 5]


def test_without_ranks_all_are_asked_but_a_launcher_last():
    """``mpirun`` answers TERM by killing; a shell or a plain program does not."""
    below = [kin(1, 0, "mpirun"), kin(2, 1, "hydra_pmi_proxy"), kin(3, 2)]

    assert mpi.to_stop(below, ranks=[]) == [3]
    assert mpi.to_stop([kin(1, 0, "bash"), kin(2, 1)], ranks=[]) == [1, 2]
    assert mpi.to_stop([kin(1, 0, "mpirun")], ranks=[]) == [1]


def test_proxy_that_never_was_is_not_missed():
    """Open MPI has none; a launcher that still starts has no ranks."""
    lookout = mpi.Lookout(given={}, launcher=1, shim=9)
    lookout.look([kin(1, 9, "mpirun")])

    assert lookout.hang([kin(1, 9, "mpirun")]) == ""


@pytest.mark.parametrize(
    ("text", "option", "expected"),
    [
        ("mpirun (Open MPI) 5.0.11", "--version", ("Open MPI", "5.0.11")),
        ("mpirun.openmpi (OpenRTE) 4.1.4", "--version", ("Open MPI", "4.1.4")),
        ("HYDRA build details:\n    Version:                                 4.0.2", "--version", ("MPICH", "4.0.2")),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 1", "-V", ("Intel MPI", "2021.18.1")),
        ("mpirun: HP MPI 02.02.05.00 Linux x86-64", "-version", ("Platform MPI", "02.02.05.00")),
        ("mpirun: IBM Platform MPI 09.01.04.03 Linux x86-64", "-version", ("Platform MPI", "09.01.04.03")),
        ("no idea", "--version", ("", "")),
    ],
)
def test_flavour_is_what_the_launcher_says_of_itself(tmp_path, text, option, expected):
    """Some know only one of the three ways to be asked."""
    launcher = tmp_path / "mpirun"
    launcher.write_text(f"#!/bin/sh\n[ $1 = {option} ] || exit 1\ncat <<'END'\n{text}\nEND\n")
    launcher.chmod(0o755)

    assert mpi.flavour(str(launcher), environ={"PATH": os.defpath}) == expected


def test_flavours_of_the_real_ones(mpich, openmpi):
    environ = dict(os.environ)  # Open MPI does not even tell its version without HOME

    assert mpi.flavour(str(mpich / "mpirun"), environ=environ)[0] == "MPICH"
    assert mpi.flavour(str(openmpi / "mpirun"), environ=environ)[0] == "Open MPI"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["mpirun", "-np", "8", "converge"], 8),
        (["mpiexec", "--bind-to", "none", "-n", "4", "x"], 4),
        (["mpirun", "converge", "super"], 0),
        (["mpirun", "-np", "${n}", "x"], 0),
        (["mpirun", "-np"], 0),
    ],
)
def test_ranks_that_a_command_line_asks_for(command, expected):
    assert mpi.asked_ranks(command) == expected
