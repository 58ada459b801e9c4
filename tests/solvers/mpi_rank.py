# One rank of a real MPI job. Says "ready" when all ranks are there, then does what the words ask:
#   ends      finalize, exit 0             exits=R:N     rank R leaves with N and no finalize    aborts=R:N  MPI_Abort
#   dies=R:S  rank R is killed by signal S  deaf         TERM is ignored                         obeys       TERM ends it well
#   hogs=R:0  rank R takes memory until it is killed
#   daemon    rank 0 starts one            waits         until it is stopped                     proxy       rank 0 kills its proxy
import os
import signal
import subprocess
import sys
import time

words = dict(word.partition("=")[::2] for word in sys.argv[1:])
if "deaf" in words:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

from mpi4py import MPI  # noqa: E402 - the library installs handlers too, and ours must be there while it starts

world = MPI.COMM_WORLD
asked = []
if "obeys" in words:
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
if "daemon" in words and world.rank == 0:
    subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
world.Barrier()
print(f"ready {world.rank} of {world.size}", flush=True)


def mine(word):
    rank, _, number = words.get(word, "-1:0").partition(":")
    return int(number) if int(rank) == world.rank else None


if mine("exits") is not None:
    os._exit(mine("exits"))
if mine("dies") is not None:
    os.kill(os.getpid(), mine("dies"))
if mine("aborts") is not None:
    world.Abort(mine("aborts"))
if mine("hogs") is not None:
    taken = []
    while True:
        taken.append(bytearray(16 << 20))
        time.sleep(0.1)
if "proxy" in words and world.rank == 0:
    os.kill(os.getppid(), signal.SIGKILL)
while "ends" not in words and not asked:
    time.sleep(0.02 if "obeys" in words else 60)
if asked:
    print(f"finished {world.rank}", flush=True)
