"""Where the case lies."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from byos_run.errors import NodeUnfit, UsageError
from byos_run.node.globs import Globs
from byos_run.node.scratch import (
    MARKER,
    Room,
    become,
    bring_home,
    claim_room,
    is_marked,
    is_where_asked,
    refuse_run_directory,
    stage_of,
    stages_of,
)

RUN_ID = "0123456789abcdef" * 2


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


def claim(run: Path, scratch: str, **options: object) -> Room:
    given: dict[str, object] = {"environ": {}, **options}
    return claim_room(scratch=scratch, run_directory=run, run_id=RUN_ID, **given)  # type: ignore[arg-type]


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.mark.parametrize("scratch", ["case", "a/b/case", "./case/", "x/../case"])
def test_inside_the_run_directory(run: Path, scratch: str) -> None:
    """The path is the case; it is made by the fetch, in one step."""
    room = claim(run, scratch)

    assert (room.case, room.scratch, room.identity) == (run / os.path.normpath(scratch), None, None)
    assert room.made == (run / "a" if scratch.startswith("a/") else None)
    assert not room.case.exists()
    assert room.case.parent.is_dir()


@pytest.mark.parametrize("scratch", [".", "..", "../run", "x/.."])
def test_the_run_directory_is_no_scratch(run: Path, scratch: str) -> None:
    """Nor is what lies above it."""
    with pytest.raises(UsageError, match="itself"):
        claim(run, scratch)


@pytest.mark.parametrize("scratch", ["{}/base", "../base"], ids=["absolute", "relative"])
def test_outside_is_a_base(run: Path, scratch: str) -> None:
    """Rows of one table share it, so each run has a marked, private directory of its own below it."""
    base = run.parent / "base"
    (base / "foreign").mkdir(parents=True)

    room = claim(run, scratch.format(run.parent))

    assert room == Room(base / f"byos-{RUN_ID}/case", base / f"byos-{RUN_ID}")
    assert room.scratch is not None
    assert stat.S_IMODE(room.scratch.stat().st_mode) == 0o700
    assert is_marked(room.scratch, run_directory=run)
    assert not is_marked(room.scratch, run_directory=run.parent)


def test_an_empty_case_is_no_obstacle(run: Path) -> None:
    """Nor is one that an earlier attempt of ours left."""
    (run / "case").mkdir()
    assert claim(run, "case").case == run / "case"
    (run / "case/x").touch()
    assert claim(run, "case", earlier=Room(run / "case")).case == run / "case"


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_a_foreign_case_is_refused(run: Path, kind: str) -> None:
    """What we did not make we do not work in."""
    if kind == "full":
        (run / "case").mkdir()
        (run / "case/x").touch()
    elif kind == "file":
        (run / "case").touch()
    else:
        (run / "case").symlink_to(run.parent)

    with pytest.raises(UsageError, match="case directory") as caught:
        claim(run, "case")

    assert "scratch" in caught.value.hint


def test_the_first_base_that_fits(run: Path) -> None:
    """Not there, in memory, not absolute: the next is taken."""
    fast, slow = run.parent / "fast", run.parent / "slow"
    slow.mkdir()
    environ = {"BYOS_SCRATCH": str(fast), "SLURM_TMPDIR": "/dev/shm", "TMPDIR": str(slow)}
    assert claim(run, "outside", environ=environ).scratch == slow / f"byos-{RUN_ID}"
    fast.mkdir()
    assert claim(run, "outside", environ=environ).scratch == fast / f"byos-{RUN_ID}"


@pytest.mark.parametrize("need", ["need_bytes", "need_inodes"])
def test_no_base_has_room(run: Path, need: str) -> None:
    """Every place that was looked at is named with its reason."""
    with pytest.raises(NodeUnfit, match=r"'/dev/shm' is in memory, '/tmp' (has|is)") as caught:
        claim(run, "outside", environ={"TMPDIR": "/dev/shm"}, **{need: 1 << 61})

    assert "BYOS_SCRATCH" in caught.value.hint


def test_a_base_that_cannot_be_made(run: Path) -> None:
    """A base below a file is the node's fault."""
    (run.parent / "file").touch()

    with pytest.raises(NodeUnfit, match="cannot make"):
        claim(run, str(run.parent / "file/base"))


def test_a_stage_becomes_the_case(run: Path) -> None:
    """By one rename, over nothing or over an empty directory; its identity is then known."""
    room = claim(run, "case")
    stage = stage_of(room.case)
    stage.mkdir()
    (stage / "x").touch()
    (run / "case").mkdir()
    assert stages_of(room.case) == [stage]

    made = become(stage, room)

    assert tree(run) == ["case", "case/x"]
    assert made.identity == (room.case.stat().st_dev, room.case.stat().st_ino)
    assert stages_of(room.case) == []


def test_a_case_that_is_in_the_way(run: Path) -> None:
    """What appeared in the case meanwhile is not overwritten."""
    room = claim(run, "case")
    stage = stage_of(room.case)
    stage.mkdir()
    (run / "case").mkdir()
    (run / "case/x").touch()

    with pytest.raises(UsageError, match="in the way"):
        become(stage, room)


def test_what_is_kept_comes_home(run: Path) -> None:
    """Files to keep of a case outside are copied into the run directory, with their time stamps."""
    room = claim(run, str(run.parent / "base"))
    for path in ("a.out", "d/b.out", "d/c.h5", "results/x"):
        (room.case / path).parent.mkdir(parents=True, exist_ok=True)
        (room.case / path).write_text(path)
        os.utime(room.case / path, (1, 2))
    (room.case / "link.out").symlink_to("/etc/passwd")
    (run / "case/d").mkdir(parents=True)
    (run / "case/d/b.out").write_text("in the way")

    left = bring_home(room, run_directory=run, keep=Globs.of(["*.out", "results"]))

    assert tree(run) == ["case", "case/a.out", "case/d", "case/d/b.out", "case/results", "case/results/x"]
    assert (run / "case/a.out").stat().st_mtime == 2
    assert [(path, item.expected) for path, item in left.items()] == [("d/b.out", False)]
    assert (run / "case/d/b.out").read_text() == "in the way"


@pytest.mark.parametrize("place", ["/", "home", "above", "link to home"])
def test_run_directories_that_nobody_means(tmp_path: Path, place: str) -> None:
    """The root, the home directory, and all above it are refused, also under another name."""
    home = tmp_path / "home/user"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    directory = {"/": Path("/"), "home": home, "above": home.parent, "link to home": tmp_path / "link"}[place]

    with pytest.raises(UsageError, match="run directory"):
        refuse_run_directory(directory, home=str(home))


def test_run_directories_that_are_fine(tmp_path: Path) -> None:
    """Below the home directory, beside it, or without any."""
    home = tmp_path / "user"
    for directory in (home / "work", tmp_path / "user2"):
        directory.mkdir(parents=True)
        refuse_run_directory(directory, home=str(home))
        refuse_run_directory(directory, home="")


def test_the_marker_is_hidden_beside_the_case(run: Path) -> None:
    """So it is never an output."""
    room = claim(run, str(run.parent / "base"))

    assert room.scratch is not None
    assert os.listdir(room.scratch) == [MARKER]


def test_where_an_earlier_attempt_worked_counts_only_if_it_is_asked_for_again(run: Path) -> None:
    """The same place, or the same base outside and our marker in it."""
    here, base = {"run_directory": run, "environ": {}}, run.parent / "base"
    inside, outside = claim(run, "a/case"), claim(run, str(base))
    assert outside.scratch is not None

    assert is_where_asked(inside, scratch="./a/case", **here)  # type: ignore[arg-type]
    assert not is_where_asked(inside, scratch="case", **here)  # type: ignore[arg-type]
    assert not is_where_asked(inside, scratch="outside", **here)  # type: ignore[arg-type]
    assert is_where_asked(outside, scratch="../base", **here)  # type: ignore[arg-type]
    assert not is_where_asked(outside, scratch="a/case", **here)  # type: ignore[arg-type]
    assert not is_where_asked(outside, scratch=str(run.parent / "other"), **here)  # type: ignore[arg-type]
    (outside.scratch / MARKER).unlink()
    assert not is_where_asked(outside, scratch=str(base), **here)  # type: ignore[arg-type]
