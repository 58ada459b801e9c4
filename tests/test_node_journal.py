"""What the next start on this node knows."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from byos_run.errors import NodeUnfit, UsageError
from byos_run.model import Attempt, Identity, Output, Published, Solved
from byos_run.node.files import Snapshot
from byos_run.node.journal import Earlier, Journal, open_journal
from byos_run.node.scratch import Room

ATTEMPT = Attempt("1" * 32, 1, 1000.5)
SOLVED = Solved(None, 9, "", "killed", False, 1.5, 1 << 30, 8, 2000.0, ("a note",), ("/dev/shm/x",))


@contextmanager
def opened(run: Path) -> Iterator[Journal]:
    journal = open_journal(run, run_id="mine")
    try:
        yield journal
    finally:
        journal.close()


def published(root: Path, path: str, *, size: int = 1) -> Published:
    identity = Identity(size, 2, 3, 4)
    output = Output(path, f"key/{path}", identity, root, link_to="target", escaped=True)
    return Published(output, f"out/{path}", size, "AAAAAA==", '"etag"', identity, 0.5)


def begin(journal: Journal, attempt: Attempt = ATTEMPT, *, continues: bool = False) -> None:
    journal.begin(attempt, digest=f"digest {attempt.number}", output="s3://b/out/", continues=continues)


def earlier(run: Path) -> Earlier | None:
    with opened(run) as journal:
        return journal.earlier()


def test_nothing_yet(tmp_path: Path) -> None:
    """A fresh journal is private and tells of no earlier attempt."""
    assert earlier(tmp_path) is None
    assert stat.S_IMODE((tmp_path / ".byos").stat().st_mode) == 0o700


def test_all_comes_back(tmp_path: Path) -> None:
    """The next start reads what was written, names that are not UTF-8 included."""
    room = Room(tmp_path / "case", tmp_path / "scratch", (5, 6))
    outputs = [published(tmp_path / "case", path) for path in ("a", "\udcff", "line\nfeed")]
    with opened(tmp_path) as journal:
        begin(journal)
        journal.placed(Room(tmp_path / "case"))
        journal.placed(room)
        journal.phase("fetch")
        journal.phase("solve")
        journal.solved(SOLVED)
        for output in outputs:
            journal.acknowledged(output)
        journal.manifest("out/_byos/manifest.json")

    told = earlier(tmp_path)

    assert told == Earlier(
        ATTEMPT,
        "digest 1",
        "s3://b/out/",
        ATTEMPT.number,
        room,
        ["fetch", "solve"],
        SOLVED,
        {(str(tmp_path / "case"), output.output.path): output for output in outputs},
        "out/_byos/manifest.json",
    )


def test_a_later_state_replaces_an_earlier_one(tmp_path: Path) -> None:
    """Of two acknowledged states of one file the last counts; the same path below another root is another file."""
    with opened(tmp_path) as journal:
        begin(journal)
        for root, size in ((tmp_path / "case", 1), (tmp_path / "case", 2), (tmp_path, 3)):
            journal.acknowledged(published(root, "a", size=size))

    told = earlier(tmp_path)

    assert told is not None
    assert [item.size_bytes for item in told.acknowledged.values()] == [2, 3]


@pytest.mark.parametrize("continues", [True, False])
def test_a_second_attempt(tmp_path: Path, *, continues: bool) -> None:
    """One that only finishes the first keeps what that had done; one that runs again starts with nothing."""
    second = Attempt("2" * 32, 2, 3000.0)
    with opened(tmp_path) as journal:
        begin(journal)
        journal.solved(SOLVED)
        journal.acknowledged(published(tmp_path, "a"))
    with opened(tmp_path) as journal:
        begin(journal, second, continues=continues)

    told = earlier(tmp_path)

    assert told is not None
    assert (told.attempt, told.digest) == (second, "digest 2")
    assert (told.solved, len(told.acknowledged)) == ((SOLVED, 1) if continues else (None, 0))


def test_what_went_while_the_solver_ran_comes_back(tmp_path: Path) -> None:
    """Removed behind: ours still, and what was written again beside it; deleted by the solver: only its key is known."""
    case = tmp_path / "case"
    again = replace(published(case, "a", size=2), key="out/a.2")
    unsaid = published(case, "c", size=2)
    unsaid = replace(unsaid, key="out/c.2", output=replace(unsaid.output, key_path="key/c.2"))
    with opened(tmp_path) as journal:
        begin(journal)
        for path in ("a", "b", "c"):
            journal.acknowledged(published(case, path))
        journal.removed_behind(published(case, "a"))
        journal.acknowledged(again)
        journal.acknowledged(unsaid)
        journal.vanished(published(case, "b"))
        journal.vanished(published(case, "never acknowledged"))

    told = earlier(tmp_path)

    assert told is not None
    assert told.behind == [published(case, "a"), published(case, "c")]
    assert told.acknowledged == {(str(case), item.output.path): item for item in (again, unsaid)}
    assert told.vanished == ["out/b"]


def test_torn_at_any_byte(tmp_path: Path) -> None:
    """A journal cut anywhere is read up to the cut, and what is written after it is whole."""
    with opened(tmp_path) as journal:
        begin(journal)
        journal.acknowledged(published(tmp_path, "a"))
    path = tmp_path / ".byos/journal.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n")

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with opened(tmp_path) as journal:
            before = journal.earlier()
            begin(journal, Attempt("2" * 32, 2, 0.0), continues=True)
        after = earlier(tmp_path)

        assert (before is not None) == (length >= first)
        assert after is not None
        assert (after.attempt.number, len(after.acknowledged)) == (2, int(length == len(whole) - 1))


def test_lines_of_another_version(tmp_path: Path) -> None:
    """What cannot be understood is passed over."""
    with opened(tmp_path) as journal:
        begin(journal)
        journal.solved(SOLVED)
    with open(tmp_path / ".byos/journal.jsonl", "ab") as file:
        file.write(b'[]\n7\n{"t":"solved","strange":1}\n{"t":"new"}\n{"t":"place","case":1}\n\xff\n{"t":"attempt"}\n')

    told = earlier(tmp_path)

    assert told is not None
    assert (told.attempt, told.solved) == (ATTEMPT, SOLVED)


def test_snapshots(tmp_path: Path) -> None:
    """A snapshot is whole or not there; one that was cut is as good as none."""
    state = Identity(1, 2, 3, 4)
    with opened(tmp_path) as journal:
        assert journal.load_snapshot("fetched") is None
        journal.save_snapshot("fetched", Snapshot.of([("a", state)]))
        journal.save_snapshot("fetched", Snapshot.of([("a", state), ("b", state)]))
        again = journal.load_snapshot("fetched")
        (tmp_path / ".byos/fetched.snapshot").write_bytes(b"123")
        cut = journal.load_snapshot("fetched")

    assert again is not None
    assert (len(again), again.holds("b", state), cut) == (2, True, None)


def test_a_full_disk(tmp_path: Path) -> None:
    """A line that decides must be written; one that only saves work may be lost, and the next ones are whole."""
    with opened(tmp_path) as journal:
        begin(journal)
        size = (tmp_path / ".byos/journal.jsonl").stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        try:
            journal.acknowledged(published(tmp_path, "lost"))
            with pytest.raises(NodeUnfit, match="journal"):
                journal.phase("solve")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        lost = journal.lost_lines
        journal.acknowledged(published(tmp_path, "kept"))

    told = earlier(tmp_path)

    assert lost == 1
    assert told is not None
    assert [path for _, path in told.acknowledged] == ["kept"]


def test_a_directory_in_use(tmp_path: Path) -> None:
    """A second run in the same directory is refused while the first one lives."""
    with opened(tmp_path), pytest.raises(UsageError, match="at work"):
        open_journal(tmp_path, run_id="second")

    assert earlier(tmp_path) is None


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_not_our_directory(tmp_path: Path, kind: str) -> None:
    """A link or a file in its place is refused, and nothing is written through it."""
    (tmp_path / "victim").mkdir()
    if kind == "link":
        (tmp_path / ".byos").symlink_to("victim")
    else:
        (tmp_path / ".byos").touch()

    with pytest.raises(UsageError, match="not our directory"):
        open_journal(tmp_path, run_id="mine")

    assert os.listdir(tmp_path / "victim") == []


@pytest.mark.parametrize("user", [65534] if os.geteuid() == 0 else [])
def test_another_users_directory(tmp_path: Path, user: int) -> None:
    """It is refused."""
    (tmp_path / ".byos").mkdir()
    os.chown(tmp_path / ".byos", user, -1)

    with pytest.raises(UsageError, match="another user"):
        open_journal(tmp_path, run_id="mine")


def test_an_open_directory_is_closed_to_others(tmp_path: Path) -> None:
    """Permissions that were too wide are narrowed."""
    (tmp_path / ".byos").mkdir(mode=0o755)
    earlier(tmp_path)

    assert stat.S_IMODE((tmp_path / ".byos").stat().st_mode) == 0o700


def test_no_run_directory(tmp_path: Path) -> None:
    """A run directory that cannot be written is the node's fault."""
    with pytest.raises(NodeUnfit, match="cannot write"):
        open_journal(tmp_path / "nothing", run_id="mine")


def test_a_place_that_an_attempt_goes_on_with_is_told_with_its_beginning(tmp_path: Path) -> None:
    """Killed between the two lines, it leaves what was there to the attempt after it; one that begins anew does not."""
    room = Room(tmp_path / "case", tmp_path / "scratch", None, tmp_path / "made")
    with opened(tmp_path) as journal:
        journal.begin(ATTEMPT, digest="d", output="s3://b/out/", continues=False, room=room)
    told = earlier(tmp_path)

    assert told is not None
    assert room == told.room
    with opened(tmp_path) as journal:
        begin(journal)
    again = earlier(tmp_path)
    assert again is not None
    assert again.room is None
