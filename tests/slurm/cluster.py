"""A real Slurm of one node on this machine: munged, slurmctld, slurmd, with a key, ports and a state directory of their own.

    packages, if they are not there (apt-get, as root) -> slurm.conf -> munged -> slurmctld -> slurmd -> idle
    the node is said to have 8 processors, whatever it has: two slots of 4
    the end: whatever of the jobs lives, then the daemons, by their ids

Root is needed by apt-get and by slurmd, which changes users. Debian's own munge and Slurm services are not touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PACKAGES = ("slurm-wlm", "munge", "libpmix-dev", "libopenmpi3")
"""The PMIx library that Slurm loads by its bare name, and an Open MPI of the same PMIx: newer ones do not speak with it."""
CPUS = 8
KILL_WAIT_S = 20
START_S = 60.0
CONFIG = """\
ClusterName=byos
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={top}/munge.socket
CredType=cred/munge
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd.pid
SlurmctldLogFile={top}/slurmctld.log
SlurmdLogFile={top}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait={kill_wait}
OverTimeLimit=0
SchedulerParameters=batch_sched_delay=0,sched_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Debian's packages, if they are not there. RuntimeError if they cannot be had."""
    there = subprocess.run(["dpkg", "-s", *PACKAGES], capture_output=True, check=False)
    if there.returncode == 0:
        return
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"apt-get {command[0]}: exit {done.returncode}\n{done.stderr[-2000:]}")


@dataclass
class Slurm:
    """A running cluster."""

    top: Path
    daemons: dict[str, subprocess.Popen[bytes]]

    def environ(self) -> dict[str, str]:
        return {
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "SLURM_CONF": str(self.top / "slurm.conf"),
            "LANG": "C.UTF-8",
        }

    def tell(self, *command: str) -> str:
        """What a Slurm command prints. AssertionError if it fails."""
        done = subprocess.run(command, env=self.environ(), capture_output=True, text=True, check=False)
        assert not done.returncode, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, directory: Path, script: str, *flags: str, environ: Mapping[str, str]) -> str:
        """The id of a batch job that runs *script* in *directory*, with *environ*; its log is ``INDEX.log`` there."""
        done = subprocess.run(
            ["sbatch", "--parsable", f"--chdir={directory}", f"--output={directory}/%a.log", *flags, "--wrap", script],
            env={**environ, "SLURM_CONF": str(self.top / "slurm.conf")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def states(self, job: str) -> list[str]:
        """Of the job, or of each row of an array, that Slurm still lists."""
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={job}"], env=self.environ(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.split()

    def wait(self, job: str, *, within_s: float) -> None:
        """Until Slurm knows of no more of it. AssertionError with the logs if it takes longer."""
        self.until(lambda: not self.states(job), within_s=within_s, what=f"the end of job {job}")

    def until(self, holds: Callable[[], object], *, within_s: float, what: str) -> None:
        end = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > end:
                tail = (self.top / "slurmctld.log").read_text()[-1500:]
                raise AssertionError(f"no {what} within {within_s:.0f} s; {self.tell('squeue')}\n{tail}")
            time.sleep(0.2)  # nothing else tells: Slurm has to be asked

    def start_slurmd(self) -> None:
        self._start("slurmd", "-D", "-f", str(self.top / "slurm.conf"), "-N", "localhost")
        self.until(
            lambda: "idle" in self.tell("sinfo", "--noheader", "--format=%t"), within_s=START_S, what="idle node"
        )

    def lose_node(self) -> None:
        """As a power cut does it: slurmd, its steps and all processes of all jobs die at once, without a word."""
        for pid in [self.daemons["slurmd"].pid, *self._of_jobs()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.daemons["slurmd"].wait()

    def _of_jobs(self) -> list[int]:
        """slurmstepd, and all that came of it: found by the address of this cluster in their environments."""
        mark, found = f"SLURM_CONF={self.top}/slurm.conf".encode(), []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes()
                environ = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                is_daemon = int(name) in {daemon.pid for daemon in self.daemons.values()}
                if (
                    (mark in environ or words.startswith(b"slurmstepd: ["))
                    and not is_daemon
                    and int(name) != os.getpid()
                ):
                    found.append(int(name))
        return found

    def _start(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=self.environ()["PATH"])
        assert program
        with open(self.top / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(
                [program, *arguments], env=self.environ(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        ports = _free_ports(2)
        for name in ("state", "spool"):
            (self.top / name).mkdir()
        config = CONFIG.format(
            top=self.top, host=socket.gethostname(), ctld=ports[0], slurmd=ports[1], cpus=CPUS, kill_wait=KILL_WAIT_S
        )
        (self.top / "slurm.conf").write_text(config)
        key = self.top / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self._start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.top}/munge.socket",
            f"--pid-file={self.top}/munged.pid", f"--seed-file={self.top}/munge.seed", "--num-threads=2",
        )  # fmt: skip
        self.until((self.top / "munge.socket").exists, within_s=START_S, what="munge socket")
        self._start("slurmctld", "-D", "-f", str(self.top / "slurm.conf"))
        self.until(lambda: subprocess.run(
            ["scontrol", "ping"], env=self.environ(), capture_output=True, check=False).returncode == 0,
            within_s=START_S, what="slurmctld",
        )  # fmt: skip
        self.start_slurmd()

    def stop(self) -> None:
        if "slurmctld" in self.daemons:
            subprocess.run(["scancel", "--state=RUNNING"], env=self.environ(), capture_output=True, check=False)
        for pid in self._of_jobs():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in reversed(list(self.daemons.values())):
            daemon.kill()
            daemon.wait()


@contextmanager
def slurm(top: Path) -> Iterator[Slurm]:
    """A cluster whose every file is below *top*. RuntimeError if it cannot be had."""
    install()
    top.chmod(0o755)
    cluster = Slurm(top, {})
    with ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
