"""Who has a file open for writing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from byos_run.node.holders import files_open_for_writing


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
