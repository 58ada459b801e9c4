"""What a killed attempt left of an archive: what counts as proved, and that the rest alone is unpacked."""

from __future__ import annotations

import io
import os
import random
import zipfile
from contextlib import contextmanager

import pytest
from tests.archives.room import FileSource, tree, unpack

from byos_run.archive import unpack as room
from byos_run.archive.plan import Limits
from byos_run.archive.proof import Wanted, proven, wanted_of
from byos_run.crc import crc32
from byos_run.errors import Stopped
from byos_run.model import S3Url
from byos_run.node import stage as stages
from byos_run.node.pool import Count, Pool
from byos_run.node.stop import Stop
from byos_run.steps import kept

NOISE = random.Random(7)


def zipped(truth):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for number, (path, content) in enumerate(truth.items()):
            info = zipfile.ZipInfo(path)
            info.external_attr = 0o100644 << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    return target.getvalue()


def prove(directory, wanted, *, stop=None):
    """Paths that are proved below *directory*."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Pool(name="workers", width=2) as workers:
            return {item.path for item, _ in proven(wanted, root=root, workers=workers, stop=stop or Stop())}
    finally:
        os.close(root)


def as_wanted(truth, **more):
    return [Wanted(0, i, path, len(content), crc32(content), **more) for i, (path, content) in enumerate(truth.items())]


def lay(directory, truth):
    for path, content in truth.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)


def test_files_that_are_right_are_proved_and_get_their_time(tmp_path):
    """Small and large ones, empty ones, in any directory; names that are not UTF-8 too."""
    truth = {"a": b"", "d/b": b"x" * 10, "d/e/f": NOISE.randbytes(3_500_000), "n\udcff": b"odd", "d/z": b"y"}
    lay(tmp_path, truth)

    assert set(truth) == prove(tmp_path, as_wanted(truth, mtime_s=1_000_000_000))
    assert {1_000_000_000} == {os.stat(tmp_path / path).st_mtime for path in truth}


@pytest.mark.parametrize(
    "harm", ["byte", "short", "long", "link", "hard link", "fifo", "directory", "directory link", "mode", "set-id", "gone"]
)  # fmt: skip
def test_what_is_not_as_it_must_be_is_not_proved(tmp_path, harm):
    """Nothing is followed, nothing is waited for, and the others are proved all the same."""
    truth = {"good": b"good", "d/bad": b"0123456789"}
    outside = tmp_path / "outside"
    lay(tmp_path / "stage", truth)
    lay(outside, {"bad": truth["d/bad"]})
    bad = tmp_path / "stage/d/bad"
    {
        "byte": lambda: bad.write_bytes(b"0123456788"),
        "short": lambda: bad.write_bytes(b"012345678"),
        "long": lambda: bad.write_bytes(b"01234567890"),
        "link": lambda: (bad.unlink(), bad.symlink_to(outside / "bad")),
        "hard link": lambda: os.link(bad, outside / "other"),
        "fifo": lambda: (bad.unlink(), os.mkfifo(bad)),
        "directory": lambda: (bad.unlink(), bad.mkdir()),
        "directory link": lambda: (bad.unlink(), bad.parent.rmdir(), bad.parent.symlink_to(outside)),
        "mode": lambda: bad.chmod(0o646),
        "set-id": lambda: bad.chmod(0o4644),
        "gone": bad.unlink,
    }[harm]()

    assert {"good"} == prove(tmp_path / "stage", as_wanted(truth, mtime_s=5))
    assert 5 != (outside / "bad").stat().st_mtime


@pytest.mark.parametrize(("mode", "is_right"), [(0o755, True), (0o700, True), (0o750, True), (0o655, False)])
def test_the_umask_of_then_counts(tmp_path, mode, is_right):
    """It may have taken bits of group and others; the owner's must be there."""
    lay(tmp_path, {"run.sh": b"x"})
    (tmp_path / "run.sh").chmod(mode)

    assert is_right == bool(prove(tmp_path, as_wanted({"run.sh": b"x"}, mode=0o100755)))


def test_a_stop_is_heard(tmp_path):
    """Before the next file, and within a large one."""
    truth = {"a": b"x" * 100}
    lay(tmp_path, truth)
    stop = Stop()
    stop.ask("a test")

    with pytest.raises(Stopped):
        prove(tmp_path, as_wanted(truth), stop=stop)


class Noting(FileSource):
    """Remembers what was read."""

    def __init__(self, content):
        super().__init__(content)
        self.ranges = []

    def read(self, start, length):
        self.ranges.append((start, start + length))
        return super().read(start, length)


@contextmanager
def entered(case):
    stage = stages.enter(case, is_alone=False)
    try:
        yield stage
    finally:
        for fd in (stage.fd, stage._notes_fd):  # as a killed process lets go
            if fd >= 0:
                os.close(fd)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_only_what_is_missing_is_unpacked(tmp_path, share):
    """Whatever was there, the tree is whole, and bytes of what was there are read over only where a gap is tiny."""
    noise = random.Random(share)
    truth = {f"d{i % 5}/{i}": noise.randbytes(noise.choice((0, 40, 3000, 60_000, 1_200_000))) for i in range(60)}
    content = zipped(truth)
    there = {path for path in truth if noise.random() < share}
    with entered(tmp_path / "case") as stage:
        lay(stage.path, {path: truth[path] for path in there})
    with entered(tmp_path / "case") as stage:
        source = Noting(content)
        plan = room.plan_of(source, limits=Limits())
        with Pool(name="workers", width=2) as workers:
            shares = kept.keep(stage, [(plan, "e", "")], workers=workers, tally=Count(), stop=Stop())
        source.ranges.clear()
        flags = shares[plan.url].flags if shares else b""
        with Pool(name="r", width=4) as readers, Pool(name="w", width=2) as workers:
            room.unpack_into(
                plan, source, into=stage.fd, readers=readers, workers=workers, tally=Count(), stop=Stop(),
                limits=Limits(), kept=flags,
            )  # fmt: skip

        assert sum(flags) == len(there)
        assert truth == {os.fsdecode(path): body for path, body in full(stage.path).items()}
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            infos = file.infolist()
            ends = [*(info.header_offset for info in infos[1:]), file.start_dir]
        for info, end in zip(infos, ends):
            touched = any(first < end and last > info.header_offset for first, last in source.ranges)
            assert touched or info.filename in there
            assert not touched or info.filename not in there or end - info.header_offset <= 4096


def full(directory):
    return {
        os.fsencode(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_one_file_never_stands_for_two_names(tmp_path):
    """Where the directory of a stage does not hold just what was proved, all of it is fetched anew."""
    truth = {"a": b"same", "b": b"same"}
    with entered(tmp_path / "case") as stage:
        lay(stage.path, truth)
    with entered(tmp_path / "case") as stage:
        plan = room.plan_of(FileSource(zipped(truth)), limits=Limits())

        class Vanishing(Count):
            def add(self, **counts):
                (stage.path / "b").unlink(missing_ok=True)

        with Pool(name="workers", width=1) as workers:
            assert {} == kept.keep(stage, [(plan, "e", "")], workers=workers, tally=Vanishing(), stop=Stop())
        assert {} == tree(stage.path)


def test_links_and_directories_are_made_again(tmp_path):
    """They prove nothing, and cost next to nothing."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("d/", b"")
        file.writestr("d/a", b"content")
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        file.writestr(info, b"d/a")
    plan = room.plan_of(FileSource(target.getvalue()), limits=Limits())
    assert plan.zipped is not None

    assert ["d/a"] == [item.path for item in wanted_of(plan.zipped, owner=0)]
    unpack(FileSource(target.getvalue()), tmp_path / "fresh")
    assert {b"d": "/", b"d/a": b"content", b"link": "-> d/a"} == tree(tmp_path / "fresh")


def test_a_plain_file_counts_only_with_its_objects_etag_and_version(tmp_path):
    """Noted when it was whole; a line of nonsense is passed over."""
    url = [S3Url("bucket", f"in/{name}") for name in "abcd"]
    with entered(tmp_path / "case") as stage:
        lay(stage.path, dict.fromkeys("abcd", b"x"))
        for number, item in enumerate(url):
            kept.note(stage, url=item, etag=f"e{number}", version_id="v", size_bytes=1, crc=crc32(b"x"))
        stage.note({"of": "another version"})
        stage.note([1, 2])
    plans = [room.Plan(item, "file", 1, 0, 1, exact=True, path=item.name) for item in url]
    asked = list(zip(plans, ("e0", "e1", "other", ""), ("", "v", "v", "v")))
    asked[1] = (plans[1], "e1", "w")
    with entered(tmp_path / "case") as stage, Pool(name="workers", width=1) as workers:
        shares = kept.keep(stage, asked, workers=workers, tally=Count(), stop=Stop())

        assert {url[0]: "v"} == {item: share.version_id for item, share in shares.items()}
        assert {b"a": b"x"} == tree(stage.path)
