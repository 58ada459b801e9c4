"""Deletion: everything that should go, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Callable

import pytest
from tests.test_node_tree import make_deep, open_descriptors
from tests.undeletable import as_nobody, bound, can_be_immutable, can_mount, immutable, mounted

from byos_run.model import Identity, Left
from byos_run.node.files import Snapshot, identity_of
from byos_run.node.removed import LISTED
from byos_run.node.scratch import MARKER
from byos_run.node.workspace import (
    empty_directory,
    remove_file_now,
    remove_if_unchanged,
    remove_marked,
    remove_shared_memory,
    remove_tree,
)

Means = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A directory that other users can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_tree_goes(tmp_path: Path) -> None:
    """Files, links, FIFOs, dot-files and directories go and are counted; what links lead to stays."""
    outside = write(tmp_path / "outside/file")
    root = tmp_path / "root"
    write(root / "a/b/file", "12345")
    write(root / ".hidden", "123")
    (root / "a/link").symlink_to(outside)
    (root / "a/dir").symlink_to(outside.parent)
    os.mkfifo(root / "a/pipe")
    (root / "empty").mkdir()

    removed = remove_tree(root, label="case/")

    assert not root.exists()
    assert outside.read_text() == "x"
    assert (removed.files, removed.directories, removed.size_bytes, removed.left) == (5, 4, 8, [])
    assert sorted(removed.paths) == ["case/.hidden", "case/a/b/file", "case/a/dir", "case/a/link", "case/a/pipe"]


def test_the_root_may_stay(tmp_path: Path) -> None:
    """Emptying a directory keeps it."""
    write(tmp_path / "a/b")

    removed = empty_directory(tmp_path)

    assert (removed.files, removed.directories, everything(tmp_path)) == (1, 1, [])


@pytest.mark.parametrize(("name", "levels"), [("d", 2000), ("n" * 255, 300)], ids=["2,000 levels", "255 bytes"])
def test_deep_trees(tmp_path: Path, name: str, levels: int) -> None:
    """No depth is too deep, no name too long, and nothing is left open."""
    make_deep(tmp_path, levels=levels, name=name)
    before = open_descriptors()

    removed = empty_directory(tmp_path)

    assert (removed.files, removed.directories, removed.left) == (1, levels, [])
    assert open_descriptors() == before


def test_many_files_in_one_directory(tmp_path: Path) -> None:
    """All go, and the first thousand are told by name."""
    for number in range(3000):
        os.close(os.open(tmp_path / f"{number:04}", os.O_CREAT | os.O_WRONLY))

    removed = empty_directory(tmp_path)

    assert (removed.files, len(removed.paths), os.listdir(tmp_path)) == (3000, LISTED, [])


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500, 0o600])
def test_directories_without_permissions(public_path: Path, mode: int) -> None:
    """A directory of ours that is closed is opened and goes."""
    with ExitStack() as stack:
        if os.geteuid() == 0:
            os.chown(public_path, 65534, -1)
            stack.enter_context(as_nobody())
        root = public_path / "root"
        write(root / "a/b/c")
        for directory in (root / "a/b", root / "a", root):
            directory.chmod(mode)

        removed = remove_tree(root)

        assert (removed.left, everything(public_path)) == ([], [])


def test_what_is_spared_stays_with_all_below(tmp_path: Path) -> None:
    """The verdict is asked for each path, top down; a directory on the way to something spared stays too."""
    for path in ("keep/a/b", "d/x", "d/keep.out", "y"):
        write(tmp_path / path)
    asked = []

    def verdict(path: str, _status: os.stat_result, _identity: Identity) -> Left | None:
        asked.append(path)
        return Left(path, "kept", expected=True) if path in ("keep", "d/keep.out") else None

    removed = empty_directory(tmp_path, verdict=verdict)

    assert everything(tmp_path) == ["d", "d/keep.out", "keep", "keep/a", "keep/a/b"]
    assert sorted(asked) == ["d", "d/keep.out", "d/x", "keep", "y"]
    assert sorted(item.path for item in removed.left) == ["d/keep.out", "keep"]


def test_hard_links_keep_their_identity(tmp_path: Path) -> None:
    """That one name of a file is unlinked stamps its other names; the verdict sees them as they were before."""
    write(tmp_path / "a", "12345")
    for name in ("b", "c"):
        os.link(tmp_path / "a", tmp_path / name)
    known = Snapshot.of((name, identity_of(os.lstat(tmp_path / name))) for name in ("a", "b", "c"))

    def verdict(path: str, _status: os.stat_result, identity: Identity) -> Left | None:
        return None if known.holds(path, identity) else Left(path, "changed", expected=False)

    removed = empty_directory(tmp_path, verdict=verdict)

    assert (removed.files, removed.size_bytes, removed.left) == (3, 5, [])


def test_something_new_in_a_directory_is_judged_too(tmp_path: Path) -> None:
    """A file that appears while its directory is emptied is found by another look."""
    write(tmp_path / "d/one")
    made = iter(["two", "three"])

    def verdict(path: str, _status: os.stat_result, _identity: Identity) -> None:
        name = next(made, None) if path.startswith("d/") else None
        if name:
            write(tmp_path / "d/sub" / name)

    removed = empty_directory(tmp_path, verdict=verdict)

    assert (removed.files, removed.left, everything(tmp_path)) == (3, [], [])


def test_something_new_again_and_again_ends(tmp_path: Path) -> None:
    """A directory in which something appears at every look is left and told."""
    write(tmp_path / "d/0/file")

    def verdict(path: str, _status: os.stat_result, _identity: Identity) -> None:
        if path.endswith("/file"):
            write(tmp_path / "d" / str(int(path.split("/")[1]) + 1) / "file")

    removed = empty_directory(tmp_path, verdict=verdict)

    assert [(item.path, item.expected) for item in removed.left] == [("d", False)]


def test_what_vanishes_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    """Another process may be deleting too."""
    for path in ("a", "b", "d/x", "e/x"):
        write(tmp_path / path)

    def verdict(_path: str, _status: os.stat_result, _identity: Identity) -> None:
        for path in ("a", "b", "d/x", "e/x"):
            (tmp_path / path).unlink(missing_ok=True)

    removed = empty_directory(tmp_path, verdict=verdict)

    assert (removed.left, everything(tmp_path)) == ([], [])


def test_nothing_there(tmp_path: Path) -> None:
    """What is gone already is not deleted, nor an error."""
    assert remove_tree(tmp_path / "no/thing").nothing
    assert remove_tree(tmp_path / "nothing").nothing
    assert empty_directory(tmp_path / "nothing").nothing


def test_a_link_in_the_place_of_a_tree(tmp_path: Path) -> None:
    """The link goes; what it leads to stays."""
    write(tmp_path / "target/x")
    (tmp_path / "case").symlink_to("target")

    assert empty_directory(tmp_path / "case").left[0].expected is False
    assert remove_tree(tmp_path / "case").files == 1
    assert everything(tmp_path) == ["target", "target/x"]


def test_another_directory_in_the_place_of_ours(tmp_path: Path) -> None:
    """Device and inode tell: a directory, or a link, that took the place of ours is left alone."""
    case = tmp_path / "case"
    case.mkdir()
    ours = (os.lstat(case).st_dev, os.lstat(case).st_ino)
    case.rename(tmp_path / "moved")
    write(case / "x")

    assert [item.expected for item in remove_tree(case, identity=ours).left] == [False]
    assert (case / "x").exists()
    assert remove_tree(tmp_path / "moved", identity=ours).left == []


def test_what_cannot_be_deleted_is_told() -> None:
    """The kernel's own files refuse; each is left with a reason, and nothing is raised."""
    removed = empty_directory(Path("/proc/self/ns"))

    assert removed.files == 0
    assert {item.path for item in removed.left} == set(os.listdir("/proc/self/ns"))
    assert {(item.reason, item.expected) for item in removed.left} <= {
        ("operation not permitted: an immutable file, or another user's", False),
        ("permission denied", False),
    }


@pytest.mark.parametrize("means", [immutable] if can_be_immutable() else [])
def test_immutable_file(tmp_path: Path, means: Means) -> None:
    """An immutable file stays, is told, and all else goes."""
    for path in ("d/stuck", "d/x", "y"):
        write(tmp_path / "root" / path)
    with means(tmp_path / "root/d/stuck"):
        removed = remove_tree(tmp_path / "root", label="case/")

    assert everything(tmp_path / "root") == ["d", "d/stuck"]
    assert [(item.path, item.expected) for item in removed.left] == [("case/d/stuck", False)]


@pytest.mark.parametrize("means", [as_nobody] if os.geteuid() == 0 else [])
def test_another_users_directory(public_path: Path, means: Means) -> None:
    """What belongs to another user stays and is told."""
    write(public_path / "root/theirs/x")
    (public_path / "root/theirs").chmod(0o755)
    os.chown(public_path / "root", 65534, -1)
    with means():
        write(public_path / "root/ours/y")
        removed = remove_tree(public_path / "root")

    assert everything(public_path / "root") == ["theirs", "theirs/x"]
    assert [(item.path, item.expected) for item in removed.left] == [("theirs/x", False)]


@pytest.mark.parametrize("kind", ["other device", "same device", "file"] if can_mount() else [])
def test_mounts_are_not_crossed(tmp_path: Path, kind: str) -> None:
    """Whatever is mounted in the tree stays whole, also if it is of the same device, or a single file."""
    root = tmp_path / "root"
    write(tmp_path / "data/precious")
    write(root / "d/x")
    point = root / "d/point"
    if kind == "file":
        point.write_text("hidden below")
        mount = bound(tmp_path / "data/precious", point)
    else:
        point.mkdir()
        mount = mounted(point) if kind == "other device" else bound(tmp_path / "data", point)
    with mount:
        if kind == "other device":
            write(point / "precious")
        removed = remove_tree(root)
        inside = (point if kind == "file" else point / "precious").read_text()

    assert inside == "x"
    assert (tmp_path / "data/precious").exists()
    assert removed.left == [Left("d/point", "something is mounted there", expected=True)]
    assert not (root / "d/x").exists()


@pytest.mark.parametrize("mount", [mounted] if can_mount() else [])
def test_a_mounted_root_is_left(tmp_path: Path, mount: Means) -> None:
    """A tree whose root is a mount point is not crossed into; as the run directory it may be emptied."""
    root = tmp_path / "root"
    root.mkdir()
    with mount(root):
        write(root / "x")
        left = remove_tree(root).left
        kept = (root / "x").exists()
        emptied = empty_directory(root)

    assert (kept, left[0].expected, emptied.files) == (True, True, 1)


def mark(root: Path, run_directory: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / MARKER).write_text(json.dumps({"run_id": "0" * 32, "run_directory": str(run_directory)}))


def test_a_marked_scratch_goes(tmp_path: Path) -> None:
    """A directory outside that carries our marker goes whole."""
    write(tmp_path / "byos-1/case/x")
    mark(tmp_path / "byos-1", tmp_path / "run")

    removed = remove_marked(tmp_path / "byos-1", run_directory=tmp_path / "run")

    assert (removed.files, removed.left, everything(tmp_path)) == (2, [], [])


def test_a_killed_removal_of_scratch_is_finished(tmp_path: Path) -> None:
    """The marker goes last, so what was begun can be finished; all but the last step done is finished too."""
    mark(tmp_path / "one", tmp_path / "run")
    (tmp_path / "two").mkdir()

    for name in ("one", "two", "three"):
        assert remove_marked(tmp_path / name, run_directory=tmp_path / "run").left == []

    assert everything(tmp_path) == []


def test_scratch_with_something_spared_keeps_its_marker(tmp_path: Path) -> None:
    """So that the next start may delete the rest."""
    write(tmp_path / "byos-1/case/x")
    write(tmp_path / "byos-1/case/y")
    mark(tmp_path / "byos-1", tmp_path / "run")

    removed = remove_marked(
        tmp_path / "byos-1",
        run_directory=tmp_path / "run",
        verdict=lambda path, _s, _i: Left(path, "kept", expected=False) if path == "case/x" else None,
        label="S/",
    )

    assert everything(tmp_path / "byos-1") == [MARKER, "case", "case/x"]
    assert [item.path for item in removed.left] == ["case/x"]


@pytest.mark.parametrize("marker", ["none", "of another run directory", "a link", "no JSON", "not an object"])
def test_a_directory_that_is_not_ours_stays(tmp_path: Path, marker: str) -> None:
    """Without our marker nothing outside the run directory is deleted."""
    root, run = tmp_path / "root", tmp_path / "run"
    write(root / "x")
    if marker == "of another run directory":
        mark(root, tmp_path / "run-2")
    elif marker == "a link":
        mark(tmp_path / "other", run)
        (root / MARKER).symlink_to(tmp_path / "other" / MARKER)
    elif marker != "none":
        (root / MARKER).write_text("{" if marker == "no JSON" else "[]")

    removed = remove_marked(root, run_directory=run)

    assert (root / "x").exists()
    assert [(item.reason, item.expected) for item in removed.left] == [("it does not carry our marker", True)]


def test_secrets_go_at_once(tmp_path: Path) -> None:
    """The file goes; a link goes, not what it leads to; what is not there is no trouble."""
    write(tmp_path / "real")
    (tmp_path / "config").symlink_to("real")

    assert [remove_file_now(tmp_path / name) for name in ("config", "config", "no/config")] == [None] * 3
    assert everything(tmp_path) == ["real"]


@pytest.mark.parametrize("means", [as_nobody] if os.geteuid() == 0 else [])
def test_secrets_that_cannot_be_deleted_are_emptied(public_path: Path, means: Means) -> None:
    """If the directory is another user's, at least the content goes, and it is told."""
    config = write(public_path / "config", "secret")
    os.chown(config, 65534, -1)
    with means():
        left = remove_file_now(config)

    assert left is not None
    assert (left.expected, left.reason.startswith("emptied"), config.read_text()) == (False, True, "")


def test_shared_memory(tmp_path: Path) -> None:
    """Only plain files directly below the kernel's directory go."""
    segment = Path(f"/dev/shm/byos-test-{os.getpid()}")
    segment.write_text("x")
    other = write(tmp_path / "x")

    removed = remove_shared_memory([str(segment), f"{segment}-gone", str(other), f"/dev/shm/../{other}"])

    assert (removed, segment.exists(), other.exists()) == ([str(segment)], False, True)


def test_one_file_goes_if_it_is_what_it_was(tmp_path: Path) -> None:
    """Unchanged, plain, by its only name and through no link: else it stays."""
    for name in ("a/goes", "a/changed", "a/linked"):
        write(tmp_path / name)
    seen = {name: identity_of((tmp_path / name).stat()) for name in ("a/goes", "a/changed")}
    write(tmp_path / "a/changed", "other")
    os.link(tmp_path / "a/linked", tmp_path / "a/twin")
    (tmp_path / "way").symlink_to("a")
    linked = identity_of((tmp_path / "a/linked").stat())

    assert not remove_if_unchanged(tmp_path, "a/changed", identity=seen["a/changed"])
    assert not remove_if_unchanged(tmp_path, "a/linked", identity=linked)
    assert not remove_if_unchanged(tmp_path, "way/goes", identity=seen["a/goes"])
    assert not remove_if_unchanged(tmp_path, "nowhere/goes", identity=seen["a/goes"])
    assert remove_if_unchanged(tmp_path, "a/goes", identity=seen["a/goes"])
    assert not remove_if_unchanged(tmp_path, "a/goes", identity=seen["a/goes"])
    assert everything(tmp_path) == ["a", "a/changed", "a/linked", "a/twin", "way"]
