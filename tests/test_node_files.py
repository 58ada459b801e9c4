"""What is an output, and reading it without being led astray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from tests.undeletable import as_nobody

from byos_run.model import Identity, Output
from byos_run.node.files import (
    Harvest,
    Snapshot,
    case_outputs,
    identity_of,
    key_path_of,
    open_output,
    rundir_outputs,
    snapshot,
)
from byos_run.node.globs import Globs, Selection
from byos_run.node.tree import open_beneath


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case as the fetch leaves it."""
    case = tmp_path / "run" / "case"
    case.mkdir(parents=True)
    write(case / "inputs.in", "input")
    write(case / "mesh/surface.dat", "surface")
    return case


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def harvest(
    case: Path,
    fetched: Snapshot,
    *,
    what: str = "changed",
    include: tuple[str, ...] = ("**",),
    exclude: tuple[str, ...] = (),
    key_prefix: str = "out/",
) -> Harvest:
    selection = Selection.of(include=include, exclude=exclude)
    return case_outputs(case=case, fetched=fetched, what=what, selection=selection, key_prefix=key_prefix)


def keys(found: Harvest) -> list[str]:
    return [output.key_path for output in found.outputs]


def read(output: Output) -> bytes:
    fd, _ = open_output(output)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_created_and_changed(case: Path) -> None:
    """What the solver made or changed is an output; what it only read is not; its name says nothing."""
    fetched = snapshot(case)
    write(case / "inputs.in", "INPUT")
    write(case / "output/post.h5", "")
    write(case / ".hidden")

    found = harvest(case, fetched)

    assert keys(found) == [".hidden", "inputs.in", "output/post.h5"]
    assert (found.skipped, found.unpublished, found.directory_links) == ([], [], {})


def test_same_size_and_mtime_is_still_a_change(case: Path) -> None:
    """A file put back with its old size and time stamp is another file."""
    fetched = snapshot(case)
    before = (case / "inputs.in").stat()
    write(case / "inputs.in", "INPUT")
    os.utime(case / "inputs.in", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert keys(harvest(case, fetched)) == ["inputs.in"]


def test_a_change_right_after_the_snapshot_is_seen(case: Path) -> None:
    """However soon the solver writes, its time stamp is a later one."""
    for _ in range(20):
        write(case / "a", "one")
        fetched = snapshot(case)
        with open(case / "a", "r+b") as file:
            file.write(b"two")

        assert keys(harvest(case, fetched)) == ["a"]


def test_replaced_by_rename(case: Path) -> None:
    """A file renamed over an input is an output."""
    fetched = snapshot(case)
    os.replace(write(case / "tmp", "input"), case / "inputs.in")

    assert keys(harvest(case, fetched)) == ["inputs.in"]


def test_all(case: Path) -> None:
    """With "all", inputs are outputs too."""
    assert keys(harvest(case, snapshot(case), what="all")) == ["inputs.in", "mesh/surface.dat"]


def test_include_and_exclude(case: Path) -> None:
    """Globs choose, and exclude beats include."""
    fetched = snapshot(case)
    for path in ("a.h5", "d/b.h5", "d/b.tmp.h5", "c.txt"):
        write(case / path)

    assert keys(harvest(case, fetched, include=("*.h5",), exclude=("*.tmp.h5",))) == ["a.h5", "d/b.h5"]


def test_empty_directories_and_deleted_inputs_are_nothing(case: Path) -> None:
    """Only files are published."""
    fetched = snapshot(case)
    (case / "empty/deep").mkdir(parents=True)
    (case / "inputs.in").unlink()

    assert harvest(case, fetched) == Harvest([], [], [], {})


def test_hard_links_are_outputs_each(case: Path) -> None:
    """Two names of one file are two outputs with one identity."""
    fetched = snapshot(case)
    os.link(write(case / "a"), case / "b")

    found = harvest(case, fetched)

    assert keys(found) == ["a", "b"]
    assert found.outputs[0].identity == found.outputs[1].identity


def test_link_to_a_file_inside(case: Path) -> None:
    """A link to a file of the case is that file's content, recorded as a link; absolute ones and chains too."""
    fetched = snapshot(case)
    write(case / "out/restart2.rst", "state")
    (case / "latest").symlink_to("out/restart2.rst")
    (case / "absolute").symlink_to(case / "out/restart2.rst")
    (case / "out/chain").symlink_to("../latest")

    found = harvest(case, fetched)

    links = {output.path: output.link_to for output in found.outputs if output.link_to}
    assert links == dict.fromkeys(("latest", "absolute", "out/chain"), "out/restart2.rst")
    assert {read(output) for output in found.outputs} == {b"state"}


def test_link_that_was_fetched(case: Path) -> None:
    """A link that came with the input is an output only if what it leads to has changed."""
    (case / "same").symlink_to("inputs.in")
    (case / "changed").symlink_to("mesh/surface.dat")
    (case / "broken").symlink_to("nowhere")
    fetched = snapshot(case)
    write(case / "mesh/surface.dat", "finer")

    found = harvest(case, fetched)

    assert keys(found) == ["changed", "mesh/surface.dat"]
    assert found.skipped == []


def test_links_to_directories_are_recorded(case: Path) -> None:
    """They are not followed, so nothing is published twice and no circle is walked."""
    fetched = snapshot(case)
    (case / "again").symlink_to("mesh")
    (case / "mesh/up").symlink_to("..")

    found = harvest(case, fetched)

    assert found.directory_links == {"again": "mesh", "mesh/up": "."}
    assert (found.outputs, found.skipped) == ([], [])


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        pytest.param("nowhere", "broken", id="broken"),
        pytest.param("inputs.in/x", "broken", id="through a file"),
        pytest.param("trick", "itself", id="loop"),
        pytest.param("../secret", "leads out", id="outside"),
        pytest.param("/etc/passwd", "leads out", id="absolute outside"),
        pytest.param("..", "leads out", id="directory outside"),
        pytest.param("../case-2/x", "leads out", id="a neighbour with our prefix"),
        pytest.param("pipe", "a FIFO", id="to a FIFO"),
    ],
)
def test_links_that_are_skipped(case: Path, target: str, reason: str) -> None:
    """A link that does not end at a file of the case is skipped and says why; nothing is read through it."""
    fetched = snapshot(case)
    write(case.parent / "secret")
    write(case.parent / "case-2/x")
    os.mkfifo(case / "pipe")
    (case / "trick").symlink_to(target)

    found = harvest(case, fetched)

    reasons = {item.path: item.reason for item in found.skipped}
    assert found.outputs == []
    assert reason in reasons["trick"]


def test_what_is_no_file_is_skipped(case: Path) -> None:
    """FIFOs and sockets are named, not waited for."""
    fetched = snapshot(case)
    os.mkfifo(case / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(case, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/sock")
        os.close(directory)

        found = harvest(case, fetched)

    assert [(item.path, item.reason) for item in found.skipped] == [("pipe", "a FIFO"), ("sock", "a socket")]
    assert found.outputs == []


def test_names_of_every_kind(case: Path) -> None:
    """Odd names keep their path as key; those that are not UTF-8 are escaped so that decoding gives them back."""
    names = [b"a b", b"a%41", b"a#", b"a+", "ü€\U0001f600".encode(), b"-rf", b"\xff%x", b"line\nfeed", b"~", b"n" * 255]
    fetched = snapshot(case)
    for name in names:
        os.close(os.open(os.path.join(os.fsencode(case), name), os.O_CREAT | os.O_WRONLY))

    found = harvest(case, fetched)

    escaped = {output.key_path for output in found.outputs if output.escaped}
    plain = {output.key_path.encode() for output in found.outputs if not output.escaped}
    assert escaped == {"%FF%25x"}
    assert {unquote_to_bytes(key) for key in escaped} | plain == set(names)
    assert all(read(output) == b"" for output in found.outputs)


def test_two_paths_one_key(case: Path) -> None:
    """If an escaped name meets one that is written so, neither is published, and both are told."""
    fetched = snapshot(case)
    (case / "%FF").write_text("literal")
    os.close(os.open(os.path.join(os.fsencode(case), b"\xff"), os.O_CREAT | os.O_WRONLY))
    write(case / "other")

    found = harvest(case, fetched)

    assert keys(found) == ["other"]
    assert [item.path for item in found.unpublished] == ["%FF", "\udcff"]
    assert all("same key" in item.reason for item in found.unpublished)


@pytest.mark.parametrize("path", ["_byos/manifest.json", "_byos"])
def test_our_own_names_are_refused(case: Path, path: str) -> None:
    """A case file that would overwrite our objects, or stand where their prefix is, is unpublished."""
    fetched = snapshot(case)
    write(case / path)
    write(case / "deeper/_byos/x")

    found = harvest(case, fetched)

    assert [item.path for item in found.unpublished] == [path]
    assert keys(found) == ["deeper/_byos/x"]


def test_key_too_long(case: Path) -> None:
    """1,024 bytes of UTF-8 with the prefix are the limit."""
    fetched = snapshot(case)
    directory = case.joinpath("ü" * 100, "d" * 200, "e" * 200, "f" * 200)
    write(directory / ("x" * 100))
    write(directory / ("y" * 101))
    prefix = "p" * (1024 - 907) + "/"
    assert len(f"{prefix}{'ü' * 100}/{'d' * 200}/{'e' * 200}/{'f' * 200}/{'x' * 100}".encode()) == 1022

    found = harvest(case, fetched, key_prefix="pp" + prefix)

    assert [output.path[-1] for output in found.outputs] == ["x"]
    assert [(item.path[-1], "1025 bytes" in item.reason) for item in found.unpublished] == [("y", True)]


def test_rundir(case: Path) -> None:
    """Files that appeared beside the case are outputs below ``_byos/rundir/``; ours and old ones are not."""
    run = case.parent
    ours = {"case", ".byos", "config", "byos.toml"}
    for path in ("byos.toml", "old", ".byos/journal.jsonl"):
        write(run / path)
    laid_down = snapshot(run, skip=ours)
    for path in ("stray.out", "core.12", "sub/x.tmp", "config", ".byos/solver.log", "case/new"):
        write(run / path)

    found = rundir_outputs(
        run_directory=run, laid_down=laid_down, ours=ours, exclude=Globs.of(["*.tmp"]), key_prefix="out/"
    )

    assert keys(found) == ["_byos/rundir/core.12", "_byos/rundir/stray.out"]
    assert {read(output) for output in found.outputs} == {b"x"}


def test_no_secret_leaves_by_a_link_in_the_run_directory(case: Path) -> None:
    """A link to one of our files is skipped, also if the link lies outside the case."""
    run = case.parent
    ours = {"case", "config", ".byos"}
    laid_down = snapshot(run, skip=ours)
    write(run / "config", "secret")
    write(run / ".byos/run.log")
    (run / "notes").symlink_to("config")
    (run / "log").symlink_to(".byos/run.log")

    found = rundir_outputs(run_directory=run, laid_down=laid_down, ours=ours, exclude=Globs.of([]), key_prefix="out/")

    assert found.outputs == []
    assert [item.path for item in found.skipped] == ["log", "notes"]


def test_open_output_never_follows_a_link(case: Path) -> None:
    """A file, or a directory on the way to it, that was swapped for a link is not read."""
    fetched = snapshot(case)
    write(case / "d/x", "ours")
    write(case / "y", "ours")
    outputs = harvest(case, fetched).outputs
    write(case.parent / "elsewhere/x", "secret")
    os.rename(case / "d", case / "moved")
    (case / "d").symlink_to(case.parent / "elsewhere")
    (case / "y").unlink()
    (case / "y").symlink_to(case.parent / "elsewhere/x")

    for output in outputs:
        with pytest.raises(OSError, match=r"irectory|symbolic"):
            open_output(output)


def test_open_output_does_not_wait_for_a_fifo(case: Path) -> None:
    """A file swapped for a FIFO is refused at once."""
    fetched = snapshot(case)
    write(case / "x")
    (output,) = harvest(case, fetched).outputs
    (case / "x").unlink()
    os.mkfifo(case / "x")

    with pytest.raises(OSError, match="plain file"):
        open_output(output)


def test_open_output_tells_what_it_opened(case: Path) -> None:
    """The identity is that of the descriptor, so that a change since the look is noticed."""
    fetched = snapshot(case)
    write(case / "x", "one")
    (output,) = harvest(case, fetched).outputs
    write(case / "x", "longer")

    fd, identity = open_output(output)

    assert identity == identity_of(os.fstat(fd))
    assert identity != output.identity
    os.close(fd)


def test_open_beneath_closes_what_it_opened(case: Path) -> None:
    """No descriptor is lost, found or not."""
    before = os.listdir("/proc/self/fd")
    os.close(open_beneath(case, "mesh/surface.dat"))
    with pytest.raises(FileNotFoundError):
        open_beneath(case, "mesh/nothing")

    assert os.listdir("/proc/self/fd") == before


def test_snapshot_survives_its_bytes(case: Path) -> None:
    """What was written can be read by another process and answers the same."""
    fetched = Snapshot.from_bytes(snapshot(case).to_bytes())
    write(case / "new")

    assert len(fetched) == 2
    assert keys(harvest(case, fetched)) == ["new"]


def test_snapshot_of_given_states() -> None:
    """Path and all four parts of the identity must agree."""
    state = Identity(1, 2, 3, 4)
    states = Snapshot.of([("a", state), ("\udcff", state)])

    assert states.holds("a", state)
    assert states.holds("\udcff", state)
    assert not states.holds("b", state)
    assert not states.holds("a", state._replace(mtime_ns=16_725_225_600 * 10**9))  # somebody dated it to 2500
    assert not any(states.holds("a", state._replace(**{name: 9})) for name in Identity._fields)


def test_key_path_of_plain_names() -> None:
    """UTF-8 stays as it is, percent signs too."""
    assert key_path_of("a/100%/ü") == ("a/100%/ü", False)


@pytest.mark.parametrize("instead", ["nothing", "file", "link"])
def test_a_case_that_is_gone(case: Path, instead: str) -> None:
    """A solver that removed its own case loses outputs, and that is told; nothing is read elsewhere."""
    fetched = snapshot(case)
    write(case / "x")
    case.rename(case.parent / "moved")
    if instead == "file":
        case.touch()
    elif instead == "link":
        case.symlink_to("moved")

    found = harvest(case, fetched)

    assert (found.outputs, [item.path for item in found.unpublished]) == ([], ["."])


@pytest.mark.parametrize("user", [65534] if os.geteuid() == 0 else [])
def test_a_directory_that_cannot_be_read(user: int) -> None:
    """What may hold outputs and cannot be read is unpublished; if it was so at the start, it is none of ours."""
    with tempfile.TemporaryDirectory() as name:
        case = Path(name) / "case"
        (case / "old").mkdir(parents=True, mode=0o700)
        (case / "new").mkdir()
        Path(name).chmod(0o755)
        with as_nobody():
            fetched = snapshot(case)
        (case / "new").chmod(0o700)
        with as_nobody():
            found = harvest(case, fetched)
            found_all = harvest(case, fetched, what="all")

    assert [item.path for item in found.unpublished] == ["new"]
    assert [item.path for item in found_all.unpublished] == ["new", "old"]


def test_our_own_output_is_no_output(case: Path) -> None:
    """The file that our standard output goes to changes all the time, and is not published."""
    run = case.parent
    script = (
        "import pathlib; from byos_run.node.files import *; from byos_run.node.globs import *; run = pathlib.Path('.');"
        "before = snapshot(run); print('line', flush=True); pathlib.Path('stray').touch();"
        "found = rundir_outputs(run_directory=run, laid_down=before, ours={'case'}, exclude=Globs.of([]), key_prefix='');"
        "print([output.path for output in found.outputs])"
    )
    with open(run / "job.log", "w", encoding="utf-8") as log:
        subprocess.run(
            [sys.executable, "-c", script], cwd=run, stdout=log, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip

    assert (run / "job.log").read_text() == "line\n['stray']\n"
