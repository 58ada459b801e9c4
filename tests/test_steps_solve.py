"""The solver's command: how it is found, started, shown, stopped, and how it is told what became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from byos_run.errors import NodeUnfit, Stopped, UsageError
from byos_run.model import Case, Job, Place, S3Url, SolverSettings, Success
from byos_run.node.members import MARKER
from byos_run.node.mpi import mapped
from byos_run.node.outlet import Outlet
from byos_run.node.stop import Stop
from byos_run.steps.solve import prepare, solve

SOLVERS = Path(__file__).parent / "solvers"
RANKS = 4
OPEN_MPI_ENVIRON = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def program(name, *arguments):
    return (sys.executable, str(SOLVERS / name), *arguments)


def living(run_id):
    """Pids of the living processes that carry the run's mark."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARKER}={run_id}:".encode() in (directory / "environ").read_bytes()
            zombie = (directory / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            continue
        if marked and not zombie:
            found.append(int(directory.name))
    return found


def segments(run_id):
    """Shared memory that the run's processes have mapped: a rank that is killed leaves it."""
    return {path for pid in living(run_id) for path in mapped(pid).shared_memory}


def remove(paths):
    for path in paths:
        Path(path).unlink(missing_ok=True)


class Runner:
    """A run directory with a case; solves commands in it and checks after each that nothing of the run lives."""

    def __init__(self, directory):
        self.directory = directory
        self.case = Case(directory / "case", directory / "solver.log")
        self.case.directory.mkdir(parents=True)
        self.run_id = uuid.uuid4().hex
        self.stop = Stop()
        self.output = b""
        self.running = None
        self.ask_when = {}

    def launch(self, command, *, started_with=None, **settings):
        self.job = Job(
            input=(S3Url("b", "in.zip"),),
            output=S3Url("b", "out/"),
            command=tuple(command),
            solver=SolverSettings(**settings),
        )
        self.place = Place(run_directory=self.directory, environ={**os.environ, **(started_with or {})})
        return prepare(job=self.job, place=self.place)

    def __call__(self, command, *, started_with=None, **settings):
        launch = self.launch(command, started_with=started_with, **settings)
        try:
            solved = solve(
                launch=launch,
                job=self.job,
                case=self.case,
                place=self.place,
                attempt_id=self.run_id,
                stop=self.stop,
                echo=self.echo,
                on_start=lambda running: setattr(self, "running", running),
            )
        finally:
            assert living(self.run_id) == []
        remove(solved.shared_memory)
        return solved

    def when(self, text, *, times=1, act=None):
        """Ask to stop, or call *act*, as soon as the output holds *text* so many times."""
        self.ask_when[text.encode()] = (times, act or (lambda: self.stop.ask("SIGTERM")))
        return self

    def echo(self, lines):
        self.output += lines
        for text, (times, act) in list(self.ask_when.items()):
            if self.output.count(text) >= times:
                del self.ask_when[text]
                act()

    @property
    def log(self):
        return self.case.log.read_bytes()


@pytest.fixture
def run(tmp_path):
    return Runner(tmp_path)


# ---------------------------------------------------------------- before the fetch


def test_cores_are_expanded_in_every_word(run):
    """``{cores}`` is the slot's number of cores; nothing else in braces is touched."""
    launch = run.launch(
        ["echo", "-np", "{cores}", "x{cores}y", "{ranks}"], started_with={"RESCALE_CORES_PER_SLOT": "8"}
    )

    assert launch.command == ("echo", "-np", "8", "x8y", "{ranks}")


def test_missing_command_is_named_before_the_fetch(run):
    """A bare name that PATH does not have: exit 71, and PATH is shown."""
    with pytest.raises(NodeUnfit, match=r'"converge" is not on PATH \(/nowhere\)'):
        run.launch(["converge", "super"], started_with={"PATH": "/nowhere"})


def test_absolute_command_without_execute_permission_is_named_as_such(run):
    """It exists, so it is not called missing."""
    file = run.directory / "solver"
    file.write_text("#!/bin/sh\n")

    with pytest.raises(NodeUnfit, match="has no execute permission"):
        run.launch([str(file)])


def test_relative_command_is_looked_up_in_the_fetched_case(run):
    """The file need not be there when the run is prepared; it is one of the case."""
    launch = run.launch(["./run.sh"])
    (run.case.directory / "run.sh").write_text("#!/bin/sh\necho here\n")
    (run.case.directory / "run.sh").chmod(0o755)

    assert launch.path == ""
    assert run(["./run.sh"]).succeeded
    assert run.output == b"here\n"


def test_relative_command_that_the_case_lacks_is_exit_71(run):
    with pytest.raises(NodeUnfit, match=r"run\.sh\" does not exist"):
        run(["./run.sh"])


@pytest.mark.parametrize("first", ["", "#!/no/such/interpreter\n", "#!/bin/sh\r\n"], ids=["none", "missing", "cr lf"])
def test_script_that_the_kernel_cannot_execute_is_exit_71(run, first):
    """The reason is the kernel's, the hint names the first line."""
    file = run.case.directory / "run.sh"
    file.write_bytes(f"{first}echo here\n".encode())
    file.chmod(0o755)

    with pytest.raises(NodeUnfit, match="cannot be executed") as caught:
        run(["./run.sh"])

    assert "first line" in caught.value.hint


def test_several_nodes_are_refused(run):
    with pytest.raises(NodeUnfit, match="spans 2 nodes"):
        run.launch(["echo"], started_with={"RESCALE_NODES_PER_SLOT": "2"})


def test_more_ranks_than_cores_is_said(run):
    launch = run.launch(["env", "-np", "4096"])

    assert any("4096 ranks share" in line for line in launch.warnings)


def test_open_mpi_that_binds_while_slots_share_the_node_is_said(run, openmpi):
    """Only then: not with --bind-to none, not when the slot is the whole node."""
    shared = {"RESCALE_CORES_PER_SLOT": "8", "RESCALE_CORES_PER_NODE": "16"}
    mpirun = str(openmpi / "mpirun")

    assert any("--bind-to none" in line for line in run.launch([mpirun, "-np", "1", "x"], started_with=shared).warnings)
    for words, started_with in (
        ([mpirun, "--bind-to", "none", "-np", "1", "x"], shared),
        ([mpirun, "-np", "1", "x"], {**shared, "RESCALE_CORES_PER_NODE": "8"}),
    ):
        assert not any("--bind-to" in line for line in run.launch(words, started_with=started_with).warnings)


def test_mpich_is_not_warned_about_binding(run, mpich):
    shared = {"RESCALE_CORES_PER_SLOT": "8", "RESCALE_CORES_PER_NODE": "16"}

    assert not any(
        "bind" in line for line in run.launch([str(mpich / "mpirun"), "-np", "1", "x"], started_with=shared).warnings
    )


# ---------------------------------------------------------------- where, with what


@pytest.mark.parametrize(
    ("files", "directory"),
    [
        (["a/b/inputs.in"], "a/b"),
        (["inputs.in", "a/x"], ""),
        (["a/inputs.in", "b/inputs.in"], ""),
        (["a/x"], ""),
    ],
    ids=["one below", "at the top", "two", "none"],
)
def test_auto_directory_is_the_one_that_holds_inputs_in(run, files, directory):
    for name in files:
        (run.case.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (run.case.directory / name).touch()

    run(program("says_environ.py"))

    expected = str(run.case.directory / directory)
    assert expected == json.loads(run.output)["cwd"] == json.loads(run.output)["PWD"]


@pytest.mark.parametrize("name", ["nowhere", "..", "link"])
def test_directory_outside_the_case_is_refused(run, name):
    (run.case.directory / "link").symlink_to("/")

    with pytest.raises(UsageError, match=r"solver\.directory"):
        run(["true"], directory=name)


def test_no_secret_reaches_the_solver(run):
    """AWS's keys and whatever leads to them, the platform's API key and our own settings stay out; all else goes in."""
    secrets = {
        "AWS_ACCESS_KEY_ID": "s3cret", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "s3cret",
        "AWS_SECURITY_TOKEN": "s3cret", "AWS_PROFILE": "s3cret", "AWS_DEFAULT_PROFILE": "s3cret",
        "AWS_CONFIG_FILE": "s3cret", "AWS_SHARED_CREDENTIALS_FILE": "s3cret", "AWS_CREDENTIAL_EXPIRATION": "s3cret",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "s3cret", "AWS_ROLE_ARN": "s3cret", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "s3cret",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret", "RESCALE_API_KEY": "s3cret", "RESCALE_API_TOKEN": "s3cret",
        "BYOS_INPUT": "s3cret",
    }  # fmt: skip
    kept = {"AWS_REGION": "eu-west-1", "RESCALE_CORES_PER_SLOT": "2", "LD_LIBRARY_PATH": "/x", "OMP_NUM_THREADS": "1"}

    run(program("says_environ.py"), started_with={**secrets, **kept})

    seen = json.loads(run.output)
    assert b"s3cret" not in run.log
    assert kept.items() <= seen.items()
    assert {name for name in seen if name.startswith("BYOS_")} == {MARKER}


def test_variables_are_added_and_given_back_as_asked(run):
    """``env`` wins over what we were started with; ``pass_env`` gives back what would have been removed."""
    started_with = {"AWS_PROFILE": "mine", "X": "old"}

    launch = run.launch(["true"], started_with=started_with, env={"X": "new"}, pass_env=("AWS_PROFILE", "UNSET"))

    assert launch.environ["AWS_PROFILE"] == "mine"
    assert launch.environ["X"] == "new"
    assert "UNSET" not in launch.environ


def test_standard_input_is_empty(run):
    """A solver that asks a question gets no answer instead of waiting for ever."""
    assert run(["cat"]).succeeded


# ---------------------------------------------------------------- its end


@pytest.mark.parametrize(
    ("script", "code", "cause"),
    [
        ("exit 0", 0, ""),
        ("exit 3", 3, "exit 3"),
        ("exit 126", 126, "cannot be executed"),
        ("no-such-solver", 127, "was not found"),
        ("kill -SEGV $$", 128 + 11, "killed by signal 11 (SIGSEGV)"),
    ],
)
def test_the_number_is_passed_on_and_named(run, script, code, cause):
    solved = run(["bash", "-c", script])

    assert code == solved.code
    assert cause in solved.cause
    assert (code == 0) == solved.succeeded
    assert solved.stopped_by == ""


def test_success_needs_all_that_was_asked(run):
    """Exit 0 without the end marker is a failure with code 1, and the cause says which part is missing."""
    solved = run(["echo", "iteration 7"], success=Success(log_pattern="NORMAL END"))

    assert (solved.code, solved.succeeded) == (1, False)
    assert '"NORMAL END"' in solved.cause


def test_success_is_found_in_log_and_case(run):
    asked = Success(exit=(0, 4), log_pattern=r"^NORMAL\s+END$", file="out/result.dat")

    solved = run(["bash", "-c", "mkdir out; > out/result.dat; echo start; echo NORMAL END; exit 4"], success=asked)

    assert (solved.code, solved.succeeded, solved.exit_code, solved.cause) == (0, True, 4, "")


def test_success_file_that_is_missing_is_named(run):
    assert '"result.dat"' in run(["true"], success=Success(file="result.dat")).cause


def test_start_after_the_wish_to_stop_is_none(run):
    run.stop.ask("SIGTERM")

    with pytest.raises(Stopped):
        run(["true"])


# ---------------------------------------------------------------- its output


def test_log_is_whole_whatever_is_shown(run):
    """A million lines: the log has each of them, and so has who reads along."""
    solved = run(program("floods.py", "1000000"))

    assert solved.succeeded
    assert run.log.count(b"\n") == 1_000_000
    assert run.log == run.output


@pytest.mark.parametrize("reader", ["asleep", "gone"])
def test_reader_of_standard_output_never_holds_the_solver(run, reader):
    """Nobody takes a byte of it, or nobody is there: the solver ends as ever, and the log is whole."""
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    if reader == "gone":
        os.close(reading)
    run.echo = outlet.write

    assert run(program("floods.py", "300000")).succeeded
    assert run.log.count(b"\n") == 300_000
    assert outlet.lost_lines > 100_000

    outlet.close(within_s=0)
    os.close(writing)
    if reader == "asleep":
        os.close(reading)


@pytest.mark.parametrize(("echo", "expected"), [("none", 0), ("tail", 50), ("all", 1000)])
def test_echo_shows_as_much_as_is_asked(run, echo, expected):
    run(program("floods.py", "1000"), echo=echo)

    assert expected == run.output.count(b"\n")
    assert not expected or run.output.endswith(b"line 999\nline 1000\n")
    assert run.log.count(b"\n") == 1000


def test_endless_line_is_cut_for_showing_and_whole_in_the_log(run):
    """64 MiB without a newline: 64 KiB of it are shown, and the short line after it."""
    run(program("one_long_line.py", "64"))

    assert (64 << 20) + len("\nthe end\n") == len(run.log)
    assert run.output == b"x" * 65536 + b" ...\nthe end\n"


def test_binary_output_is_kept_as_it_is(run):
    run(program("binary_output.py"))

    assert bytes(range(256)) * 1000 + b"last" == run.log
    assert run.log + b"\n" == run.output


def test_log_that_takes_nothing_neither_stops_nor_fails_the_solver(run):
    """A full disk under the log: the loss is counted and said."""
    run.case = Case(run.case.directory, Path("/dev/full"))

    solved = run(program("floods.py", "1000"))

    assert solved.succeeded
    assert run.output.count(b"\n") == 1000
    assert any("lacks" in note and "No space left" in note for note in solved.notes)


# ---------------------------------------------------------------- being stopped


def test_solver_that_obeys_ends_at_once_and_well(run):
    """TERM, its results are written, and the run is stopped, neither failed nor succeeded."""
    solved = run.when("ready")(program("obeys.py"))

    assert (solved.stopped_by, solved.code, solved.exit_code, solved.succeeded) == ("SIGTERM", 0, 0, False)
    assert (run.case.directory / "results.dat").exists()


def test_solver_that_ignores_term_is_killed_after_the_grace(run):
    solved = run.when("ready")(program("ignores_term.py"), grace_s=0.3)

    assert (solved.stopped_by, solved.signal) == ("SIGTERM", signal.SIGKILL)


def test_second_signal_cuts_the_grace_short(run):
    """With an hour of grace, the second wish ends the run at once."""

    def ask_twice():
        run.stop.ask("SIGTERM")
        run.stop.ask("SIGTERM")

    began = time.monotonic()
    run.when("ready", act=ask_twice)(program("ignores_term.py"), grace_s=3600)

    assert time.monotonic() - began < 60


def test_ranks_in_sessions_of_their_own_are_killed(run):
    """What no process group and no session reaches."""
    run.when("ready", times=4)(program("own_sessions.py"), grace_s=0.2)


def test_time_limit_stops_and_is_named(run):
    solved = run(program("obeys.py"), time_limit_s=0.5)

    assert solved.stopped_by == "time limit 0.5s"
    assert 0.5 <= solved.seconds < 60


def test_stop_file_comes_first_and_its_removal_is_waited_for(run):
    """The restart is written before TERM is sent; nothing is left of the file."""
    solved = run.when("ready")(program("stop_file.py", "STOP"), stop_file="STOP", grace_s=100)

    assert os.listdir(run.case.directory) == ["restart.dat"]
    assert run.log == b"ready\nrestart written\nstopped by TERM\n"
    assert solved.exit_code == 1
    assert solved.seconds < 30


def test_stop_file_that_nobody_heeds_costs_part_of_the_grace(run):
    """TERM still comes within the grace, and the file that was left is told."""
    solved = run.when("ready")(program("obeys.py"), stop_file="STOP", grace_s=4)

    assert solved.exit_code == 0
    assert "the solver did not remove the stop file" in solved.notes


def test_daemon_that_outlives_the_command_is_ended_and_named(run):
    """It has no ancestry, no session, no mark and holds our output open; the log still ends."""
    solved = run(program("leaves_daemon.py", "611"))

    assert solved.succeeded
    assert [note for note in solved.notes if "outlived" in note and "sleep" in note]
    assert subprocess.run(["pgrep", "-f", "sleep 611"], check=False, stdout=subprocess.DEVNULL).returncode == 1


def test_shim_killed_takes_the_run_with_it(run):
    """The process between us and the launcher is killed outright: the rest is found and ended, and the cause is told."""
    run.when("ready", act=lambda: os.kill(parent_of(run.running.launcher), signal.SIGKILL))

    solved = run(program("ignores_term.py"))

    assert (solved.code, solved.exit_code) == (1, None)
    assert "watched it was killed" in solved.cause


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


AGENT = """
import sys, tests.test_steps_solve as here
from pathlib import Path
run = here.Runner(Path(sys.argv[1]))
run.run_id = sys.argv[2]
run.echo = lambda lines: (sys.stdout.buffer.write(lines), sys.stdout.flush())
run(sys.argv[3:])
"""


def start_agent(directory, run_id, command, *, ready, environ=None):
    """Another process that solves *command*; returns when its output has "ready" so many times."""
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(directory), run_id, *command],
        env={**os.environ, **(environ or {}), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    count = 0
    while count < ready:
        count += agent.stdout.readline().startswith(b"ready")
    return agent


def await_nobody(run_id):
    """Seconds until nothing that carries the mark lives."""
    began = time.monotonic()
    while living(run_id):
        assert time.monotonic() - began < 100, f"still alive: {living(run_id)}"
        time.sleep(0.02)
    return time.monotonic() - began


def test_nothing_survives_the_agents_sudden_death(run):
    """KILL to the agent alone; the solver ignores TERM."""
    with start_agent(run.directory / "other", run.run_id, program("ignores_term.py"), ready=1) as agent:
        agent.kill()

        assert await_nobody(run.run_id) < 60


def test_neighbour_of_the_same_user_is_left_alone(run, tmp_path_factory):
    """Two runs at once: one is stopped and killed, the other goes on to its own end."""
    other = tmp_path_factory.mktemp("other") / "run"
    with start_agent(other, "b" * 32, program("ignores_term.py"), ready=1) as neighbour:
        run.when("ready")(program("ignores_term.py"), grace_s=0.1)

        assert neighbour.poll() is None
        assert len(living("b" * 32)) == 2  # its shim and its solver
        neighbour.kill()
    await_nobody("b" * 32)


# ---------------------------------------------------------------- real MPI


@pytest.fixture(params=["mpich", "openmpi"])
def mpi(request, run):
    """Makes the command line of a real MPI job, and solves it."""
    binaries = request.getfixturevalue(request.param)
    flags = ("--oversubscribe", "--bind-to", "none") if request.param == "openmpi" else ()

    def go(*words, **settings):
        return run(go.command(*words), started_with=OPEN_MPI_ENVIRON, **settings)

    def command(*words):
        rank = (str(binaries / "python"), str(SOLVERS / "mpi_rank.py"), *words)
        return (str(binaries / "mpirun"), *flags, "-n", str(RANKS), *rank)

    go.command = command
    go.is_mpich = request.param == "mpich"
    return go


def test_mpi_job_ends_well(run, mpi):
    solved = mpi("ends")

    assert (solved.code, solved.succeeded, solved.cause, solved.notes) == (0, True, "", ())
    assert sorted(f"ready {rank} of {RANKS}" for rank in range(RANKS)) == sorted(run.log.decode().split("\n")[:-1])
    assert solved.peak_memory_bytes > 10 << 20


def test_rank_killed_by_a_signal_is_told(run, mpi):
    """The number differs between the flavours, the sentence does not."""
    solved = mpi("dies=1:11")

    assert not solved.succeeded
    assert "was killed by signal 11 (SIGSEGV)" in solved.cause
    assert mpi.is_mpich or "rank 1" in solved.cause


def test_abort_is_told_with_rank_and_number(run, mpi):
    """MPICH's launcher may end before it has passed on what the rank said of its abort: then there is only the number."""
    told = []
    for _ in range(20):
        solved = mpi("aborts=2:17")
        assert solved.code == 17
        told.append(solved.cause)
        if told[-1] != "exit 17":
            break

    assert "rank 2 called MPI_Abort with code 17" in told[-1]


def test_ranks_that_obey_finish_on_every_flavour(run, mpi):
    """TERM reaches the ranks and not the launcher, which would kill them in the midst of their results."""
    run.when("ready", times=RANKS)

    solved = mpi("obeys", grace_s=20)

    assert (solved.stopped_by, solved.exit_code) == ("SIGTERM", 0)
    assert run.log.count(b"finished") == RANKS


def test_ranks_that_ignore_term_are_killed_and_a_daemon_too(run, mpi):
    run.when("ready", times=RANKS)

    solved = mpi("deaf", "daemon", "waits", grace_s=0.3)

    assert solved.stopped_by == "SIGTERM"
    assert solved.seconds < 60


def test_segments_of_shared_memory_are_seen(run, mpi):
    """So that those which a killed rank leaves can be told from a neighbour's."""
    run.when("ready", times=RANKS)

    solved = mpi("waits", grace_s=5)

    assert solved.shared_memory
    assert all(path.startswith("/dev/shm/") for path in solved.shared_memory)


def test_nothing_of_an_mpi_job_survives_the_agents_sudden_death(run, mpi):
    command = mpi.command("deaf", "waits")
    with start_agent(run.directory / "other", run.run_id, command, ready=RANKS, environ=OPEN_MPI_ENVIRON) as agent:
        left = segments(run.run_id)
        agent.kill()

        assert await_nobody(run.run_id) < 60
    remove(left)


def test_nothing_of_an_mpi_job_survives_the_shims_sudden_death(run, mpi):
    run.when("ready", times=RANKS, act=lambda: os.kill(parent_of(run.running.launcher), signal.SIGKILL))

    assert mpi("deaf", "waits").code == 1


def test_launcher_that_waits_for_its_killed_proxy_is_ended(run, mpich):
    """hydra would wait for ever; the cause says what it waits for."""
    command = [str(mpich / "mpirun"), "-n", "2", str(mpich / "python"), str(SOLVERS / "mpi_rank.py"), "proxy", "waits"]

    solved = run(command)

    assert (solved.code, solved.stopped_by) == (1, "")
    assert "hydra_pmi_proxy was killed" in solved.cause


def test_one_rank_jobs_of_the_wrong_launcher_are_stopped(run, mpich, openmpi):
    """MPICH's mpirun with a program of Open MPI: N jobs of one rank that would all write the same files."""
    command = [str(mpich / "mpirun"), "-n", "2", str(openmpi / "python"), str(SOLVERS / "mpi_rank.py"), "waits"]

    with pytest.raises(NodeUnfit, match="2 one-rank jobs run where one job of 2 ranks was asked"):
        run(command, started_with=OPEN_MPI_ENVIRON)


def test_plain_programs_below_a_launcher_are_no_singletons(run, mpi):
    """``mpirun -n 4 sleep``: no MPI library, no verdict."""
    launcher = mpi.command()[: mpi.command().index(str(RANKS)) + 1]

    assert run([*launcher, "sleep", "1.5"], started_with=OPEN_MPI_ENVIRON).succeeded


@pytest.mark.parametrize("ending", ["kill -TERM $$", "exit 15", "exit 143"])
def test_ranks_that_were_told_to_end_before_us_were_stopped(run, ending):
    """Slurm tells the steps of a job first: a command that TERM ended is no failure if the same wish reaches us a moment later."""
    solved = run.when("ready", act=lambda: threading.Timer(0.5, run.stop.ask, ["SIGTERM"]).start())(
        ("sh", "-c", f"echo ready; sleep 0.2; {ending}")
    )

    assert (solved.stopped_by, solved.succeeded) == ("SIGTERM", False)
