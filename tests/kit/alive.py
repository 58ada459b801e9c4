"""Who lives of a run, seen from outside: by TMPDIR in the environment, by the command line, or by the directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def processes(place: Path, *, temporary: Path) -> list[tuple[int, str]]:
    """Pid and name of every living process of the runs below `place` whose TMPDIR is `temporary`; our shim is called "shim"."""
    mark, below = f"TMPDIR={temporary}\0".encode(), f"{place}/"
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes()
            ours = mark in Path(f"/proc/{name}/environ").read_bytes() or below.encode() in words
            if (ours or os.readlink(f"/proc/{name}/cwd").startswith(below)) and not is_dead(int(name)):
                is_shim = b"/shim.py" in words
                found.append((int(name), "shim" if is_shim else Path(f"/proc/{name}/comm").read_text().strip()))
    return found


def is_dead(pid: int) -> bool:
    """Gone, or waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
