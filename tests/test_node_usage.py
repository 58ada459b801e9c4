"""Memory of the run's processes, shared pages counted once."""

from __future__ import annotations

import mmap
import os

from byos_run.node.usage import Memory, memory_bytes

SIZE = 64 << 20


def test_shared_memory_is_counted_once():
    """Two processes that share 64 MiB use 64 MiB together, not 128."""
    before = memory_bytes(os.getpid())
    memory = mmap.mmap(-1, SIZE)
    memory.write(b"x" * SIZE)
    ready_in, ready_out = os.pipe()
    over_in, over_out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(over_out)
        sum(memory[offset] for offset in range(0, SIZE, 4096))
        os.write(ready_out, b"!")
        os.read(over_in, 1)
        os._exit(0)
    os.read(ready_in, 1)
    both = memory_bytes(os.getpid()) + memory_bytes(child)
    for descriptor in (ready_in, ready_out, over_in, over_out):
        os.close(descriptor)
    os.waitpid(child, 0)
    memory.close()

    assert before + 0.9 * SIZE <= both < before + 1.5 * SIZE
    assert memory_bytes(child) == 0


def test_peak_is_the_largest_sum_and_samples_are_few():
    """A second look at once costs nothing: it is not taken."""
    memory = Memory()
    memory.look([os.getpid()])
    first = memory.peak_bytes
    memory.look([os.getpid(), os.getpid()])

    assert 0 < first == memory.peak_bytes
