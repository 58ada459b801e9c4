"""Why a launcher ended, from its own words."""

from __future__ import annotations

import pytest

from byos_run.node.cause import cause
from byos_run.node.kernel import KernelWords, Victim

SAID = {
    "open mpi 4, signal": (
        139,
        "mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 11 (Segmentation fault).",
        "rank 1 was killed by signal 11 (SIGSEGV) (exit 139)",
    ),
    "open mpi 5, signal, broken line": (
        137,
        "prterun noticed that process rank 3 with PID 26552 on node vm exited on\nsignal 9 (Killed).",
        "rank 3 was killed by signal 9 (SIGKILL) (exit 137)",
    ),
    "open mpi, exit code": (
        3,
        "The first process to do so was:\n\n   Process name: [prterun-vm-22794@1,1]\n   Exit code:    3\n",
        "rank 1 ended with exit code 3 (exit 3)",
    ),
    "open mpi 4, exit code": (
        3,
        "  Process name: [[31245,1],2]\n  Exit code:    3\n",
        "rank 2 ended with exit code 3 (exit 3)",
    ),
    "open mpi 4, abort": (
        17,
        "MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\nwith errorcode 17.\n",
        "rank 1 called MPI_Abort with code 17 (exit 17)",
    ),
    "open mpi 5, abort": (
        17,
        "MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n  Proc: [[6373,1],2]\n  Errorcode: 17\n",
        "rank 2 called MPI_Abort with code 17 (exit 17)",
    ),
    "mpich, abort": (
        17,
        "Abort(17) on node 1 (rank 1 in comm 0): application called MPI_Abort(MPI_COMM_WORLD, 17) - process 1\n",
        "rank 1 called MPI_Abort with code 17 (exit 17)",
    ),
    "mpich, signal looks like an exit code": (
        11,
        (
            "= BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 26540 RUNNING AT vm\n=   EXIT CODE: 11\n"
            "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Segmentation fault (signal 11)\n"
        ),
        "a rank was killed by signal 11 (SIGSEGV) (exit 11)",
    ),
    "mpich, exit code": (
        9,
        "= BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 26540 RUNNING AT vm\n=   EXIT CODE: 9\n",
        "a rank ended with exit code 9 (exit 9)",
    ),
    "intel, the first that KILL did not end": (
        255,
        (
            "= RANK 0 PID 7 RUNNING AT vm\n= KILLED BY SIGNAL: 9 (Killed)\n"
            "= RANK 1 PID 8 RUNNING AT vm\n= KILLED BY SIGNAL: 11 (Segmentation fault)\n"
        ),
        "rank 1 was killed by signal 11 (SIGSEGV) (exit 255)",
    ),
    "mpich, no program": (
        255,
        "[proxy:0@vm] HYDU_create_process (launch.c:73): execvp error on file nosuch (No such file or directory)\n",
        'the launcher cannot start "nosuch": No such file or directory (exit 255)',
    ),
    "open mpi, no program": (
        1,
        (
            "prterun was unable to find the specified executable file, and therefore did\nnot launch the job.\n\n"
            "   Node:       vm\n   Executable: nosuch\n"
        ),
        'the launcher cannot start "nosuch": No such file or directory (exit 1)',
    ),
    "open mpi, root": (
        1,
        "mpirun has detected an attempt to run as root.\n",
        "Open MPI refuses to run as root unless told to (exit 1)",
    ),
    "open mpi, slots": (
        1,
        "There are not enough slots available in the system to satisfy the 8\nslots\n",
        "Open MPI has fewer slots than ranks were asked (exit 1)",
    ),
    "escaped": (255, "unrecognized argument \x1b[2J\n", "unrecognized argument \\x1b[2J (exit 255)"),
}


@pytest.mark.parametrize(("code", "tail", "expected"), SAID.values(), ids=SAID.keys())
def test_launchers_words_become_one_line(code, tail, expected):
    """Which rank, which signal, and the number as it was."""
    told = cause(tail="iteration 9\n" + tail, code=code, signal_number=None, out_of_memory=False)

    assert told == expected


def test_memory_is_named_only_if_a_kill_fits_it():
    """The kernel's counter alone convicts nobody: the end must be one by KILL."""
    killed = cause(tail="", code=137, signal_number=None, out_of_memory=True)
    crashed = cause(tail="", code=139, signal_number=None, out_of_memory=True)

    assert killed == "out of memory: the kernel killed a process of this node; exit 137"
    assert crashed == "exit 139"


def test_good_end_has_no_cause():
    assert cause(tail="all is well\n", code=0, signal_number=None, out_of_memory=False) == ""


def test_unknown_signal_has_its_number():
    assert cause(tail="", code=None, signal_number=63, out_of_memory=False).endswith("killed by signal 63")


def test_mpich_names_a_process_and_we_know_its_rank():
    """The number of the rank by the pid in its words."""
    said = (
        "= BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 26540 RUNNING AT vm\n=   EXIT CODE: 9\n"
        "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)\n"
    )
    told = cause(tail=said, code=9, signal_number=None, out_of_memory=False, ranks={26540: "5", 26541: "6"})

    assert "rank 5 was killed by signal 9 (SIGKILL) (exit 9)" == told


def test_the_kernels_victim_is_named_if_it_is_ours():
    """A victim that was nobody of this run is not the cause, unless the count of our control group says so."""
    victims = [Victim(1, "other", 5), Victim(26540, "lmp", 58_000_000)]
    told = cause(tail="", code=137, signal_number=None, out_of_memory=False, victims=victims, ranks={26540: "5"})

    assert "out of memory: the kernel killed rank 5 (lmp, 58 MB); exit 137" == told
    assert "exit 137" == cause(tail="", code=137, signal_number=None, out_of_memory=False, victims=victims[:1])


def test_the_kernels_words_are_read_from_the_start_of_the_solve(tmp_path):
    """Both of its ways to say it; what was said before is not ours."""
    messages = tmp_path / "kmsg"
    messages.write_text("3,1,1,-;Out of memory: Killed process 11 (before) total-vm:1kB, anon-rss:1kB\n")
    words = KernelWords(path=str(messages))
    with messages.open("a") as file:
        file.write("6,2,2,-;eth0: link up\n")
        file.write(
            "3,3,3,-;Memory cgroup out of memory: Killed process 12 (a b) total-vm:9kB, anon-rss:3kB, file-rss:0kB\n"
        )

    assert [Victim(12, "a b", 3072)] == words.victims()
    assert [] == KernelWords(path=str(tmp_path / "none")).victims()
