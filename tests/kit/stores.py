"""Real stores on this machine: MinIO, SeaweedFS and Versity Gateway, each a context manager that yields a Store.

    free loopback ports -> server in a session of its own -> wait until it says it is healthy -> yield -> stop it, all of it

A server dies with the thread that started it (PR_SET_PDEATHSIG), so a killed test run leaves none behind: start it from a
thread that outlives its use. Everything it writes is below the directory given, which is the caller's to remove.
SeaweedFS appends for ever: give it a directory on a disk, not one in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import boto3.compat
from botocore.config import Config
from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ACCESS_KEY = "KITACCESSKEY00000001"
SECRET_KEY = "kit/secret+key/that/no/log/may/ever/show"
START_S = 60.0
TRIES = 3  # a port that was free a moment ago may be taken by the time the server binds it

# The kernel ties the server's life to ours; preexec_fn would do it too, but forks Python beside its threads.
TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    raise SystemExit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


boto3.compat.filter_python_deprecation_warnings()  # 3.9 is supported here, whatever boto3 thinks of its age


class Store(NamedTuple):
    """A running store and the keys of the one who may do everything."""

    name: str
    """`minio`, `seaweedfs` or `versitygw`."""
    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    version: str
    """As the program gives it, for the header of a run."""
    pid: int

    def client(self, **settings: Any) -> Any:
        """An S3 client of the store, with path addressing; `settings` go to botocore's Config."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, **settings),
        )


@contextmanager
def minio(
    directory: Path, *, certificates: Path | None = None, extra: Mapping[str, str] | None = None
) -> Iterator[Store]:
    """MinIO on one directory. `certificates` holds `public.crt` and `private.key`: then it speaks https.

    `extra`: further variables of its environment. Raises cache.CacheError, RuntimeError if it does not come up.
    """
    program = cache.get("minio")
    scheme = "https" if certificates else "http"
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    env = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "MINIO_BROWSER": "off"}
    env.update({"MINIO_UPDATE": "off", **(extra or {})})

    def command(ports: Sequence[int]) -> list[str]:
        addresses = ["--address", f"127.0.0.1:{ports[0]}", "--console-address", f"127.0.0.1:{ports[1]}"]
        keys = ["--certs-dir", str(certificates or directory / "certificates")]
        return [str(program), "server", "--quiet", *addresses, *keys, str(data)]

    with _running(
        "minio", directory, command=command, ports=2, env=env, health=f"{scheme}://127.0.0.1:%d/minio/health/ready"
    ) as (port, pid):
        version = cache.MINIO_MODULE[-12:] if cache.root() in program.parents else _said(program, "--version", word=2)
        yield Store("minio", f"{scheme}://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, "us-east-1", version, pid)


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Store]:
    """SeaweedFS on one directory. Raises cache.CacheError, RuntimeError if it does not come up."""
    program = cache.get("seaweedfs")
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "kit",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}), encoding="utf-8")

    def command(ports: Sequence[int]) -> list[str]:
        names = ("s3", "master", "volume", "filer")
        flags = [f"-{name}.port={port}" for name, port in zip(names, ports)]
        flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:])]
        # Every bucket is a collection of its own volumes: the default of 8 in all would do for one bucket.
        flags += ["-volume.max=10000", "-master.volumeSizeLimitMB=1024", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        flags += ["-s3.iam=false", f"-s3.config={directory / 's3.json'}", "-master.telemetry=false"]
        where = [f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        return [str(program), "-logtostderr=true", "server", *where, "-filer", "-s3", *flags]

    with _running("seaweedfs", directory, command=command, ports=8, env={}, health="http://127.0.0.1:%d/healthz") as (
        port,
        pid,
    ):
        version = _said(program, "version", word=2)
        yield Store("seaweedfs", f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, "us-east-1", version, pid)


@contextmanager
def versitygw(directory: Path) -> Iterator[Store]:
    """Versity Gateway over a plain directory, whose file system must have user attributes.

    Raises cache.CacheError, RuntimeError if it does not come up.
    """
    program = cache.get("versitygw")
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    env = {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}

    def command(ports: Sequence[int]) -> list[str]:
        flags = ["--quiet", "--port", f"127.0.0.1:{ports[0]}", "--health", "/kit-health"]
        return [str(program), *flags, "posix", str(data)]

    with _running(
        "versitygw", directory, command=command, ports=1, env=env, health="http://127.0.0.1:%d/kit-health"
    ) as (
        port,
        pid,
    ):
        version = cache.VERSITYGW_MODULE.rpartition("@")[2]
        yield Store("versitygw", f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY, "us-east-1", version, pid)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on the cache's disk, removed afterwards; those of killed processes go too."""
    cache.root().mkdir(parents=True, exist_ok=True)
    for left in cache.root().glob("store-*"):
        if not os.path.exists(f"/proc/{left.name.split('-')[1]}"):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"store-{os.getpid()}-", dir=str(cache.root())) as directory:
        yield Path(directory)


@contextmanager
def any_store(directory: Path) -> Iterator[Store]:
    """MinIO, or SeaweedFS where MinIO cannot be had."""
    server = minio if cache.store().name == "minio" else seaweedfs
    with server(directory) as store:
        yield store


@contextmanager
def _running(
    name: str, directory: Path, *, command: Any, ports: int, env: Mapping[str, str], health: str
) -> Iterator[tuple[int, int]]:
    """Starts `command(free ports)`, yields the first port and the pid once `health` answers 200; stops it at the end."""
    log = directory / "server.log"
    surroundings = {"PATH": os.defpath, "HOME": str(directory), "TMPDIR": str(directory), **env}
    for _ in range(TRIES):
        chosen = _free_ports(ports)
        tied = [sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *command(chosen)]
        with open(log, "ab") as out:
            server = subprocess.Popen(
                tied, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=surroundings, cwd=str(directory),
                start_new_session=True,
            )  # fmt: skip
        with ExitStack() as stack:
            stack.callback(_stop, server, chosen)
            if _healthy(health % chosen[0], server):
                yield chosen[0], server.pid
                return
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
    raise RuntimeError("\n".join([f"{name} did not come up in {TRIES} tries of {START_S:.0f} s", *tail]))


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _healthy(url: str, server: subprocess.Popen[bytes]) -> bool:
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting))
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with direct.open(url, timeout=5) as answer:
                # MinIO answers 200 also while it is not initialized, and refuses requests: only this header tells.
                if answer.status == 200 and answer.headers.get("X-Minio-Server-Status", "") != "offline":
                    return True
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.05)  # nothing tells when a foreign server is ready: it has to be asked
    return False


def _stop(server: subprocess.Popen[bytes], ports: Sequence[int]) -> None:
    # KILL at once: the data is thrown away, and SeaweedFS takes many seconds to end in order.
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink()


def _said(program: Path, *arguments: str, word: int) -> str:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[word] if len(words) > word else "?"
