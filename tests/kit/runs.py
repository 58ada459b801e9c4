"""Runs of the shipped file as a user has them: a fresh run directory with the file, a config and a job file, then one command.

lay out -> start (`sh byos-run`, a session of its own, a clean environment) -> wait -> Ran
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.kit.stores import Store

TOP = Path(__file__).resolve().parent.parent.parent
PLATFORM = {"RESCALE_JOB_ID": "kitjob", "RESCALE_CLUSTER_ID": "kitcluster", "RESCALE_CORES_PER_SLOT": "8"}
"""What makes a run one on the platform."""


class Ran(NamedTuple):
    """A run that has ended."""

    code: int
    output: str
    """Standard output."""
    error: str
    """Standard error."""
    directory: Path

    def left(self) -> list[str]:
        """What is still in the run directory: paths relative to it, directories with a "/" at the end."""
        return left_in(self.directory)


def shipped_file() -> Path:
    """dist/byos-run, built if it is not there or older than what it is made of. RuntimeError if the build fails."""
    file = TOP / "dist" / "byos-run"
    cache.root().mkdir(parents=True, exist_ok=True)
    with open(cache.root() / "build.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists() or file.stat().st_mtime < max(path.stat().st_mtime for path in _sources()):
            build = [sys.executable, str(TOP / "packaging" / "build.py")]
            env = dict(cache.surroundings())
            done = subprocess.run(build, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"packaging/build.py: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return file


def _sources() -> Iterator[Path]:
    for room in ("agent", "packaging"):
        for path in (TOP / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md":
                yield path


def left_in(directory: Path) -> list[str]:
    """Every path below a directory, sorted, relative to it; directories end in "/"."""
    paths = sorted(directory.rglob("*"))
    return [f"{path.relative_to(directory)}{'/' if path.is_dir() and not path.is_symlink() else ''}" for path in paths]


def config_text(store: Store) -> str:
    """A `config` as a user lays it down: AWS config and credentials in one."""
    keys = f"aws_access_key_id = {store.access_key}\naws_secret_access_key = {store.secret_key}"
    return f"[default]\n{keys}\nregion = {store.region}\n"


def toml(job: Mapping[str, Any]) -> str:
    """A job file from mappings of strings, numbers, switches, lists and tables; a table in a table is written inline."""
    lines = [f"{key} = {_value(value)}" for key, value in job.items() if not isinstance(value, dict)]
    for name, table in job.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_value(key)} = {_value(item)}' for key, item in value.items())} }}"
    escaped = "".join(f"\\u{ord(char):04x}" if char in '"\\' or ord(char) < 32 else char for char in str(value))
    return f'"{escaped}"'


def lay_out(
    directory: Path, *, file: Path, store: Store | None, job: Mapping[str, Any] | str | None, config: str | None = None
) -> None:
    """Makes the run directory: `byos-run` without its exec bit, as some platforms leave it, `config`, `byos.toml`.

    `config` None: the store's keys; "": none is laid down. A job given as a mapping gets the store's endpoint.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, directory / "byos-run")
    text = config_text(store) if config is None and store else config
    if text:
        (directory / "config").write_text(text, encoding="utf-8")
    if job is None:
        return
    if not isinstance(job, str):
        endpoint = {"endpoint_url": store.endpoint_url} if store else {}
        job = toml({**job, "store": {**endpoint, **job.get("store", {})}})
    (directory / "byos.toml").write_text(job, encoding="utf-8")


@contextmanager
def started(
    directory: Path,
    *,
    command: Sequence[str] = ("sh", "byos-run"),
    env: Mapping[str, str],
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.PIPE,
) -> Iterator[subprocess.Popen[str]]:
    """The command running in a session of its own; what of its group is left at the end is killed."""
    process = subprocess.Popen(
        list(command), cwd=str(directory), env=dict(env), stdin=subprocess.DEVNULL, stdout=stdout,
        stderr=stderr, text=True, encoding="utf-8", errors="replace", start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def run(
    directory: Path, *, command: Sequence[str] = ("sh", "byos-run"), env: Mapping[str, str], timeout_s: float = 240
) -> Ran:
    """Runs the command to its end. AssertionError with what it said if it takes longer than `timeout_s`."""
    with started(directory, command=command, env=env) as process:
        try:
            output, error = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, error = process.communicate()
            raise AssertionError(f"still running after {timeout_s} s; it said:\n{output}\n{error}") from None
        return Ran(process.returncode, output, error, directory)
