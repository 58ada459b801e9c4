"""Damaged archives without end: small good ones with bytes flipped, cut, doubled, moved, or figures put to extremes.

As a program it goes on for as many minutes as it is told, from a seed: ``python -m tests.archives.mutations 20 1``.
"""

from __future__ import annotations

import bz2
import faulthandler
import gzip
import io
import lzma
import os
import random
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile

import zstandard
from tests.archives import room

from byos_run.archive.plan import Limits
from byos_run.errors import NodeUnfit
from byos_run.node.stop import Stop

FIGURES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFE,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
TEXT = b"crank, pressure\n" * 40


def _zip(method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a/inputs.in", TEXT)
        archive.writestr("a/b/", "")
        archive.writestr("surface.dat", bytes(range(256)) * 3)
        link = zipfile.ZipInfo("a/link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "inputs.in")
        wide = zipfile.ZipInfo("wide.dat")
        with archive.open(wide, "w", force_zip64=True) as member:
            member.write(TEXT)
        archive.comment = b"made for a test"
    return out.getvalue()


def small_tar(layout):
    """A good tar of files, a link and a hard link, in one of the formats of ``tarfile``."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
        for name, content in (("./a/inputs.in", TEXT), ("d" * 90 + "/" + "e" * 80, TEXT[:99]), ("empty", b"")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000.5 if layout == tarfile.PAX_FORMAT else 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
        for name, kind, target in (("a/l", tarfile.SYMTYPE, "inputs.in"), ("h", tarfile.LNKTYPE, "./a/inputs.in")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return out.getvalue()


def seeds():
    """[(name of the object, good archive)], small ones."""
    pax, gnu, ustar = (small_tar(layout) for layout in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
    found = [(f"{method}.zip", _zip(method)) for method in (0, 8, 12, 14)]
    found += [("pax.tar", pax), ("gnu.tar", gnu), ("ustar.tar", ustar)]
    found += [
        ("a.tar.gz", gzip.compress(pax)), ("b.tgz", gzip.compress(gnu[:3000]) + gzip.compress(gnu[3000:])),
        ("a.tar.bz2", bz2.compress(pax)), ("a.tar.xz", lzma.compress(gnu)),
        ("a.tar.zst", zstandard.ZstdCompressor(write_checksum=True).compress(gnu)),
    ]  # fmt: skip
    return found


def mutant(content, chance):
    """*content* with one to four wounds."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(8)
        if kind <= 1 and data:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2 and data:
            data[at] = chance.randrange(256)
        elif kind == 3:
            form, size = chance.choice((("<H", 2), ("<I", 4), ("<Q", 8), (">Q", 8)))
            data[at : at + size] = struct.pack(form, chance.choice(FIGURES) & (1 << 8 * size) - 1)
        elif kind == 4:
            del data[at : at + chance.randrange(1, 64)]
        elif kind == 5:
            data[at:at] = data[chance.randrange(len(data) or 1) :][: chance.randrange(1, 600)]
        elif kind == 6:
            _wound_structure(data, chance)
        else:
            data[at : at + 8] = b""
            data = data[: chance.randrange(len(data) + 1)] if chance.random() < 0.2 else data
    return bytes(data)


def _wound_structure(data, chance):
    """A figure within a record of the archive, where a blind flip rarely hits."""
    signature = chance.choice((b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"ustar"))
    places = []
    at = data.find(signature)
    while at >= 0:
        places.append(at)
        at = data.find(signature, at + 1)
    if places:
        start = chance.choice(places)
        if signature == b"ustar":
            block = bytearray(data[start - 257 : start + 255])
            if len(block) == 512:
                block[chance.randrange(512)] = chance.choice(
                    (0, 0x20, 0x2F, 0x2E, 0x30, 0x37, 0x78, 0x80, 0xFF, chance.randrange(256))
                )
                block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
                data[start - 257 : start + 255] = block
            return
        at = start + chance.randrange(4, 46)
        size = chance.choice((1, 2, 4, 8))
        figure = chance.choice(FIGURES) if chance.random() < 0.6 else chance.randrange(1 << 16)
        data[at : at + size] = (figure & (1 << 8 * size) - 1).to_bytes(size, "little")


def outcome(content, *, name, below, stop):
    """ "ok" or "refused"; anything else is raised. The stage is made and removed below the directory *below*."""
    stage = os.path.join(below, "stage")
    try:
        return room.verdict(content, stage, name=name, limits=Limits(max_bytes=1 << 26), stop=stop)[0]
    except NodeUnfit:
        return "refused"
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        left = os.listdir(below)
        assert not left, f"outside the stage: {left}"


def main(minutes, seed):
    chance = random.Random(seed)
    below, stop = tempfile.mkdtemp(), Stop()
    good, count, end = seeds(), {"ok": 0, "refused": 0, "crash": 0, "slow": 0}, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        name, content = chance.choice(good)
        data = mutant(content, chance)
        faulthandler.dump_traceback_later(60, exit=True)
        began = time.monotonic()
        try:
            count[outcome(data, name=name, below=below, stop=stop)] += 1
        except Exception:
            count["crash"] += 1
            path = os.path.join(tempfile.gettempdir(), f"crash-{seed}-{count['crash']}-{name}")
            with open(path, "wb") as file:
                file.write(data)
            print(path, traceback.format_exc(), flush=True)
        open_files = len(os.listdir("/proc/self/fd"))
        assert open_files < 40, f"{open_files} descriptors are open"
        count["slow"] += time.monotonic() - began > 5
    faulthandler.cancel_dump_traceback_later()
    print(count)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
