"""Walking a tree by descriptors."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byos_run.node.tree import DIRECTORY, Descent, Familiar, scan
from byos_run.node.workspace import empty_directory


@pytest.fixture
def deep_path(tmp_path: Path) -> Iterator[Path]:
    """A directory for trees that are too deep for others to clean up."""
    yield tmp_path
    empty_directory(tmp_path)


def make_deep(root: Path, *, levels: int, name: str) -> None:
    """A chain of directories, deeper than any path can name, with one file at the bottom."""
    at = os.open(root, DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=at)
        above, at = at, os.open(name, DIRECTORY, dir_fd=at)
        os.close(above)
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


def go_up(descent: Descent, *, levels: int) -> None:
    for _ in range(levels):
        descent.up()


def open_descriptors() -> int:
    gc.collect()  # a wish to stop of an earlier test holds pipes until it is collected
    return len(os.listdir("/proc/self/fd"))


def paths(root: Path, **options: object) -> list[str]:
    return sorted(path for path, _ in scan(root, problems=[], **options))  # type: ignore[arg-type]  # skip alone


def test_all_that_is_no_directory(tmp_path: Path) -> None:
    """Files, links and FIFOs of every directory are seen, and no link is entered."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/link").symlink_to("b")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()

    assert paths(tmp_path) == ["a/b/file", "a/link", "pipe"]


def test_skip(tmp_path: Path) -> None:
    """A skipped path is passed over with all below; one of the same base name elsewhere is not."""
    for path in ("case/x", "a/case/x", "config", "y"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")

    assert paths(tmp_path, skip={"case", "config"}) == ["a/case/x", "y"]


@pytest.mark.parametrize("name", ["d", "n" * 255], ids=["short", "255 bytes"])
def test_two_thousand_levels(deep_path: Path, name: str) -> None:
    """Depth costs neither descriptors nor recursion, and nothing is left open."""
    make_deep(deep_path, levels=2000, name=name)
    (deep_path / "side").mkdir()
    (deep_path / "side/x").write_text("x")
    before = open_descriptors()

    found = paths(deep_path)

    assert found == sorted(["/".join([name] * 2000 + ["bottom"]), "side/x"])
    assert open_descriptors() == before


def test_abandoned_walk_leaves_nothing_open(tmp_path: Path) -> None:
    """A caller may stop in the middle."""
    make_deep(tmp_path, levels=5, name="d")
    (tmp_path / "d/x").write_text("x")
    before = open_descriptors()

    walk = scan(tmp_path, problems=[])
    next(walk)
    walk.close()  # type: ignore[attr-defined]  # a generator is promised to nobody but here

    assert open_descriptors() == before


def test_directory_that_moved_is_noticed(deep_path: Path) -> None:
    """Going up never leads to another directory than the one we came from."""
    make_deep(deep_path, levels=150, name="d")
    root = os.open(deep_path, DIRECTORY)
    try:
        with Descent(root) as descent:
            for _ in range(150):
                descent.down("d")
            (deep_path / "elsewhere").mkdir()
            os.rename(deep_path / "/".join(["d"] * 149), deep_path / "elsewhere/d")

            with pytest.raises(OSError, match="moved"):
                go_up(descent, levels=150)
    finally:
        os.close(root)


COMES_AND_GOES = """
import itertools, os, shutil
for step in itertools.count():
    os.makedirs(f"time/{step}/uniform")
    for name in ("U", "uniform/time"):
        open(f"time/{step}/{name}", "w").close()
    os.rename(f"time/{step}", f"work{step}")
    if step > 3:
        shutil.rmtree(f"work{step - 4}")
    if step == 5:
        print("ready", flush=True)
"""


def test_directories_that_come_and_go_hide_nothing_else(tmp_path: Path) -> None:
    """Made, renamed and deleted during a look: each finds all of the 10,000 files that stay, and has no problem."""
    stay = {f"stay{number // 100}/file{number}" for number in range(10_000)}
    for path in stay:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    command = [sys.executable, "-I", "-S", "-c", COMES_AND_GOES]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        try:
            for _ in range(20):
                problems: list[tuple[str, OSError]] = []
                found = {path for path, _ in scan(tmp_path, problems=problems)}
                assert (stay - found, problems) == (set(), [])
            assert writer.poll() is None
        finally:
            writer.kill()


def news(familiar: Familiar, *paths: str) -> set[str]:
    return {path for path, _ in familiar.news(paths)}


def test_what_is_new_in_a_tree_that_is_known(tmp_path: Path) -> None:
    """Names in directories that changed, and in new ones at any depth; what was written in place only if asked; also where the
    solver sets back the times of a directory."""
    for path in ("a/b/old", "a/old", "c/old"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    familiar = Familiar(tmp_path)

    def known() -> bool:
        return len(list(familiar.walk(problems=[]))) == 3 and not news(familiar)

    deadline = time.monotonic() + 60
    while not known():  # what changed just now may change again within the same tick
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (tmp_path / "a/old").write_text("in place")
    assert news(familiar, "c/old", "gone") == {"c/old"}
    before = (tmp_path / "a/b").stat()
    (tmp_path / "a/b/new").write_text("x")
    os.utime(tmp_path / "a/b", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "c/d/e").mkdir(parents=True)
    (tmp_path / "c/d/e/deep").write_text("x")
    assert news(familiar) == {"a/b/old", "a/b/new", "c/old", "c/d/e/deep"}
    (tmp_path / "c/d/e/deeper").write_text("x")
    assert "c/d/e/deeper" in news(familiar)
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "a/b").rename(tmp_path / "a/moved")
    assert {path for path in news(familiar) if not path.startswith("a/")} == set()
    assert "a/moved/new" in news(familiar)


def test_a_link_is_not_entered(tmp_path: Path) -> None:
    """A directory swapped for a link is an error, not another tree."""
    (tmp_path / "link").symlink_to("/")
    root = os.open(tmp_path, DIRECTORY)
    try:
        with Descent(root) as descent, pytest.raises(OSError, match=r"directory|links"):
            descent.down("link")
    finally:
        os.close(root)


def test_the_root_must_be_a_directory(tmp_path: Path) -> None:
    """A missing root is the caller's to know."""
    with pytest.raises(FileNotFoundError):
        paths(tmp_path / "nothing")
