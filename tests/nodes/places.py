"""The nodes of the matrix: this machine's Pythons, and other systems in directories of the dev cache.

Other systems are made by debootstrap (root, and Debian's mirror or $DEBIAN_MIRROR). aarch64 is a tree of unpacked packages whose
programs run under qemu-user, registered with the kernel for a namespace of our own. What cannot be had is named with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.kit import cache

MADE_S = 600
OWN_FORMATS = ["unshare", "-Urm", "mount", "-t", "binfmt_misc", "none", "/proc/sys/fs/binfmt_misc"]
SYSTEMS = {"sid": "amd64", "bullseye": "amd64", "bookworm": "arm64"}


class Node(NamedTuple):
    """A Python to start with."""

    name: str
    python: str
    """Its path, inside `root` if there is one."""
    version: tuple[int, int]
    root: Path | None = None
    """The top of another system, which is the root directory of what runs there."""
    is_emulated: bool = False

    def fits(self) -> bool:
        """Whether the file is for it."""
        return (3, 9) <= self.version <= (3, 14)


def nodes() -> tuple[list[Node], list[tuple[str, str]]]:
    """What can be started here, oldest Python first, and (name, why not) of the rest."""
    found, absent = pyenv(), []
    if os.path.exists("/usr/bin/python3"):
        found.append(described("Debian's own", "/usr/bin/python3"))
    if not found:
        absent.append(("CPython 2.7 to 3.13", "no pyenv and no /usr/bin/python3"))
    for suite, machine in SYSTEMS.items():
        why_not = made(suite, machine)
        if why_not:
            absent.append((f"{suite}, {machine}", why_not))
        else:
            found.append(system(suite, machine))
    return found, absent


def pyenv() -> list[Node]:
    """Every CPython of pyenv."""
    home = Path(cache.surroundings().get("HOME", "/nonexistent"))
    paths = sorted(
        home.glob(".pyenv/versions/*/bin/python[23].*[0-9]"), key=lambda path: numbers(path.parent.parent.name)
    )
    return [Node(path.parent.parent.name, str(path), numbers(path.parent.parent.name)) for path in paths]


def numbers(text: str) -> tuple[int, int]:
    """Major and minor of a version."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def described(name: str, python: str) -> Node:
    """A node of this machine by what its Python says of itself."""
    version = subprocess.run(
        [python, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True
    )
    return Node(f"{name} {version.stdout.strip()}", python, numbers(version.stdout))


def top(suite: str, machine: str) -> Path:
    """Where a system's tree is kept."""
    return cache.root() / "nodes" / f"{suite}-{machine}"


def system(suite: str, machine: str) -> Node:
    """A system whose tree is there."""
    root = top(suite, machine)
    (real,) = {path.resolve().name for path in root.glob("usr/bin/python3")}
    library = next((path.name for path in sorted(root.glob("lib/*/libc-*.so")) if "-2." in path.name), "")
    glibc = f", glibc {library[5:-3]}" if library else ""
    name = f"{suite}'s {real[6:]}{glibc}{', aarch64' if machine == 'arm64' else ''}"
    return Node(name, f"/usr/bin/{real}", numbers(real[6:]), root, machine == "arm64")


def made(suite: str, machine: str) -> str:
    """Makes the system's tree unless it is there; "" or why it cannot be had."""
    root = top(suite, machine)
    if machine == "arm64" and not shutil.which("qemu-aarch64-static"):
        return "no qemu-aarch64-static here"
    if machine == "arm64" and subprocess.run(OWN_FORMATS, capture_output=True, check=False).returncode:
        return "no binfmt_misc for a namespace of one's own here (Linux 6.7 and newer)"
    if root.is_dir():
        return ""
    if os.geteuid() != 0:
        return "debootstrap needs root"
    if not shutil.which("debootstrap"):
        return "no debootstrap here"
    new = root.with_name(f"{root.name}.{os.getpid()}.new")
    new.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", "--include=python3", f"--arch={machine}"]
    command += ["--foreign"] if machine == "arm64" else []
    command += [suite, str(new), *filter(None, [os.environ.get("DEBIAN_MIRROR", "")])]
    try:
        subprocess.run(command, capture_output=True, timeout=MADE_S, check=True)
        if machine == "arm64":
            for package in sorted(new.glob("var/cache/apt/archives/*.deb")):
                subprocess.run(["dpkg-deb", "-x", str(package), str(new)], check=True)
            new.joinpath("mnt").mkdir(exist_ok=True)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(new, ignore_errors=True)
        return f"debootstrap: {str(error).splitlines()[0][-60:]}"
    new.rename(root)
    return ""
