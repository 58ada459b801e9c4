"""File systems, as the kernel describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from byos_run.node.volumes import (
    Filling,
    Mount,
    in_memory,
    mounts_below,
    network_kind,
    parse_mounts,
    read_mounts,
    space,
)

TABLE = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:26 / /dev/shm rw,nosuid - tmpfs tmpfs rw
40 22 254:0 /data /run/case/bind\040mount rw - ext4 /dev/vda rw
41 22 0:30 / /run/case/\134x rw master:3 propagate_from:2 - nfs4 server:/x rw
42 22 0:31 / /run/case-2 rw - tmpfs tmpfs rw
a line that says nothing
"""


def test_mounts_of_a_table() -> None:
    """Optional fields may be absent or many; blanks and backslashes are escaped."""
    assert parse_mounts(TABLE) == (
        Mount("/", "ext4"),
        Mount("/dev/shm", "tmpfs"),
        Mount("/run/case/bind mount", "ext4"),
        Mount("/run/case/\\x", "nfs4"),
        Mount("/run/case-2", "tmpfs"),
    )


@pytest.mark.parametrize("root", ["/run/case", "/run/case/"])
def test_mounts_below(root: str) -> None:
    """Those inside, relative; neither the root itself nor a neighbour that begins alike."""
    assert mounts_below(root, parse_mounts(TABLE)) == {"bind mount", "\\x"}


def test_mounts_below_everything() -> None:
    """Below "/" is all but "/" itself."""
    assert "dev/shm" in mounts_below("/", parse_mounts(TABLE))
    assert "" not in mounts_below("/", parse_mounts(TABLE))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/dev/shm", True), ("/dev/shm/deeper", True), ("/dev/shmall", False), ("/nowhere", False)],
)
def test_in_memory(path: str, *, expected: bool) -> None:
    """The innermost mount decides."""
    assert in_memory(Path(path), parse_mounts(TABLE)) is expected


def test_the_last_mount_on_a_point_decides() -> None:
    """A mount hides the one below it."""
    mounts = (Mount("/", "ext4"), Mount("/x", "tmpfs"), Mount("/x", "xfs"))

    assert not in_memory(Path("/x/y"), mounts)
    assert in_memory(Path("/x/y"), mounts[:2])


def test_this_machine() -> None:
    """The table of this machine can be read, and its memory is known as such."""
    assert any(mount.point == "/" for mount in read_mounts())
    assert in_memory(Path("/dev/shm"), read_mounts())


def test_space(tmp_path: Path) -> None:
    """There is room in the directory of tests, in bytes and in inodes."""
    free = space(tmp_path)

    assert free.free_bytes > 0
    assert free.free_inodes > 0


@pytest.mark.parametrize(
    ("kind", "network"),
    [("nfs4", True), ("lustre", True), ("fuse.sshfs", True), ("ext4", False), ("overlay", False), ("fuse.fuse-overlayfs", False)],
)  # fmt: skip
def test_a_network_file_system_is_known_by_its_type(kind: str, *, network: bool) -> None:
    """Others may write there from other nodes."""
    mounts = (Mount("/", "ext4"), Mount("/share", kind))

    assert network_kind(Path("/share/run/case"), mounts) == (kind if network else "")


def filling(*free: int) -> Filling:
    """Looked at every ten seconds."""
    seen = Filling()
    for number, free_bytes in enumerate(free):
        seen.look(free_bytes, now_s=10.0 * number)
    return seen


def test_when_a_file_system_is_full() -> None:
    """As the free space fell over the looks of two minutes; a few looks say nothing, nor does space that grows."""
    assert filling(1000, 900, 800, 700).full_in_s == 70.0
    assert filling(1000, 1000, 990, 970).full_in_s == 970.0
    assert filling(10**9, *range(2000, 700, -100)).full_in_s == 80.0
    assert filling(1000, 900, 800).full_in_s is None
    assert filling(700, 800, 900, 1000).full_in_s is None
    assert filling(1000, 800, 600, 0).full_in_s == 0.0
