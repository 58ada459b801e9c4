"""A run, its killing, and what must hold afterwards.

    lay out -> start -> reach the point -> SIGKILL -> nothing of the run lives; no manifest claims what is not there
    -> start again, in the same directory or in a fresh one -> exit 0; the truth in the bucket, nothing left here or there

The platform lays the files down anew before each start, as it does on a restarted node.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.proxy import FaultProxy
from tests.faults.rules import Call
from tests.kills.points import MEMBERS, Around, Point
from tests.kit import alive, cache, cases, runs

from byos_run.node.mpi import mapped

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.kit.stores import Store

LARGE_BYTES = 11_000_000
SOLVES = (
    "cat inputs.in > early.out; echo working; for i in 1 2 3 4 5 6; do echo $i > small.$i.out; done; "
    f"head -c {LARGE_BYTES} /dev/zero | tr '\\0' x > large.out; "
    # The platform laid "slow" down: then it goes on once the large file has left.
    '[ -e ../slow ] && for i in $(seq 150); do grep -q \'"path":"large.out"\' ../.byos/journal.jsonl && break; sleep 0.02; done; '
    "echo more >> inputs.in; echo done > late.out"
)
TRUTH = {
    "early.out": b"cells 8\n",
    "inputs.in": b"cells 8\nmore\n",
    "late.out": b"done\n",
    "large.out": b"x" * LARGE_BYTES,
    **{f"small.{index}.out": f"{index}\n".encode() for index in range(1, 7)},
}
MPI_STEPS = 60
_REACHED_S = 60.0
_GONE_S = 120.0
_NOTED_S = 2.0
"""Shared memory that is younger when everything dies at once may not be written down yet: a look comes twice a second."""


class Site:
    """A store with the inputs in one bucket; every try has a prefix, directories and a TMPDIR of its own."""

    def __init__(self, *, store: Store, data: Path | None, directory: Path, shipped_file: Path) -> None:
        """*data*: the directory that MinIO keeps its objects in, where its unfinished uploads can be counted."""
        self._data = data
        self._directory = directory
        self._file = shipped_file
        self._store = store
        self._client = store.client()
        self._bucket = f"kills-{os.getpid()}-{directory.name[-20:].strip('-').replace('_', '-')}".lower()
        self._mpi_truth: dict[str, bytes] = {}
        self._count = 0
        self._client.create_bucket(Bucket=self._bucket)
        case = {"inputs.in": "cells 8\n", **{f"mesh/{index}.dat": f"{index} " * 900 for index in range(MEMBERS)}}
        # More than the end of the zip, which is read first.
        case["noise.dat"] = random.Random(1).randbytes(3 << 20).hex()
        cases.sample_zip(directory / "case.zip", dict(case))
        cases.copper(directory / "copper.zip", steps=MPI_STEPS)
        for name in ("case.zip", "copper.zip"):
            self._client.upload_file(str(directory / name), self._bucket, f"in/{name}")

    def close(self) -> None:
        self._client.close()

    def try_point(self, point: Point, *, fresh: bool) -> list[str]:
        """What did not hold, one line each."""
        reached = threading.Event()
        with self._started(slow=not point.mpi, mpi=point.mpi) as run:

            def kill() -> None:
                if not reached.is_set():
                    reached.set()
                    run.kill(*point.whom)
                    if not point.when and point.at_byte < 0 and point.method:
                        raise ConnectionAbortedError  # a dead client's request does not reach the store

            if point.method:
                run.proxy.tell(point.rule(Call(kill, at_byte=point.at_byte, when=point.when)))
                run.go()
                _wait(lambda: reached.is_set() or run.process.poll() is not None, _REACHED_S)
            else:
                run.go()
                until = time.monotonic() + _REACHED_S
                while not reached.is_set() and run.process.poll() is None and time.monotonic() < until:
                    with suppress(OSError):
                        if point.seen is not None and point.seen(run.around):
                            kill()
            if not reached.is_set():
                return [f"the point was not reached; it said: {run.output[-2000:]}"]
            return self._afterwards(run, fresh=fresh, mpi=point.mpi)

    def try_moment(self, seconds: float, *, whom: tuple[str, ...], fresh: bool, mpi: bool) -> list[str]:
        """The same at a moment of the clock; a run that has ended by then only has to be whole."""
        with self._started(slow=bool(random.getrandbits(1)) and not mpi, mpi=mpi) as run:
            run.go()
            with suppress(Exception):
                run.process.wait(seconds)
            run.kill(*whom)
            return self._afterwards(run, fresh=fresh, mpi=mpi)

    def _afterwards(self, run: Running, *, fresh: bool, mpi: bool) -> list[str]:
        problems = []
        run.proxy.tell()
        try:
            run.process.wait(_GONE_S)
        except Exception:
            problems.append(f"it did not end after the kill: {run.output[-1000:]}")
            run.kill("all")
        if not _wait(lambda: not run.processes(), _GONE_S):
            problems.append(f"still alive after the kill: {[name for _, name in run.processes()]}")
            run.kill("all")
        problems += self._dishonest(run.prefix)
        again = run.restarted(fresh=fresh)
        if again.code:
            return [*problems, f"the next start ended {again.code}:\n{again.output}{again.error}"]
        problems += self._dishonest(run.prefix)
        problems += self._untrue(run.prefix, mpi=mpi)
        problems += [f"left in the run directory: {path}" for path in again.left()]
        if not _wait(lambda: not run.processes(), 5):
            problems.append(f"still alive at the end: {[name for _, name in run.processes()]}")
        problems += [f"left in TMPDIR: {path}" for path in runs.left_in(run.temporary)]
        problems += [f"left in /dev/shm: {name}" for name in run.segments_left()]
        problems += [f"unfinished upload: {path}" for path in sorted(self.uploads() - run.uploads_before)]
        return problems

    def _dishonest(self, prefix: str) -> list[str]:
        """What a manifest or a certificate claims and is not so."""
        found = self._objects(prefix)
        if f"{prefix}_byos/manifest.json" not in found:
            return ["a certificate without a manifest"] if f"{prefix}_byos/purge.json" in found else []
        manifest = self._json(f"{prefix}_byos/manifest.json")
        problems = []
        for item in manifest["outputs"]:
            body = self._get(item["key"]) if item["key"] in found else None
            crc = None if body is None else base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
            if body is None or (len(body), crc) != (item["bytes"], item["crc32"]):
                problems.append(f"the manifest ({manifest['status']}) claims {item['key']}, which is not so")
        return problems

    def _untrue(self, prefix: str, *, mpi: bool) -> list[str]:
        truth = self._truth_of_mpi() if mpi else TRUTH
        here = {key[len(prefix) :]: key for key in self._objects(prefix) if not key.startswith(f"{prefix}_byos/")}
        problems = [f"in the bucket: {name}" for name in sorted(set(here) - set(truth))]
        problems += [f"not in the bucket: {name}" for name in sorted(set(truth) - set(here))]
        problems += [
            f"differs: {name}" for name in sorted(set(here) & set(truth)) if self._get(here[name]) != truth[name]
        ]
        manifest = self._json(f"{prefix}_byos/manifest.json")
        listed = {item["path"] for item in manifest["outputs"]}
        if (manifest["status"], listed) != ("complete", set(truth)):
            problems.append(f"the manifest is {manifest['status']} with {sorted(listed)}")
        if f"{prefix}_byos/purge.json" not in self._objects(prefix):
            problems.append("no certificate")
        return problems

    def _truth_of_mpi(self) -> dict[str, bytes]:
        """What a run that nobody kills leaves: the dumps of a solver are the same each time."""
        if not self._mpi_truth:
            with self._started(slow=False, mpi=True) as run:
                ran = run.restarted(fresh=False)
                assert not ran.code, ran.output
            keys = [key for key in self._objects(run.prefix) if "/_byos/" not in key]
            self._mpi_truth = {key[len(run.prefix) :]: self._get(key) for key in keys}
        return self._mpi_truth

    @contextmanager
    def _started(self, *, slow: bool, mpi: bool) -> Iterator[Running]:
        self._count += 1
        place = self._directory / str(self._count)
        (place / "tmp").mkdir(parents=True)
        prefix = f"out/{self._count}/"
        with FaultProxy(self._store) as proxy:
            job = {
                "input": f"s3://{self._bucket}/in/{'copper' if mpi else 'case'}.zip", "output": f"s3://{self._bucket}/{prefix}",
                "command": "mpirun -np 8 lmp -in in.case" if mpi else ["bash", "-c", SOLVES],
                "publish": {"settle": "0.2s", "exclude": ["log.lammps"]}, "solver": {"grace": "2s"},
                "store": {"endpoint_url": proxy.endpoint_url, "part_size": "5MiB"},
            }  # fmt: skip
            run = Running(self, place=place, prefix=prefix, proxy=proxy, job=job, slow=slow, mpi=mpi)
            try:
                yield run
            finally:
                run.kill("all")
                run.end()
                shutil.rmtree(place, ignore_errors=True)

    def lay_out(self, directory: Path, job: dict[str, Any]) -> None:
        runs.lay_out(directory, file=self._file, store=self._store, job=job)

    def _objects(self, prefix: str) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    def _get(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body

    def _json(self, key: str) -> Any:
        return json.loads(self._get(key))

    def uploads(self) -> set[str]:
        """MinIO lists uploads only by exact key: they are counted where it keeps them."""
        if self._data is None:
            return set()
        top = self._data / ".minio.sys" / "multipart"
        return {str(path.relative_to(top))[:20] for path in top.rglob("xl.meta")} if top.is_dir() else set()


class Running:
    """One try: the run that is to be killed, and the start after it."""

    def __init__(
        self, site: Site, *, place: Path, prefix: str, proxy: FaultProxy, job: dict[str, Any], slow: bool, mpi: bool
    ) -> None:
        self._site = site
        self._place = place
        self._job = job
        self._slow = slow
        self._said: list[str] = []
        self._stack: Any = None
        self.prefix = prefix
        self.proxy = proxy
        self.directory = place / "run"
        self.temporary = place / "tmp"
        path = f"{cache.get('mpich') / 'bin'}:{os.environ['PATH']}" if mpi else os.environ["PATH"]
        self._environ = {
            "PATH": path, "HOME": str(place), "LANG": "C.UTF-8", "TMPDIR": str(self.temporary), **cases.RANKS_SHARE_CORES,
            **runs.PLATFORM,
        }  # fmt: skip
        self._segments: set[str] = set()
        self._agents: set[int] = set()
        self.uploads_before = site.uploads()
        self.process: subprocess.Popen[str]
        self.around = Around(
            self.directory, self.temporary, lambda: self.output, lambda: [name for _, name in self.processes()]
        )

    def go(self) -> None:
        self._site.lay_out(self.directory, self._job)
        if self._slow:
            (self.directory / "slow").touch()
        self._stack = runs.started(self.directory, env=self._environ)
        self.process = self._stack.__enter__()
        self._agents.add(self.process.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> None:
        if self._stack is not None:
            self._reader.join(5)
            self._stack.__exit__(None, None, None)

    def _read(self) -> None:
        with suppress(ValueError, OSError):
            for line in self.process.stdout or ():
                self._said.append(line)

    @property
    def output(self) -> str:
        return "".join(self._said)

    def restarted(self, *, fresh: bool) -> runs.Ran:
        directory = self._place / "fresh" if fresh else self.directory
        self._site.lay_out(directory, self._job)
        with suppress(FileNotFoundError):
            (directory / "slow").unlink()
        return runs.run(directory, env=self._environ, timeout_s=120)

    def kill(self, *whom: str) -> None:
        """SIGKILL, and return when they are dead: agent, shim, all, or the first process of a name."""
        pids: list[int] = []
        everybody = self.processes()
        seen = {path for pid, _ in everybody for path in mapped(pid).shared_memory}
        self._segments |= {Path(path).name for path in seen if _age_s(path) > _NOTED_S}
        for who in whom:
            agent = [self.process.pid] if hasattr(self, "process") and self.process.poll() is None else []
            chosen = {
                "agent": agent,
                "shim": [pid for pid, name in everybody if name == "shim"],
                "all": [*agent, *(pid for pid, _ in everybody)],
            }.get(who, [pid for pid, name in everybody if name == who][:1])
            pids += chosen
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _wait(lambda: all(alive.is_dead(pid) for pid in pids), 10)

    def processes(self) -> list[tuple[int, str]]:
        return alive.processes(self._place, temporary=self.temporary)

    def segments_left(self) -> list[str]:
        """Shared memory that was mapped by processes of this try when they were killed, and lists of it by its agents."""
        mine = tuple(f".byos-traces-{os.geteuid()}-{pid}-" for pid in self._agents)
        return sorted(name for name in os.listdir("/dev/shm") if name in self._segments or name.startswith(mine))


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_ctime
    except OSError:
        return 0.0


def _wait(wanted: Any, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not wanted():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
