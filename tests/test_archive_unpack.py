"""What an input becomes in the stage: content, modes, times, limits, several inputs, large members, being stopped."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import stat
import struct
import tarfile
import threading
import zipfile

import pytest
from tests.archives import room, tars, zips
from tests.archives.room import FileSource

from byos_run.archive.kinds import kind_of
from byos_run.archive.plan import Limits, merge_check, plan_file, safe_path
from byos_run.archive.unpack import plan_of
from byos_run.archive.unzip import Ahead
from byos_run.errors import BadInput, InputChanged, NodeUnfit, Stopped
from byos_run.model import FetchSettings, S3Url
from byos_run.node.pool import Count
from byos_run.node.stop import Stop


def planned(content, name="case.zip", **limits):
    return plan_of(FileSource(content, name=name), limits=Limits(**limits))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.zip", "zip"),
        ("A.ZIP", "zip"),
        ("x.tar", "tar"),
        ("x.tgz", "tar.gz"),
        ("x.Tar.Gz", "tar.gz"),
        ("x.tar.zst", "tar.zst"),
        ("x.tar.bz2", "tar.bz2"),
        ("x.tar.xz", "tar.xz"),
        ("x.gz", None),
        ("zip", None),
        ("x.zip.part", None),
        ("x.zst", None),
        ("", None),
    ],
)
def test_the_suffix_decides(name, kind):
    """An archive is what the contract lists, in any case; a lone .gz is a file."""
    assert kind == kind_of(name)


def test_the_plan_tells_what_will_be_written():
    """Files, directories (named or needed) and bytes are known before the first byte is written."""
    folder = zips.member(b"empty/", b"", method=0, mode=zips.FOLDER)
    content = zips.build([zips.member(b"a/b/x"), zips.link(b"l", b"a"), folder])

    plan = planned(content)

    assert (2, 3, len(zips.TEXT) + 1, True) == (plan.files, plan.directories, plan.total_bytes, plan.exact)
    assert ["a/b/x", "l"] == list(plan.paths())


def test_modes_and_times(tmp_path):
    """Executable stays so, no file is unreadable to its owner, no set-id bit comes through, times are the archive's."""
    stamp = zips.field(0x5455, struct.pack("<Bi", 1, 1_600_000_000))
    content = zips.build(
        [
            zips.member(b"run.sh", mode=0o100755, extra=stamp),
            zips.member(b"none", mode=0o100000),
            zips.member(b"suid", mode=0o107777),
            zips.member(b"fat", host=zips.FAT),
            zips.member(b"d/x"),
        ]
    )
    before = os.umask(0o022)
    try:
        room.unpack(FileSource(content), tmp_path / "stage")
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "stage").rglob("*")}
    assert {"run.sh": 0o755, "none": 0o600, "suid": 0o755, "fat": 0o644, "d": 0o755, "x": 0o644} == modes
    assert (tmp_path / "stage" / "run.sh").stat().st_mtime == 1_600_000_000


def test_large_members_are_whole(tmp_path):
    """Members of many parts, packed and stored, between small ones, on any number of workers and connections."""
    chance = random.Random(4)
    text = b"".join(b"%d %.8f\n" % (i, chance.random()) for i in range(300_000)) * 3
    noise = chance.randbytes(13 << 20)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for i in range(40):
            made.writestr(f"small/{i}", b"%d" % i * i, zipfile.ZIP_DEFLATED)
        for name, content, method in (
            ("text", text, 8),
            ("noise", noise, 0),
            ("packed-noise", noise, 8),
            ("zeros", bytes(30 << 20), 8),
        ):
            made.writestr(name, content, method)
    expected = {b"text": text, b"noise": noise, b"packed-noise": noise, b"zeros": bytes(30 << 20)}
    for width, connections in ((1, 1), (2, 8), (5, 3), (16, 4)):
        stage, count = tmp_path / f"{width}", Count()
        room.unpack(FileSource(out.getvalue()), stage, width=width, connections=connections, tally=count)
        tree = room.tree(stage)
        assert {name: hashlib.sha256(content).hexdigest() for name, content in expected.items()} == {
            name: tree[name] for name in expected
        }
        assert tree[b"small/39"] == b"39" * 39
        assert (44, sum(i * len(str(i)) for i in range(40)) + sum(map(len, expected.values()))) == (
            count.files,
            count.bytes_out,
        )


@pytest.mark.parametrize("method", [0, 8])
def test_a_wrong_crc_in_a_large_member(method, tmp_path):
    """Also where parts are written by several workers a wrong byte is noticed, and the member named."""
    content = random.Random(1).randbytes(9 << 20)
    made = zips.build([zips.member(b"big.h5", content, method=method, central={"crc": 5}, local={"crc": 5})])

    verdict, text = room.verdict(made, tmp_path / "stage")

    assert verdict == "refused"
    assert "'big.h5': its CRC-32 is wrong" in text


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (9 << 20) + 7])
def test_a_plain_file(size, tmp_path):
    """An object that is no archive becomes a file, by parallel reads written at their places."""
    content = random.Random(size).randbytes(size)
    source = FileSource(content, name="mesh.gz")

    plan = plan_file(source, path="in/mesh.gz")
    done = room.unpack(source, tmp_path / "stage", plan=plan)

    assert (1, size) == (done.files, done.bytes_out)
    assert content == (tmp_path / "stage" / "in" / "mesh.gz").read_bytes()


def test_what_a_run_published_has_a_safe_path():
    """Names that a file system here may hold: a colon, more levels than an archive may have; not what leads out."""
    for path in ("U:max/0", "p:mean.dat", "a\\b", "d/" * 400 + "x", "\udcff"):
        assert safe_path(path, of="it", written_here=True) == path
    for path in ("../x", "/x", "a/../../x", "", "a\0b", "\ud800", "C:/x", "C:\\x", "C:", "..\\x"):
        with pytest.raises(BadInput):
            safe_path(path, of="it", written_here=True)


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "C:/x", "a\0b", "\udc80/../x", "\ud800"])
def test_keys_pass_the_same_check(path):
    """A key of the bucket is as little trusted as a member."""
    with pytest.raises(BadInput, match=r"s3://bucket/in/mesh"):
        plan_file(FileSource(b"x", name="mesh"), path=path)


def test_inputs_that_write_one_path_are_refused():
    """Both archives are named, whichever of them has the file and whichever the directory."""
    first = planned(zips.build([zips.member(b"a/x")]), "first.zip")
    for name in (b"a/x", b"a", b"a/x/y"):
        second = planned(zips.build([zips.member(name)]), "second.zip")
        for plans in ((first, second), (second, first)):
            with pytest.raises(BadInput, match=r"first\.zip.*second\.zip|second\.zip.*first\.zip"):
                merge_check(plans)
    folder = planned(zips.build([zips.member(b"a/x/", b"", method=0, mode=zips.FOLDER)]), "folder.zip")
    with pytest.raises(BadInput, match=r"folder\.zip"):
        merge_check((folder, first))
    merge_check((first, planned(zips.build([zips.member(b"a/y")]), "third.zip")))


def test_inputs_share_directories(tmp_path):
    """Two archives and a file unpack into one stage; a tar that writes what is there is refused, both named."""
    one = FileSource(zips.build([zips.member(b"d/a"), zips.link(b"d/l", b"a")]), name="one.zip")
    two = FileSource(tars.tar(tars.folder(b"d/"), tars.entry(b"d/b")), name="two.tar")
    three = FileSource(tars.tar(tars.entry(b"d/a")), name="three.tar")
    below = FileSource(tars.tar(tars.entry(b"d/l/x")), name="below.tar")
    limits = Limits()
    plans = [plan_of(source, limits=limits) for source in (one, two, three, below)]
    merge_check(plans)

    room.unpack(one, tmp_path / "stage", plan=plans[0], beside=plans)
    room.unpack(two, tmp_path / "stage", plan=plans[1], beside=plans)

    assert {b"d": "/", b"d/a": zips.TEXT, b"d/b": zips.TEXT, b"d/l": "-> a"} == room.tree(tmp_path / "stage")
    with pytest.raises(BadInput, match=r"one\.zip and .*three\.tar both write 'd/a'"):
        room.unpack(three, tmp_path / "stage", plan=plans[2], beside=plans)
    with pytest.raises(BadInput, match=r"below\.tar both write"):
        room.unpack(below, tmp_path / "stage", plan=plans[3], beside=plans)


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"max_bytes": 1000}, "fetch.max_bytes"), ({"max_members": 1}, "fetch.max_members")],
    ids=["bytes", "members"],
)
@pytest.mark.parametrize("name", ["case.zip", "case.tar", "case.tar.gz"])
def test_limits(limits, says, name, tmp_path):
    """What the job file allows is held, and the refusal says which key to raise."""
    tar = tars.tar(tars.entry(b"a"), tars.entry(b"b"))
    content = {
        "case.zip": zips.build([zips.member(b"a"), zips.member(b"b")]),
        "case.tar": tar,
        "case.tar.gz": gzip.compress(tar),
    }[name]

    verdict, text = room.verdict(content, tmp_path / "stage", name=name, limits=Limits(**limits))

    assert verdict == "refused"
    assert says in text


def test_ratio():
    """A small archive that unpacks to much more than any real one is refused by its directory alone."""
    lie = {"unpacked": 3 << 30, "packed": 900_000}
    content = zips.build([zips.member(b"a", method=12, data=bytes(900_000), central=lie)])
    with pytest.raises(BadInput, match="times its"):
        planned(content)
    assert planned(content, max_ratio=1e6).total_bytes == 3 << 30


def test_a_ratio_that_is_asked_for_binds_small_archives_too():
    """A million zeros are no bomb, but more than ten times their zip."""
    zeros = {"of": S3Url("b", "k.zip"), "members": 1, "unpacked_bytes": 1_000_000, "packed_bytes": 1_000}
    Limits.of(FetchSettings()).check(**zeros)
    with pytest.raises(BadInput, match="more than 10 times its"):
        Limits.of(FetchSettings(max_ratio=10.0)).check(**zeros)


def test_a_tar_stops_where_the_disk_would_be_full(tmp_path):
    """A tar tells nothing beforehand: it ends before the entry that would not fit, and the node is at fault."""
    source = FileSource(tars.tar(tars.entry(b"a"), tars.entry(b"b")), name="case.tar")
    with pytest.raises(NodeUnfit, match="free"):
        room.unpack(source, tmp_path / "stage", limits=Limits(free_bytes=1000))


def test_a_full_disk_is_the_nodes_fault(tmp_path, monkeypatch):
    """No room while writing is 71 with the file named, not a bad input."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("byos_run.archive.writer.os.write", full)
    with pytest.raises(NodeUnfit, match=r"'a\.dat'.*No space left"):
        room.unpack(FileSource(zips.build([zips.member()])), tmp_path / "stage")


@pytest.mark.parametrize(
    "error", [InputChanged("it was replaced"), Stopped("stopped by SIGTERM")], ids=["changed", "stopped"]
)
@pytest.mark.parametrize("name", ["case.zip", "case.tar"])
def test_an_error_of_the_source_comes_out_as_it_is(error, name, tmp_path):
    """What the store's reader raises in the middle reaches the caller, from every worker, without a hang."""
    noise = random.Random(2).randbytes(40 << 20)
    content = (
        zips.build([zips.member(b"x", noise, method=0)]) if name == "case.zip" else tars.tar(tars.entry(b"x", noise))
    )

    class Breaks(FileSource):
        def read(self, start, length):
            if 12 << 20 < start < (38 << 20):
                raise error
            return super().read(start, length)

    with pytest.raises(type(error)):
        room.unpack(Breaks(content, name=name), tmp_path / "stage")


def test_a_wish_to_stop_ends_it(tmp_path):
    """Asked to stop in the middle, it ends with that reason."""
    stop, begun = Stop(), threading.Event()
    content = zips.build([zips.member(b"x", random.Random(2).randbytes(60 << 20), method=0)])

    class Slow(FileSource):
        def read(self, start, length):
            if start > 8 << 20:
                begun.set()
                stop.ask_once("SIGTERM")
            return super().read(start, length)

    with pytest.raises(Stopped, match="SIGTERM"):
        room.unpack(Slow(content), tmp_path / "stage", stop=stop)
    assert begun.is_set()


def test_small_members_come_in_few_reads(tmp_path):
    """Two thousand small members are not two thousand requests, and gaps between members are not fetched."""
    members = [zips.member(b"%d" % i, os.urandom(900), method=0) for i in range(2000)]
    members[1000]["gap"] = bytes(5 << 20)
    source = FileSource(zips.build(members))

    room.unpack(source, tmp_path / "stage")

    assert source.reads < 25
    assert source.bytes_read < 6 << 20


@pytest.mark.parametrize("width", [1, 2, 3, 4, 8, 16, 64])
def test_bytes_in_flight_are_bounded(width):
    """However many cores there are, the parts in flight, the one in use among them, stay within 64 MiB."""
    ahead = Ahead.of(width)

    assert ahead.workers * (ahead.parts + 1) * ahead.part_bytes <= 64 << 20
    assert ahead.part_bytes >= 1 << 20


def test_a_crowd_of_members_is_planned_in_little_memory():
    """65,535 members need no zip64, 65,536 do, and the Finder's 16-bit count of 65,537 is understood."""
    assert planned(zips.crowd(65535)).files == 65535
    assert planned(zips.crowd(65536, wide={}, count=0xFFFF)).files == 65536
    assert planned(zips.crowd(65537)).files == 65537


def test_hard_links_are_one_file_or_a_copy(tmp_path):
    """A hard link has the content of the file that it names."""
    content = tars.tar(tars.entry(b"x"), tars.link(b"d/y", b"x", b"1"))

    room.unpack(FileSource(content, name="case.tar"), tmp_path / "stage")

    assert zips.TEXT == (tmp_path / "stage" / "d" / "y").read_bytes()


def test_a_large_file_in_a_tar(tmp_path):
    """A body of many parts streams through, under every codec."""
    noise = random.Random(3).randbytes(7 << 20)
    for suffix in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:" + suffix[4:]) as made:
            member = tarfile.TarInfo("big.h5")
            member.size, member.mtime = len(noise), 1_600_000_000
            made.addfile(member, io.BytesIO(noise))
        stage = tmp_path / suffix
        room.unpack(FileSource(out.getvalue(), name=f"case.{suffix}"), stage)
        assert noise == (stage / "big.h5").read_bytes()
        assert (stage / "big.h5").stat().st_mtime == 1_600_000_000
