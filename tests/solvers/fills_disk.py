# Writes files of 9 MB and of 100 kB, and one restart again and again, until the disk is full; then exits with ENOSPC. Into TRUTH
# go the CRC-32s of every version of every file that was complete once, and of what the last write left.
import itertools
import json
import os
import sys
import time
import zlib

versions = {}


def complete(name):
    with open(name, "rb") as file:
        versions.setdefault(name, []).append(zlib.crc32(file.read()))


def write(name, size):
    try:
        with open(name, "wb") as file:
            file.write(os.urandom(size))
    finally:
        complete(name)


try:
    for step in itertools.count():
        write(f"field{step}.h5", 9_000_000)
        write(f"small{step}.dat", 100_000)
        write("restart.rst", 300_000)
        time.sleep(0.3)
except OSError as error:
    with open(sys.argv[1], "w") as file:
        json.dump(versions, file)
    sys.exit(error.errno)
