"""`python -m tests.kills`: every named point, in the same and in a fresh directory; `--count N`: N kills at random moments.

Random: a moment between start and a little past the end of such a run; the agent alone, its shim, both, or everything; one in
ten with eight MPI ranks. Prints a line for each that did not hold, and the counts. Exit 1 if any did not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.kills.points import POINTS
from tests.kills.site import Site
from tests.kit import runs, stores

_WHOM = (("agent",), ("agent",), ("shim",), ("shim", "agent"), ("all",))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", default="", help="only those whose name holds this text")
    asked = parser.parse_args()
    started, tally = time.monotonic(), Counter()
    with (
        stores.scratch() as data,
        stores.minio(data) as store,
        tempfile.TemporaryDirectory(prefix="kills-") as directory,
    ):
        site = Site(store=store, data=data / "data", directory=Path(directory), shipped_file=runs.shipped_file())
        for name, problems in _named(site, asked.points) if not asked.count else _random(site, asked.count, asked.seed):
            tally["held" if not problems else "did not hold"] += 1
            if problems or not asked.count:
                print(f"{'ok ' if not problems else 'NOT'} {name}", *problems, sep="\n    ", flush=True)
        site.close()
    minutes = (time.monotonic() - started) / 60
    print(f"{sum(tally.values())} kills, {tally['held']} held, {tally['did not hold']} did not, {minutes:.1f} min")
    return 1 if tally["did not hold"] else 0


def _named(site, text):
    for point in POINTS:
        if text in point.name:
            for fresh in (False, True):
                yield f"{point.name}, {'fresh' if fresh else 'same'}", site.try_point(point, fresh=fresh)


def _random(site, count, seed):
    chance = random.Random(seed)
    for number in range(count):
        mpi, whom, fresh = chance.random() < 0.1, chance.choice(_WHOM), chance.random() < 0.5
        seconds = chance.uniform(0.02, 4.0 if mpi else 2.0)
        name = (
            f"{number}: {'+'.join(whom)} after {seconds:.3f} s{', mpi' if mpi else ''}, {'fresh' if fresh else 'same'}"
        )
        yield name, site.try_moment(seconds, whom=whom, fresh=fresh, mpi=mpi)


if __name__ == "__main__":
    sys.exit(main())
