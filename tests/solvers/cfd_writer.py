# Eight ranks that write as CFD codes do, each in its own way, for SECONDS; into TRUTH/RANK.json go the CRC-32s of every version
# of every file that was complete once.
import json
import os
import random
import shutil
import sys
import time
import zlib

from mpi4py import MPI

seconds, truth = float(sys.argv[1]), sys.argv[2]
rank = MPI.COMM_WORLD.rank
numbers = random.Random(rank)
versions = {}
until = time.monotonic() + seconds


def complete(*paths):
    for path in paths:
        with open(path, "rb") as file:
            versions.setdefault(path, []).append(zlib.crc32(file.read()))


def going(pause_s):
    """Counts while there is time."""
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1
        time.sleep(pause_s)


def log_open_throughout():
    with open("log.out", "w") as log:
        for step in going(0.05):
            print(f"step {step} residual {numbers.random()}", file=log, flush=True)
    complete("log.out")


def append_and_close():
    for step in going(0.3):
        with open("echo.out", "a") as file:
            file.write(f"step {step} {numbers.random()}\n")
        complete("echo.out")


def slowly_with_pauses():
    for step in going(0.1):
        with open(f"post{step:03d}.h5", "wb") as file:
            for _ in range(3):
                file.write(numbers.randbytes(500_000))
                file.flush()
                time.sleep(0.7)
            file.seek(0)
            file.write(b"the header comes last")
        complete(f"post{step:03d}.h5")


def rotate_in_place():
    for step in going(0.4):
        name = f"restart.{'ab'[step % 2]}"
        with open(name, "wb") as file:
            for _ in range(4):
                file.write(numbers.randbytes(300_000))
                file.flush()
                time.sleep(0.05)
        complete(name)


def rename_into_place():
    for _ in going(0.4):
        with open("map.tmp", "wb") as file:
            file.write(numbers.randbytes(200_000))
        complete("map.tmp")
        versions.setdefault("map.dat", []).append(versions.pop("map.tmp")[-1])
        os.rename("map.tmp", "map.dat")


def directory_per_step():
    for step in going(0.2):
        os.makedirs(f"time/{step}/uniform")
        for name in ("U", "p", "uniform/time"):
            with open(f"time/{step}/{name}", "wb") as file:
                file.write(numbers.randbytes(20_000))
            complete(f"time/{step}/{name}")


def delete_old_ones():
    for step in going(0.15):
        os.makedirs(f"work{step}/sub")
        for name in (f"dump.{step}", f"work{step}/sub/file"):
            with open(name, "wb") as file:
                file.write(numbers.randbytes(50_000))
            complete(name)
        if step >= 4:
            os.remove(f"dump.{step - 4}")
            shutil.rmtree(f"work{step - 4}")


def odd_ones():
    os.makedirs("deep/" * 40)
    for step in going(0.1):
        name = f"deep/deep/field{step}.dat"
        open(name, "wb").close()
        os.link(name, f"field{step}.link")
        complete(name, f"field{step}.link")
        time.sleep(1.0)
        with open(name, "r+b") as file:
            file.write(b"begin")
            file.truncate(12_000_000)
            file.seek(-3, os.SEEK_END)
            file.write(b"end")
        complete(name, f"field{step}.link")


roles = [
    log_open_throughout, append_and_close, slowly_with_pauses, rotate_in_place, rename_into_place, directory_per_step,
    delete_old_ones, odd_ones,
]  # fmt: skip
roles[rank]()
with open(f"{truth}/{rank}.json", "w") as file:
    json.dump(versions, file)
MPI.COMM_WORLD.Barrier()
