"""The checks of the matrix: each gives a row that says what was started, what came of it, and whether that is as promised."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.kit import runs
from tests.nodes import starts
from tests.nodes.surroundings import FLOCK, Surrounding, surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from tests.kit.stores import Store
    from tests.nodes.places import Node

BROKEN = ("libcrypto.so.3", "libssl.so.3", "libz.so.1", "libcrypto.so.1.1", "libssl.so.1.1")
TEXT = 'test -s mesh.txt && echo "$PWD" && head -c 300000 /dev/zero >sub.bin && echo 7 >result.txt'
KILLS = 50
KILL_WITHIN_S = 0.5
CUTS = 100
MESH = "1 2 3\n" * 1000
SHORTEST_TOLD = 24  # up to there the file is an empty text to Python (and to sh up to 10)


class Row(NamedTuple):
    """One line of the table."""

    group: str
    name: str
    seen: str
    is_good: bool


def judged(group: str, name: str, seen: list[tuple[str, bool]]) -> Row:
    """A row of several facts, each with whether it is as promised."""
    words = [text if good else f"**{text}**" for text, good in seen]
    return Row(group, name, ", ".join(words), all(good for _, good in seen))


def nothing_left(place: starts.Place) -> tuple[str, bool]:
    """Whether a start left anything."""
    left = place.left()
    return (f"left {left[:3]}" if left else "0 bytes left", not left)


def python(node: Node, *, file: Path, store: Store) -> Row:
    """A version, a command line with every problem named and, for some, a whole run; or, for a Python that is too old, why not."""
    with starts.place(file) as place:
        if not node.fits():
            return judged("Python", node.name, [*refused(node, place), nothing_left(place)])
        version = starts.start(node, place, "sh", "byos-run", "--version")
        settled = starts.start(node, place, "sh", "byos-run", "--inptu", "x")
        problems = (settled.output + settled.error).count("byos-run | error: ")
        facts = [
            (f"version {version.code} in {version.seconds:.2f} s", (version.code, version.error) == (0, "")),
            (
                f"settle {settled.code} with {problems} problems in {settled.seconds:.2f} s",
                (settled.code, problems) == (64, 4),
            ),
            nothing_left(place),
        ]
        facts.append((fetched if node.is_emulated else whole_run)(node, place, store=store))
        return judged("Python", node.name, facts)


def refused(node: Node, place: starts.Place) -> Iterator[tuple[str, bool]]:
    """By sh and by that Python itself: three lines and 71."""
    for words in (("sh", "byos-run"), (node.python, "byos-run")):
        done = starts.start(node, place, *words, "--version")
        lines = done.error.splitlines()
        yield f"by {words[0].rsplit('/', 1)[-1]} {done.code}, {len(lines)} lines", (done.code, len(lines)) == (71, 3)


@contextmanager
def case_in(store: Store) -> Iterator[tuple[S3Client, str]]:
    """A client, and a bucket of its own that holds a small case.zip."""
    client, bucket = store.client(), f"node-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mesh.txt", MESH)
    client.put_object(Bucket=bucket, Key="case.zip", Body=content.getvalue())
    yield client, bucket
    client.close()


def fetched(node: Node, place: starts.Place, *, store: Store) -> tuple[str, bool]:
    """The stage-in alone: qemu-user refuses PR_SET_CHILD_SUBREAPER (7.2) or ends the supervising process (11.1)."""
    with case_in(store) as (_, bucket):
        lay(place, store, {})
        address = ("--store-endpoint-url", store.endpoint_url)
        done = starts.start(node, place, "sh", "byos-run", "fetch", f"s3://{bucket}/case.zip", "case", *address)
    mesh = place.run / "case" / "mesh.txt"
    good = done.code == 0 and mesh.is_file() and mesh.read_text() == MESH and not place.left()
    why = "" if good else f" ({done.output[-300:]} {done.error[-300:]})"
    return f"fetch {done.code} in {done.seconds:.1f} s{why}; no whole run: qemu-user has no subreaper", good


def whole_run(node: Node, place: starts.Place, *, store: Store) -> tuple[str, bool]:
    """Input from a store, a small solver, outputs in the store with a manifest, the run directory emptied."""
    with case_in(store) as (client, bucket):
        job = {"input": f"s3://{bucket}/case.zip", "output": f"s3://{bucket}/out", "command": ["sh", "-c", TEXT]}
        lay(place, store, job)
        done = starts.start(node, place, "sh", "byos-run", variables=dict(runs.PLATFORM))
        found = {item["Key"] for item in client.list_objects_v2(Bucket=bucket).get("Contents", [])}
        wanted = {"out/result.txt", "out/sub.bin", "out/_byos/manifest.json", "out/_byos/purge.json"}
    left = [*place.left(), *(path.name for path in place.run.iterdir())]
    good = done.code == 0 and wanted <= found and not left
    why = (
        ""
        if good
        else f" ({sorted(wanted - found)} missing, {left[:3]} left: {done.output[-300:]} {done.error[-300:]})"
    )
    return f"whole run {done.code} in {done.seconds:.1f} s{why}", good


def lay(place: starts.Place, store: Store, job: dict[str, object]) -> None:
    """The config and the job file beside the file."""
    (place.run / "config").write_text(runs.config_text(store))
    (place.run / "byos.toml").write_text(runs.toml({**job, "store": {"endpoint_url": store.endpoint_url}}))


def in_surrounding(node: Node, *, file: Path, number: int) -> Row:
    """One broken surrounding, on one Python."""
    with starts.place(file) as place:
        broken = surroundings(str(place.top))[number]
        why_not = untried(broken)
        if why_not:
            return Row("Surroundings", broken.name, f"not tried: {why_not}", is_good=True)
        lay_bad(place)
        return judged("Surroundings", broken.name, [*seen(node, place, broken, file=file), nothing_left(place)])


def untried(broken: Surrounding) -> str:
    """Why this machine cannot try it, or ""."""
    if "cc " in broken.before and not shutil.which("cc"):
        return "no C compiler here"
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    if broken.before and (os.geteuid() != 0 or subprocess.run(probe, capture_output=True, check=False).returncode):
        return "it mounts, which needs root and leave to"
    return ""


def lay_bad(place: starts.Place) -> None:
    """A directory of modules and libraries that stop whoever takes them."""
    bad = place.top / "bad"
    bad.mkdir()
    for name in ("typing", "boto3", "zlib", "byos_run", "sitecustomize"):
        (bad / f"{name}.py").write_text("raise SystemExit('taken from PYTHONPATH')")
    for name in BROKEN:
        (bad / name).write_bytes(b"not a library")
    (bad / "flock.c").write_text(FLOCK)


def seen(node: Node, place: starts.Place, broken: Surrounding, *, file: Path) -> Iterator[tuple[str, bool]]:
    """The version, and the job settled if it works."""
    stdin = file.read_bytes() if broken.is_piped else b""
    for words, wanted in ((("--version",), 0), (("--inptu", "x"), 64)):
        done = starts.start(
            node, place, *broken.command, *words, before=broken.before, variables=broken.variables, stdin=stdin
        )
        expected = broken.code or wanted
        good = (
            done.code == expected
            and broken.said in done.error
            and (done.output.startswith("byos-run ") or expected != 0)
        )
        why = "" if good else f" ({done.error[-200:].strip()})"
        yield f"{words[0].strip('-') if wanted == 0 else 'settle'} {done.code}{why}", good
        if broken.code:
            return
        for path in ("link", "a b/byos-run", "a b"):
            target = place.run / path
            if target.is_dir():
                target.rmdir()
            elif target.exists():
                target.unlink()


def at_once(node: Node, *, file: Path, count: int) -> Row:
    """Many starts at the same moment, each with a job to settle."""
    with starts.place(file) as place:
        began = time.monotonic()
        words = starts.command(node, place, ("sh", "byos-run", "--inptu", "x"))
        env = starts.environ(node, place)
        running = [
            subprocess.Popen(words, cwd=place.run, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(count)
        ]
        answers = {process.communicate(timeout=starts.START_S) for process in running}
        seconds = time.monotonic() - began
        codes = {process.returncode for process in running}
        facts = [
            (f"settle {sorted(codes)}, {len(answers)} answer in {seconds:.2f} s", (codes, len(answers)) == ({64}, 1))
        ]
        return judged("Many", f"{count} at once", [*facts, nothing_left(place)])


def killed(node: Node, *, file: Path) -> Row:
    """SIGKILL at random moments of the first half second, then one more start."""
    moments, before = random.Random(1), 0
    with starts.place(file) as place:
        words, env = starts.command(node, place, ("sh", "byos-run", "--inptu", "x")), starts.environ(node, place)
        for _ in range(KILLS):
            process = subprocess.Popen(
                words,
                cwd=place.run,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                process.wait(timeout=moments.uniform(0, KILL_WITHIN_S))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            before += bool(place.left())
        done = starts.start(node, place, "sh", "byos-run", "--version")
        facts = [(f"something lay there after {before} of them", True), (f"one more start {done.code}", done.code == 0)]
        return judged("Many", f"SIGKILL in the first 0.5 s × {KILLS}", [*facts, nothing_left(place)])


def cut(node: Node, *, file: Path) -> Iterator[Row]:
    """The file cut at many lengths, by sh and by a Python that is handed it."""
    whole = file.read_bytes()
    header = whole.index(b"PK\x03\x04")
    lengths = [
        *range(SHORTEST_TOLD, header, header // 40),
        *(header + (len(whole) - header) * part // 60 for part in range(60)),
    ][:CUTS]
    for words in (("sh", "byos-run"), (node.python, "byos-run")):
        with starts.place(file) as place:
            codes: dict[int, int] = {}
            for length in lengths:
                (place.run / "byos-run").write_bytes(whole[:length])
                done = starts.start(node, place, *words, "--version")
                code = 0 if done.output or not done.error else done.code
                codes[code] = codes.get(code, 0) + 1
            text = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
            facts = [(f"exit code: times {{{text}}}, each with a word", 0 not in codes), nothing_left(place)]
            yield judged("Many", f"cut at {len(lengths)} lengths, by {words[0].rsplit('/', 1)[-1]}", facts)
