"""How the shipped file starts: by every name, in every broken surrounding, and what it says when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable

import pytest
from tests.kit import cache

HOME = Path(cache.surroundings().get("HOME", "/nonexistent"))
PYTHONS = sorted(HOME.glob(".pyenv/versions/*/bin/python[23].*[0-9]"))
FITTING = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
FIT = [path for path in PYTHONS if path.name[len("python") :] in FITTING] or [Path(sys.executable)]
UNFIT = [path for path in PYTHONS if path not in FIT]

Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(shipped_file: Path, tmp_path: Path) -> Start:
    """Starts a command in a run directory that holds the file; HOME and TMPDIR are empty directories of their own."""
    for name in ("run", "home", "tmp"):
        (tmp_path / name).mkdir()
    shutil.copy(shipped_file, tmp_path / "run" / "byos-run")

    def go(*command: str, stdin: bytes | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        surroundings = {"HOME": f"{tmp_path}/home", "TMPDIR": f"{tmp_path}/tmp", "PATH": os.environ["PATH"]}
        done = subprocess.run(
            command or ("sh", "byos-run", "--version"),
            cwd=tmp_path / "run",
            env={**surroundings, "BYOS_PYTHON": str(FIT[-1]), **variables},
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
        )

    return go


def left(tmp_path: Path) -> list[str]:
    """What starts left behind, wherever they may write."""
    places = [tmp_path / "tmp", tmp_path / "home"]
    kept = [str(path) for place in places for path in place.iterdir()]
    return kept + [str(path) for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def says_its_version(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and done.stderr == "" and done.stdout.startswith("byos-run ")


@pytest.mark.parametrize(
    "command",
    [
        ("./byos-run",),
        ("sh", "byos-run"),
        ("bash", "./byos-run"),
        ("python3", "byos-run"),
        ("sh", "-c", 'exec "$PWD/byos-run" --version'),
        ("env", "PATH=.:/usr/bin:/bin", "byos-run"),
    ],
    ids=["as a program", "sh", "bash", "python3", "absolute", "on PATH"],
)
def test_every_way_to_start(start: Start, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Each way that the documents name prints the version and leaves nothing behind."""
    assert says_its_version(start(*command, "--version"))

    assert left(tmp_path) == []


@pytest.mark.parametrize("python", FIT, ids=lambda path: path.parent.parent.name)
def test_every_python_that_fits(start: Start, tmp_path: Path, python: Path) -> None:
    """Each Python here that the file is for runs it, started by hand or found by the header."""
    assert says_its_version(start(BYOS_PYTHON=str(python)))
    assert says_its_version(start(str(python), "byos-run", "--version", BYOS_PYTHON=""))

    assert left(tmp_path) == []


@pytest.mark.parametrize("python", UNFIT, ids=lambda path: path.parent.parent.name)
def test_a_python_that_does_not_fit(start: Start, tmp_path: Path, python: Path) -> None:
    """Three lines say what was looked at and what to do, with exit 71; a Python not insisted on is passed over."""
    for command in (("sh", "byos-run"), (str(python), "byos-run")):
        done = start(*command, BYOS_PYTHON=str(python))
        assert done.returncode == 71
        assert len(done.stderr.splitlines()) == 3
        assert str(python) in done.stderr
        assert "BYOS_PYTHON=" in done.stderr

    found = start(str(python), "byos-run", "--version", BYOS_PYTHON="", PATH=f"{FIT[-1].parent}:{os.environ['PATH']}")
    assert says_its_version(found)
    assert left(tmp_path) == []


def test_a_python_that_is_not_there(start: Start) -> None:
    """A name in BYOS_PYTHON that leads nowhere is said so; nothing else is taken in its place."""
    done = start(BYOS_PYTHON="/nowhere/python3")

    assert done.returncode == 71
    assert "/nowhere/python3 is not there" in done.stderr


def test_blanks_quotes_and_links_in_the_path(start: Start, tmp_path: Path) -> None:
    """The file's own path may hold anything, and may be a link."""
    odd = tmp_path / "run" / "a b'c$d\"é"
    odd.mkdir()
    shutil.copy(tmp_path / "run" / "byos-run", odd / "byos-run")
    (tmp_path / "run" / "link").symlink_to(odd / "byos-run")

    for command in (("sh", str(odd / "byos-run")), ("python3", str(odd / "byos-run")), ("./link",), ("sh", "link")):
        assert says_its_version(start(*command, "--version"))


def test_the_exec_bit_is_lost(start: Start, tmp_path: Path) -> None:
    """Platforms that copy the file without its mode still start it by sh or python3."""
    (tmp_path / "run" / "byos-run").chmod(0o444)

    assert says_its_version(start("sh", "byos-run", "--version"))
    assert says_its_version(start("python3", "byos-run", "--version"))


@pytest.mark.parametrize("umask", ["000", "077"])
def test_any_umask(start: Start, umask: str) -> None:
    """The mode of what is unpacked does not hang on the caller's mask."""
    assert says_its_version(start("sh", "-c", f"umask {umask}; exec sh byos-run --version"))


def test_an_empty_environment(start: Start) -> None:
    """No PATH, no HOME, no TMPDIR: a node's own Python is found where systems keep it."""
    done = start("env", "-i", f"BYOS_PYTHON={FIT[-1]}", "/bin/sh", "byos-run", "--version")

    assert says_its_version(done)


def test_broken_python_variables(start: Start, tmp_path: Path) -> None:
    """PYTHONPATH with modules named like ours or the standard library's, and a wrong PYTHONHOME, do not reach us."""
    bad = tmp_path / "bad"
    bad.mkdir()
    for name in ("typing", "zlib", "boto3", "byos_run", "sitecustomize", "usercustomize"):
        (bad / f"{name}.py").write_text("raise SystemExit('taken from PYTHONPATH')")

    assert says_its_version(start(PYTHONPATH=str(bad), PYTHONHOME="/nowhere", PYTHONSTARTUP="/nowhere"))
    assert says_its_version(start(PYTHONSAFEPATH="1", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error"))


def test_broken_libraries_of_a_solver(start: Start, tmp_path: Path) -> None:
    """LD_LIBRARY_PATH with a broken libcrypto and an LD_PRELOAD that leads nowhere do not reach our Python."""
    bad = tmp_path / "lib"
    bad.mkdir()
    for name in ("libcrypto.so.3", "libssl.so.3", "libz.so.1", "libcrypto.so.1.1", "libssl.so.1.1"):
        (bad / name).write_bytes(b"not a library")

    done = start(LD_LIBRARY_PATH=str(bad), LD_PRELOAD="/nowhere/lib.so")

    assert done.returncode == 0
    assert done.stdout.startswith("byos-run ")


@pytest.mark.parametrize("home", ["/nonexistent", "/proc", ""])
def test_no_home_to_write_to(start: Start, home: str) -> None:
    """Nothing is wanted of HOME."""
    assert says_its_version(start(HOME=home))


def test_a_directory_that_takes_nothing(start: Start, tmp_path: Path) -> None:
    """A TMPDIR that cannot be written to or is not there is passed over for the next place."""
    for place in ("/proc", "/nowhere", f"{tmp_path}/run/byos-run"):
        assert says_its_version(start(TMPDIR=place))


@pytest.mark.parametrize("reader", [("sh",), ("bash", "-s"), ("python3", "-")], ids=["sh", "bash", "python3"])
def test_from_standard_input(start: Start, tmp_path: Path, reader: tuple[str, ...]) -> None:
    """Piped into a shell or a Python it does nothing but say how to start it."""
    done = start(*reader, stdin=(tmp_path / "run" / "byos-run").read_bytes())

    assert done.returncode != 0
    assert "standard" in done.stderr
    assert "sh byos-run" in done.stderr.replace(".", " ")


def test_cut_short(start: Start, tmp_path: Path) -> None:
    """A file cut anywhere says so and does nothing."""
    file = tmp_path / "run" / "byos-run"
    whole = file.read_bytes()
    header = whole.index(b"PK\x03\x04")
    lengths = [header, header + 1, 8000, *range(100_000, len(whole), len(whole) // 9), len(whole) - 22, len(whole) - 1]

    for length in lengths:
        file.write_bytes(whole[:length])
        by_sh, by_python = start("sh", "byos-run", "--version"), start("python3", "byos-run", "--version")
        assert (by_sh.returncode, by_sh.stdout) == (71, ""), length
        assert "cut short or altered" in by_sh.stderr
        assert (by_python.returncode != 0, "") == (True, by_python.stdout), length
        assert "cut" in by_python.stderr
    for length in [11, 12, 50, 100, *range(150, header, header // 20)]:
        file.write_bytes(whole[:length])
        done = start("sh", "byos-run", "--version")
        assert (done.returncode != 0, "") == (True, done.stdout), length
    assert left(tmp_path) == []


def test_altered(start: Start, tmp_path: Path) -> None:
    """One byte changed anywhere behind the first code is told by the checksum; bytes appended, by the length."""
    file = tmp_path / "run" / "byos-run"
    whole = file.read_bytes()

    for at in [10_000, *range(500_000, len(whole), len(whole) // 9), len(whole) - 30]:
        altered = bytearray(whole)
        altered[at] ^= 0x20
        file.write_bytes(altered)
        done = start()
        assert (done.returncode != 0, done.stdout) == (True, ""), at
        assert "altered" in done.stderr
    file.write_bytes(whole + b"\n")
    assert start().returncode == 71
    assert left(tmp_path) == []


def test_the_checksums_beside_it(shipped_file: Path) -> None:
    """SHA256SUMS names the file, its bill of materials and their digests, as `sha256sum -c` reads them."""
    lines = (shipped_file.parent / "SHA256SUMS").read_text().splitlines()

    assert ["byos-run", "byos-run.cdx.json"] == [line.split("  ")[1] for line in lines]
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256(shipped_file.with_name(name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "command", [("./byos-run",), ("sh", "byos-run"), ("bash", "byos-run"), ("python3", "byos-run")]
)
def test_what_it_carries(start: Start, shipped_file: Path, command: tuple[str, ...]) -> None:
    """`--version --json` prints versions and digests of what this very file carries, however it is started."""
    done = start(*command, "--version", "--json")

    said = json.loads(done.stdout)
    assert (0, "") == (done.returncode, done.stderr)
    assert set(FITTING) == set(said["pythons"])
    assert {"boto3", "botocore", "isal", "psutil", "zstandard"} <= set(said["pythons"]["3.9"]["packages"])
    assert {"zstd", "isa-l"} <= set(said["bundled"])
    with zipfile.ZipFile(shipped_file) as archive:
        inside = {name: archive.read(name) for name in archive.namelist() if name in said["parts"]}
    assert {"__main__.py", "own", "native/cp311-x86_64", "data/cp39"} <= set(inside)
    for name, content in inside.items():
        assert said["parts"][name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_size(shipped_file: Path) -> None:
    """The file is at most 16 MiB."""
    assert shipped_file.stat().st_size <= 16 << 20


def test_eight_at_once(shipped_file: Path, tmp_path: Path) -> None:
    """Eight slots that start on one node at the same time do not disturb one another."""
    surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "BYOS_PYTHON": str(FIT[-1])}
    command = ["sh", str(shipped_file), "--version"]

    running = [subprocess.Popen(command, env=surroundings, stdout=subprocess.PIPE) for _ in range(8)]
    answers = [process.communicate(timeout=240)[0] for process in running]

    assert len(set(answers)) == 1
    assert [process.returncode for process in running] == [0] * 8
    assert list(tmp_path.iterdir()) == []


def test_killed_while_starting(shipped_file: Path, tmp_path: Path) -> None:
    """Whenever a start is killed, and whatever it left then, one more start leaves nothing."""
    surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "BYOS_PYTHON": str(FIT[-1])}
    command = ["sh", str(shipped_file), "--version"]

    seen = 0
    for _ in range(40):
        process = subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL)
        while process.poll() is None and not any(tmp_path.iterdir()):
            continue
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen += any(tmp_path.iterdir())
        if seen == 3:
            break
    subprocess.run(command, env=surroundings, stdout=subprocess.DEVNULL, check=True)

    assert seen
    assert list(tmp_path.iterdir()) == []
