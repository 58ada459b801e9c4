"""Runs one command and prints what it cost, as JSON: `python -I -S launch.py`, the order as JSON on standard input.

A process of its own and a small one: a child's peak memory counts from the memory of the one that forks it.

CPU seconds are user and system, of the command and of all that it waited for. Peak memory is the largest process's among them.
"""

import json
import os
import sys
import time

order = json.load(sys.stdin)
os.chdir(order["cwd"])
out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
actions = [
    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_DUP2, out, 1),
    (os.POSIX_SPAWN_DUP2, out, 2),
]
started = time.perf_counter()
pid = os.posix_spawn(order["argv"][0], order["argv"], order["env"], file_actions=actions)
_, status, used = os.wait4(pid, 0)
seconds = time.perf_counter() - started
print(
    json.dumps(
        {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": seconds,
            "cpu_s": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * 1024,
        }
    )
)
