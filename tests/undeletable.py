"""Files that even their owner cannot delete, by the means that this machine grants."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10  # ioctl_iflags(2)
_NOBODY = 65534


def can_be_immutable() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        try:
            with immutable(Path(file.name)):
                return True
        except OSError:
            return False


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with mounted(Path(directory)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Raises OSError where the file system or our rights do not allow it."""
    _set_immutable(path, on=True)
    try:
        yield
    finally:
        _set_immutable(path, on=False)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user to whom root's files are closed; root alone can."""
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def mounted(point: Path) -> Iterator[None]:
    """An empty file system in memory on *point*."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


@contextmanager
def bound(source: Path, point: Path) -> Iterator[None]:
    """*source* seen at *point* too: the same device, and yet a mount."""
    subprocess.run(["mount", "--bind", str(source), str(point)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


def _set_immutable(path: Path, *, on: bool) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = bytearray(8)
        fcntl.ioctl(fd, _GET_FLAGS, flags)
        value = int.from_bytes(flags, "little")
        value = value | _IMMUTABLE if on else value & ~_IMMUTABLE
        fcntl.ioctl(fd, _SET_FLAGS, value.to_bytes(8, "little"))
    finally:
        os.close(fd)
