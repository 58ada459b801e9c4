"""Which control group holds this process: its processor quota, and how often the kernel killed for memory in it.

Version 1 (one hierarchy per controller) and version 2, also mixed. Inside a container the path that
``/proc/self/cgroup`` names may lie outside what is mounted; then the mount's own top speaks for us.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def quota_cores(*, proc: Path = Path("/proc/self"), mount: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors that the quotas from our group up to the top leave us, the least of them; None: no quota."""
    quotas: list[float] = []
    for directory in _directories("cpu", proc=proc, mount=mount):
        words = _text(directory / "cpu.max").split()
        if not words:
            words = [_text(directory / "cpu.cfs_quota_us").strip(), _text(directory / "cpu.cfs_period_us").strip()]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def oom_kills(*, proc: Path = Path("/proc/self"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Processes that the kernel has killed for want of memory, so far: in our group, else on the node. None: not told."""
    for directory in _directories("memory", proc=proc, mount=mount):
        for name in ("memory.events", "memory.oom_control"):
            count = _field(_text(directory / name), "oom_kill")
            if count is not None:
                return count
    return _field(_text(Path("/proc/vmstat")), "oom_kill")


def _directories(controller: str, *, proc: Path, mount: Path) -> Iterator[Path]:
    """Our group's directory for *controller* and those above it, the nearest first."""
    for line in _text(proc / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            tops = [mount / controllers, mount / controller]
        else:
            continue
        top = next((each for each in tops if each.is_dir()), None)
        if top is None:
            continue
        below = Path(os.path.normpath(path.lstrip("/") or "."))
        while below.parts:
            if (top / below).is_dir():
                yield top / below
            below = below.parent if below.parent != below else Path()
        yield top


def _field(text: str, name: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
