"""What a program finds inside the shipped file: its modules, natives and data, its environment, its private directory.

The file is built with a program of a few lines in place of byos-run's own; it runs the text that a test hands it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import pytest
from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parent.parent
HOME = Path(cache.surroundings().get("HOME", "/nonexistent"))
FITTING = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
FIT = [p for p in sorted(HOME.glob(".pyenv/versions/*/bin/python3.*")) if p.name[6:] in FITTING] or [
    Path(sys.executable)
]
COMPILED = [path for path in FIT if path.name != "python3.14"]  # which runs from source where no 3.14 compiles it
PROGRAM = """
import os, sys
def main():
    here = {}
    exec(sys.argv[1], here)
    return here.get("code", 0)
"""
VALUES = """
from __future__ import annotations
from dataclasses import dataclass, field
@dataclass(frozen=True, order=True)
class Point:
    x: int
    names: dict[str, int] = field(default_factory=dict, repr=False)
    other: Point | None = None
@dataclass
class Box:
    points: list[Point] = field(default_factory=list)
"""
KEYS = {"AWS_ACCESS_KEY_ID": "probe", "AWS_SECRET_ACCESS_KEY": "probe", "AWS_DEFAULT_REGION": "us-east-1"}
UNPACKED = "import os, sys, time\nprint(os.environ['BYOS_UNPACKED'], flush=True)\n"
CHILD = """
import os
if not os.fork():
    raise SystemExit(9)
os.wait()
code = 5 if os.path.isdir(os.environ["BYOS_UNPACKED"]) else 6
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped file with PROGRAM in place of byos-run."""
    top = tmp_path_factory.mktemp("probe")
    package = top / "byos_run"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.0.0"\n')
    (package / "cli.py").write_text(PROGRAM)
    (package / "values.py").write_text(VALUES)
    build = [
        sys.executable,
        str(TOP / "packaging" / "build.py"),
        "--package",
        str(package),
        "--output",
        str(top / "byos-run"),
    ]
    subprocess.run(build, env=dict(cache.surroundings()), capture_output=True, check=True)
    return top / "byos-run"


@pytest.fixture
def run(probe: Path, tmp_path: Path) -> Run:
    """Starts a text in the file, with TMPDIR of its own."""
    (tmp_path / "tmp").mkdir()

    def go(
        text: str, *, python: Path = FIT[-1], file: Path = probe, most_bytes: int = 0, **variables: str
    ) -> subprocess.Popen[str]:
        # A limit on a file's size ends writes as a full disk would.
        limit = f"ulimit -f {most_bytes // 512}; " if most_bytes else ""
        surroundings = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp"), "BYOS_PYTHON": str(python)}
        return subprocess.Popen(
            ["sh", "-c", limit + 'exec sh "$0" "$@"', str(file), text],
            env={**surroundings, **KEYS, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return go


def said(process: subprocess.Popen[str]) -> str:
    """What a process that must end well printed."""
    out, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert error == ""
    return out


class Store(BaseHTTPRequestHandler):
    """Answers as S3 and STS do, to just what is asked here."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(
            "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>"
            "<Contents><Key>a/b</Key><Size>3</Size></Contents></ListBucketResult>"
        )

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.answer("")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(
            "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>assumed</AccessKeyId>"
            "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
            "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("ETag", '"e"')
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def store() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


LIBRARIES = """
import boto3, botocore.session, s3transfer.manager, structlog, psutil, zstandard, isal.isal_zlib, isal.igzip_lib, sys, zlib
if sys.version_info < (3, 11): import tomli
assert zstandard.backend == "cext"
assert zstandard.decompress(zstandard.compress(b"x" * 99)) == b"x" * 99
assert isal.isal_zlib.crc32(b"abc") == zlib.crc32(b"abc")
assert isal.igzip_lib.decompress(zlib.compress(b"abc"), flag=isal.igzip_lib.DECOMP_ZLIB) == b"abc"
assert psutil.Process().memory_info().rss > 0
"""

CALLS = (
    LIBRARIES
    + """
import os
store = sys.argv[2] if len(sys.argv) > 2 else os.environ["STORE"]
s3, sts = boto3.client("s3", endpoint_url=store), boto3.client("sts", endpoint_url=store)
print(s3.list_objects_v2(Bucket="b")["Contents"][0]["Key"])
print([page["KeyCount"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="b")])
print(s3.put_object(Bucket="b", Key="k", Body=b"abc")["ETag"])
s3.upload_file(os.environ["BYOS_UNPACKED"] + "/index.json", "b", "f")
print(sts.assume_role(RoleArn="arn:aws:iam::123456789012:role/r", RoleSessionName="session")["Credentials"]["AccessKeyId"])
print(s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"}).startswith(store))
boto3.client("sso", endpoint_url=store), boto3.client("sso-oidc", endpoint_url=store)
print(s3.get_waiter("object_exists").name, boto3.client("s3", region_name="eu-west-1").meta.endpoint_url)
import botocore.httpsession; print(os.path.getsize(botocore.httpsession.where()) > 100000)
"""
)


@pytest.mark.parametrize("python", FIT, ids=lambda path: path.parent.parent.name)
def test_the_libraries_do_their_work(run: Run, store: str, tmp_path: Path, python: Path) -> None:
    """The trimmed SDK serves real calls and the natives load, on each Python here that the file is for."""
    expected = ["a/b", "[1]", '"e"', "assumed", "True", "ObjectExists https://s3.eu-west-1.amazonaws.com", "True"]
    bare = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}

    assert expected == said(run(CALLS, python=python, STORE=store, **bare)).splitlines()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_file_may_be_deleted_while_it_runs(probe: Path, run: Run, store: str, tmp_path: Path) -> None:
    """Nothing is read from the shipped file once the program runs, so the program may delete it."""
    copy = tmp_path / "byos-run"
    shutil.copy(probe, copy)

    said(run("import os\nos.unlink(os.environ['BYOS_FILE'])\n" + CALLS, file=copy, STORE=store))

    assert not copy.exists()


def test_only_ours_and_the_standard_library(run: Run) -> None:
    """What is installed on the node for its Python is not seen."""
    text = "import sys, json\nprint(json.dumps([sys.path, sys.flags.isolated, sys.dont_write_bytecode]))"

    path, _, no_bytecode = json.loads(said(run(text)))

    assert not [each for each in path if "site-packages" in each or "dist-packages" in each or "byos-run" in each]
    assert no_bytecode


PUT_OFF = """
import sys, structlog, structlog.stdlib
assert "asyncio.events" not in sys.modules, "structlog alone makes nobody read asyncio"
import asyncio.subprocess
async def answer():
    return 42
print(asyncio.run(answer()), asyncio.subprocess.PIPE, sys.modules["asyncio"].__name__)
"""


@pytest.mark.parametrize("python", FIT, ids=lambda path: path.parent.parent.name)
def test_asyncio_is_read_when_it_is_used(run: Run, python: Path) -> None:
    """Not for structlog's sake at every start; who does use it gets all of it."""
    assert said(run(PUT_OFF, python=python)).split() == ["42", "-1", "asyncio"]


DATA_CLASSES = """
import sys
texts = []
sys.addaudithook(lambda event, given: event == "compile" and "def " in str(given[0]) and texts.append(given))
from byos_run.values import Box, Point
import dataclasses
assert not texts, texts
one = Point(1, {"a": 2})
print(one, one == Point(1, {"a": 2}), one < Point(2), dataclasses.asdict(one))
print(Box(), Box() == Box([one]), dataclasses.replace(one, x=5).x, [field.name for field in dataclasses.fields(Box)])
try:
    one.x = 2
except dataclasses.FrozenInstanceError as error:
    print(error)
@dataclasses.dataclass
class Unknown:
    y: float
print(Unknown(0.5), bool(texts))
import inspect
print(inspect.signature(Point), inspect.isclass(Point))
"""


@pytest.mark.parametrize("python", COMPILED, ids=lambda path: path.parent.parent.name)
def test_data_classes_are_compiled_beforehand(run: Run, python: Path) -> None:
    """Their methods compile nothing at the start and are those that Python would make; others work as ever."""
    assert said(run(DATA_CLASSES, python=python)).splitlines() == [
        "Point(x=1, other=None) True True {'x': 1, 'names': {'a': 2}, 'other': None}",
        "Box(points=[]) False 5 ['points']",
        "cannot assign to field 'x'",
        "Unknown(y=0.5) True",
        "(x: 'int', names: 'dict[str, int]' = <factory>, other: 'Point | None' = None) -> None True",
    ]


EVERY_DATA_CLASS = """
import ast, builtins, dataclasses, importlib, pathlib, sys
sys.path[:0] = sys.argv[1:3]
import bytecode
texts, missed = {}, []
paths = sorted(pathlib.Path(sys.argv[2], "byos_run").rglob("*.py"))
for path in paths:
    bytecode.methods(ast.parse(path.read_text()), texts)
def execute(text, names, *rest):
    module = sys.modules[names["__name__"]].__name__ if "__name__" in names else ""
    if module.startswith("byos_run") and text not in texts:
        missed.append((module, text))
    builtins.exec(text, names, *rest)
dataclasses.exec = execute
for path in paths:
    if path.stem not in ("__main__", "__init__"):
        importlib.import_module(".".join(path.relative_to(sys.argv[2]).with_suffix("").parts))
print(len(texts) > 20, missed)
"""


def test_every_data_class_of_ours_is_among_them() -> None:
    """What the build writes down is what the decorator asks for when our modules are imported."""
    command = [sys.executable, "-c", EVERY_DATA_CLASS, str(TOP / "packaging"), str(TOP / "agent")]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True []\n"


def test_what_is_set_aside(run: Run) -> None:
    """Variables that would bend our Python arrive under another name, for the solver; stale ones do not."""
    variables = {
        "LD_LIBRARY_PATH": "/nowhere",
        "PYTHONPATH": "/p",
        "PYTHONHOME": "/h",
        "BYOS_ASIDE_LD_PRELOAD": "stale",
        "BYOS_ASIDE_PYTHONINSPECT": "stale",
    }

    seen = json.loads(said(run("import os, json; print(json.dumps(dict(os.environ)))", **variables)))

    aside = {name: value for name, value in seen.items() if name.startswith(("BYOS_ASIDE_", "LD_", "PYTHON"))}
    expected = {"LD_LIBRARY_PATH": "/nowhere", "PYTHONPATH": "/p", "PYTHONHOME": "/h"}
    assert {f"BYOS_ASIDE_{name}": value for name, value in expected.items()} == aside
    assert not {"BYOS_BOOT", "BYOS_FIRST"} & set(seen)


def test_what_it_says_of_itself(probe: Path, run: Run) -> None:
    """The list of what is carried lies in the private directory, and that is 0700."""
    text = """
import os, json, stat
there = os.environ["BYOS_UNPACKED"]
print(json.dumps([json.load(open(there + "/index.json")), stat.S_IMODE(os.stat(there).st_mode), os.environ["BYOS_FILE"]]))
"""
    index, mode, file = json.loads(said(run(text)))

    assert ("0.0.0", 0o700, str(probe)) == (index["byos-run"], mode, file)
    assert set(FITTING) == set(index["pythons"])
    assert {"boto3", "zstandard", "psutil", "isal", "structlog"} <= set(index["pythons"]["3.12"]["packages"])
    assert all(len(part["sha256"]) == 64 for part in index["parts"].values())


def test_a_traceback_shows_our_lines(run: Run) -> None:
    """Although our modules are on no disk."""
    process = run("1 / 0")
    _, error = process.communicate(timeout=240)

    assert "exec(sys.argv[1], here)" in error
    assert error.splitlines()[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("text", "code"),
    [("code = 3", 3), ("raise SystemExit(4)", 4), (CHILD, 5), ("1 / 0", 70)],
    ids=["returned", "raised", "a forked child ends", "a defect"],
)
def test_ends(run: Run, tmp_path: Path, text: str, code: int) -> None:
    """However main() ends, its code is passed on and the private directory is gone, by us and by no child."""
    process = run(text)
    process.communicate(timeout=240)

    assert code == process.returncode
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGXCPU])
def test_ended_by_a_signal(run: Run, tmp_path: Path, number: signal.Signals) -> None:
    """A signal before the program answers it itself: exit 75, one line that says so, no traceback, nothing left."""
    process = run(UNPACKED + "time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline().strip().startswith(str(tmp_path))

    process.send_signal(number)

    said = "byos-run | exit 75 (byos-run's code): stopped by a signal before anything was begun\n"
    assert process.communicate(timeout=240) == (said, "")
    assert process.returncode == 75
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_killed_start_is_cleaned_by_the_next(run: Run, tmp_path: Path) -> None:
    """What a killed process left goes with the next start; what one that lives uses, or a stranger's, stays."""
    running, killed = run(UNPACKED + "time.sleep(60)"), run(UNPACKED + "time.sleep(60)")
    assert running.stdout is not None
    assert killed.stdout is not None
    living, dead = Path(running.stdout.readline().strip()), Path(killed.stdout.readline().strip())
    marks = living.name.split("-")
    stranger = living.with_name("-".join([*marks[:3], "1", *marks[4:]]).replace(marks[5], "0" * 32))
    stranger.mkdir()
    killed.kill()
    killed.communicate()
    assert dead.exists()

    said(run("pass"))

    assert sorted([living, stranger]) == sorted((tmp_path / "tmp").iterdir())
    running.terminate()
    running.communicate(timeout=60)
    assert [stranger] == list((tmp_path / "tmp").iterdir())


def test_a_number_used_again(run: Run, tmp_path: Path) -> None:
    """A process that only has a dead one's number does not keep its directory alive."""
    process = run(UNPACKED)
    name = Path(said(process).strip()).name.split("-")
    reused = tmp_path / "tmp" / "-".join([*name[:3], str(os.getpid()), "1", *name[5:]])
    (reused / "botocore").mkdir(parents=True)
    (reused / "botocore" / "link").symlink_to(tmp_path)

    said(run("pass"))

    assert list((tmp_path / "tmp").iterdir()) == []
    assert tmp_path.is_dir()


def test_no_place_at_all(run: Run, tmp_path: Path) -> None:
    """Where no directory takes the files each is named with its reason, exit 71, and nothing is left."""
    process = run("pass", most_bytes=51200)
    _, error = process.communicate(timeout=240)

    assert process.returncode == 71
    assert str(tmp_path / "tmp") in error
    assert "/dev/shm" in error
    assert len(error.splitlines()) == 3
    assert list((tmp_path / "tmp").iterdir()) == []
