"""Who has a file open for writing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.undeletable import as_nobody

from byos_run.node.holders import Held, files_open_for_writing, held_by


def test_a_writer_elsewhere_is_seen(tmp_path: Path) -> None:
    """Files that another process writes, appends to or updates are told with its id; those that it reads are not."""
    for name in ("written", "appended", "updated", "read", "idle"):
        (tmp_path / name).touch()
    script = "exec 3>written 4>>appended 5<>updated 6<read; echo ready; read line"
    with subprocess.Popen(["sh", "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        held = files_open_for_writing(except_processes={os.getpid()})
        without = files_open_for_writing(except_processes={os.getpid(), writer.pid})
        writer.communicate(b"\n")

    def among(files: dict[tuple[int, int], int]) -> dict[str, int]:
        found = {path.name: (path.stat().st_dev, path.stat().st_ino) for path in tmp_path.iterdir()}
        return {name: files[key] for name, key in found.items() if key in files}

    assert among(held) == dict.fromkeys(("written", "appended", "updated"), writer.pid)
    assert among(without) == {}


def test_what_processes_have_open_or_mapped(tmp_path: Path) -> None:
    """Written and read apart; a shared writable mapping writes, though its file is closed; one that has ended holds nothing."""
    for name in ("written", "read", "mapped", "idle"):
        (tmp_path / name).write_text("x")
    script = (
        "import mmap, sys; w = open('written', 'a'); r = open('read'); f = open('mapped', 'r+b'); m = mmap.mmap(f.fileno(), 1);"
        " f.close(); print('ready', flush=True); sys.stdin.read(1)"
    )
    command = [sys.executable, "-I", "-S", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        held = held_by([holder.pid])
        holder.communicate(b"x")
    inodes = {name: (tmp_path / name).stat().st_ino for name in ("written", "read", "mapped", "idle")}

    assert {name for name, inode in inodes.items() if inode in held.written} == {"written", "mapped"}
    assert inodes["read"] in held.read
    assert inodes["idle"] not in held.written | held.read
    assert held.unreadable == 0
    assert held_by([holder.pid]) == Held()


@pytest.mark.parametrize("user", [65534] if os.geteuid() == 0 else [])
def test_a_process_that_proc_does_not_tell_of(user: int) -> None:
    """It is named, so that a longer quiet time can be taken and said; one that has ended, though nobody reaped it, is not."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as holder:
        with as_nobody():
            hidden = held_by([holder.pid])
        holder.kill()
        os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        with as_nobody():
            zombie = held_by([holder.pid])

    assert (hidden.unreadable, zombie.unreadable) == (holder.pid, 0)
