"""Which interpreters the file is for, and which of them this builder has to compile byte code with."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")

ASK = (
    "import sys;v=sys.version_info;"
    "print(*v[:3],v[3],sys.implementation.name,sys.abiflags or '-',sys.executable,sep='|')"
)


def tag(python: str) -> str:
    return "cp" + python.replace(".", "")


def installed() -> dict[str, tuple[str, str]]:
    """Minor version -> (path, full version) of the released CPythons that can be had here."""
    found = {}
    for python in PYTHONS:
        kept = glob.glob(os.path.expanduser("~/.pyenv/versions/%s.*/bin/python%s" % (python, python)))
        kept.sort(key=lambda path: [int(part) for part in path.split("/")[-3].split(".") if part.isdigit()])
        names = [*reversed(kept), shutil.which("python" + python) or "", "/usr/bin/python" + python, sys.executable]
        for name in names:
            version, path = asked(name)
            if version.startswith(python + "."):
                found[python] = (path, version)
                break
    return found


def asked(path: str) -> tuple[str, str]:
    """(full version, real path) of a released CPython with the GIL at ``path``; ("", "") for anything else."""
    if not os.path.isfile(path):
        return "", ""
    try:
        answer = subprocess.run(
            [path, "-ESsc", ASK], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        major, minor, micro, level, name, flags, real = answer.split("|")
    except (OSError, ValueError, subprocess.SubprocessError):
        return "", ""
    if (level, name, flags) != ("final", "cpython", "-"):
        return "", ""
    return ".".join((major, minor, micro)), real or path
