"""What the race carries: made once into the dev cache, the same bytes on every machine, reused.

deflated.zip   one table of 120 MB and 2,000 tables of 100 kB, numeric text: 320 MB that deflate to about half
stored.zip     8 members of 128 MiB, 1 GiB as it is
small/         2,000 files of 100 KiB
large/         16 files of 128 MiB, 2 GiB

Deflate sees 32 KiB at a time, so a block of 8 MB repeated is as hard for it as text that never repeats.
"""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from typing import TYPE_CHECKING

from tests.kit import cache, cases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 1
MEBI = 1 << 20
SMALL_FILES = 2000
SMALL_BYTES = 100 << 10
LARGE_FILES = 16
LARGE_BYTES = 128 * MEBI
STORED_MEMBERS = 8
TABLE_BYTES = 100_000
BIG_TABLE_BYTES = 120_000_000


def directory() -> Path:
    """Where the data is; made if it is not there."""
    place = cache.root() / f"bench-data-{VERSION}"
    if place.is_dir():
        return place
    cache.say("bench", "making the data of the race (about a minute, once)")
    making = cache.root() / f"bench-data-{VERSION}.{os.getpid()}"
    making.mkdir(parents=True)
    try:
        numbers = random.Random(7)
        _deflated(making / "deflated.zip", numbers)
        noise = numbers.randbytes(LARGE_BYTES)
        _stored(making / "stored.zip", noise)
        _files(making / "small", noise, count=SMALL_FILES, size_bytes=SMALL_BYTES)
        _files(making / "large", noise, count=LARGE_FILES, size_bytes=LARGE_BYTES)
        cases.copper(making / "copper.zip", steps=100)
        cases.sample_zip(making / "tiny.zip", {"inputs.txt": "a case of one file\n"})
        making.rename(place)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return place


def _deflated(path: Path, numbers: random.Random) -> None:
    text = "".join(
        f"{row:6d} {numbers.random():.6e} {numbers.random():.6e} {numbers.gauss(0, 1): .6e}\n" for row in range(200_000)
    ).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_info("field.dat"), (text * (BIG_TABLE_BYTES // len(text) + 1))[:BIG_TABLE_BYTES])
        for index in range(SMALL_FILES):
            start = numbers.randrange(len(text) - TABLE_BYTES)
            archive.writestr(_info(f"tables/{index:04d}.txt"), text[start : start + TABLE_BYTES])


def _stored(path: Path, noise: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(STORED_MEMBERS):
            archive.writestr(_info(f"restart{index}.rst", kind=zipfile.ZIP_STORED), b"".join(_turned(noise, index)))


def _files(place: Path, noise: bytes, *, count: int, size_bytes: int) -> None:
    place.mkdir()
    for index in range(count):
        with open(place / f"out{index:04d}.dat", "wb") as file:
            if size_bytes == len(noise):
                file.writelines(_turned(noise, index))
            else:
                start = index * 4099 % (len(noise) - size_bytes)
                file.write(memoryview(noise)[start : start + size_bytes])


def _turned(noise: bytes, index: int) -> Iterator[memoryview]:
    at = index * 1_000_003 % len(noise)
    yield memoryview(noise)[at:]
    yield memoryview(noise)[:at]


def _info(name: str, *, kind: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, cases.WHEN)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    info.compress_type = kind
    return info
