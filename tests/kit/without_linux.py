"""python without_linux.py WORDS: byos-run, from the package, on a Python that has lost what only Linux has.

A stand-in for macOS: names that its Python lacks are taken away before the package is imported. Not promised: that macOS
has all the rest.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

ONLY_LINUX = {
    os: (
        "pipe2", "O_PATH", "O_TMPFILE", "sched_getaffinity", "sched_setaffinity", "posix_fallocate", "posix_fadvise",
        "pidfd_open", "splice", "memfd_create", "eventfd", "getxattr", "setxattr", "listxattr", "copy_file_range", "unshare",
    ),
    select: ("epoll",),
    signal: ("SIGPWR", "SIGRTMIN", "SIGRTMAX", "sigtimedwait", "sigwaitinfo", "SIGSTKFLT", "pidfd_send_signal"),
    socket: ("AF_NETLINK", "AF_PACKET", "SOCK_CLOEXEC", "SOCK_NONBLOCK"),
}  # fmt: skip

if __name__ == "__main__":
    assert ssl, subprocess  # the standard library looks at some of the names while it is imported
    for module, names in ONLY_LINUX.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "agent"))
    from byos_run.cli import main

    raise SystemExit(main(sys.argv[1:]))
