# One of eight MPI ranks that write their outputs evenly over a run: each rank one large file in its eighth of the time, and its
# share of the small ones all along. Arguments: SECONDS LARGE_BYTES SMALL_FILES SMALL_BYTES. It prints "AT BYTES" at each file.
import os
import sys
import time

from mpi4py import MPI

seconds, large_bytes, small_files, small_bytes = float(sys.argv[1]), *map(int, sys.argv[2:5])
rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
noise = os.urandom(1 << 20)
mine = range(rank, small_files, size)
due = [((number + 0.5) * seconds / small_files, f"small{number:05d}.dat", small_bytes) for number in mine]
due.append(((rank + 0.5) * seconds / size, f"field{rank}.h5", large_bytes))
MPI.COMM_WORLD.Barrier()
began = time.time()
for at_s, name, length in sorted(due):
    time.sleep(max(0.0, began + at_s - time.time()))
    with open(name, "wb") as file:
        file.writelines(memoryview(noise)[: min(len(noise), length - start)] for start in range(0, length, len(noise)))
    print(f"{time.time():.3f} {length}", flush=True)
time.sleep(max(0.0, began + seconds - time.time()))
