"""Does the memory of a stage-in follow its size? Archives of zeros, so large that no disk need hold what they become.

curve   zips of 1, 10 and 50 members of 1 GiB, one member of 20 GiB, 50 GiB as tar.gz; 50,000 and 500,000 small members
        (not in the default race: minutes a round; needs user namespaces)

They are unpacked into a file system in memory, in mounts of the command's own; what is written is taken out of it again
behind the writer's back (holes punched), so that 50 GiB pass through a few hundred MiB. The small members stay.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tarfile
import zlib
from typing import TYPE_CHECKING

from tests.archives import zips
from tests.bench import contenders, measure
from tests.bench.contenders import OURS
from tests.bench.scenarios import Scenario, _fresh

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.contenders import Bench
    from tests.bench.measure import Cost

GIBI = 1 << 30
_PIECE = 64 << 20
_ONES = 0xFFFFFFFF
_ERASER = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
while True:
    for top, _, names in os.walk(sys.argv[1]):
        for name in names:
            try:
                file = os.open(os.path.join(top, name), os.O_WRONLY)
            except OSError:
                continue
            libc.fallocate(file, 3, ctypes.c_long(0), ctypes.c_long(os.fstat(file).st_size))
            os.close(file)
    time.sleep(0.05)
"""
_SHELL = """
mount -t tmpfs -o size=200g,nr_inodes=2m none room
{eraser}
cd room; {fetch}
"""


def _packed_zeros(size: int) -> tuple[bytes, int]:
    """A deflate stream of *size* zeros, a multiple of 64 MiB, and their CRC-32."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    crc, zeros = 0, bytes(_PIECE)
    for _ in range(size // _PIECE):
        crc = zlib.crc32(zeros, crc)
    return piece * (size // _PIECE) + b"\3\0", crc


def _zip_of_zeros(place: Path, *, members: int, size: int) -> None:
    data, crc = _packed_zeros(size)
    wide = size > _ONES
    told = {"crc": crc, "packed": len(data), "unpacked": _ONES if wide else size}
    extra = zips.field(1, size.to_bytes(8, "little")) if wide else b""
    local = {**told, "crc": 0, "packed": 0, "unpacked": 0}
    made = [
        zips.member(b"zeros%d" % i, b"", data=data, flags=8, extra=extra, central=told, local=local)
        for i in range(members)
    ]
    place.write_bytes(zips.build(made))


def _zip_of_many(place: Path, *, members: int) -> None:
    made = (zips.member(b"d%03d/f%d" % (i // 1000, i), b"%08d" % i * 12, method=0) for i in range(members))
    place.write_bytes(zips.build(list(made), wide={}, count=0xFFFF))


def _tar_of_zeros(place: Path, *, size: int) -> None:
    """One file in gzip members of 1 GiB."""
    head = tarfile.TarInfo("zeros")
    head.size = size
    data, crc = _packed_zeros(GIBI)
    member = gzip.compress(b"")[:10] + data + crc.to_bytes(4, "little") + GIBI.to_bytes(4, "little")
    place.write_bytes(gzip.compress(head.tobuf()) + member * (size // GIBI) + gzip.compress(bytes(1024)))


_MADE = {
    "1 GiB": ("zip", lambda place: _zip_of_zeros(place, members=1, size=GIBI)),
    "10 GiB": ("zip", lambda place: _zip_of_zeros(place, members=10, size=GIBI)),
    "50 GiB": ("zip", lambda place: _zip_of_zeros(place, members=50, size=GIBI)),
    "one member of 20 GiB": ("zip", lambda place: _zip_of_zeros(place, members=1, size=20 * GIBI)),
    "50 GiB as tar.gz": ("tar.gz", lambda place: _tar_of_zeros(place, size=50 * GIBI)),
    "50,000 members": ("zip", lambda place: _zip_of_many(place, members=50_000)),
    "500,000 members": ("zip", lambda place: _zip_of_many(place, members=500_000)),
}


def once(bench: Bench, name: str, turn: int) -> Cost:
    """The archive is made and put, and fetched into a file system of its own."""
    place, (suffix, make) = _fresh(bench, f"curve-{turn}"), _MADE[name]
    (place / "room").mkdir()
    archive = place / f"curve.{suffix}"
    make(archive)
    client = bench.store.client()
    client.upload_file(str(archive), bench.bucket, archive.name)
    client.close()
    os.remove(archive)
    (place / "eraser.py").write_text(_ERASER, encoding="utf-8")
    fetch = " ".join(contenders.stage_in(bench, OURS, archive.name))
    eraser = "" if "members" in name else f"{sys.executable} -I -S eraser.py room & trap 'kill $!' EXIT"
    shell = _SHELL.format(eraser=eraser, fetch=fetch)
    env = contenders.environment(bench)
    cost = measure.run(["unshare", "-rm", "sh", "-ec", shell], cwd=place, env=env, log=bench.place / "log")
    shutil.rmtree(place)
    return cost


SCENARIO = Scenario("curve", "stage-in of any size", tuple(_MADE), once)
