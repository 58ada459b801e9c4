"""What may be wrong around a start, and what must come of it all the same. `$1` in a text for sh is the top of the place.

A text runs in a mount namespace of its own, so what it mounts is nobody else's; that needs root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKS = 0
NO_ROOM_KIB = 300
NO_PLACE = "no directory takes the program's files"

FLOCK = """\
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>
int flock(int fd, int how) { errno = ENOSYS; return -1; }
int lockf(int fd, int how, off_t length) { errno = ENOSYS; return -1; }
"""


class Surrounding(NamedTuple):
    """One thing that is wrong, and the code with which `--version` ends (0: it works, and the job is settled too)."""

    name: str
    variables: Mapping[str, str | None] = {}
    before: str = ""
    """For sh, as root in a mount namespace of its own."""
    command: tuple[str, ...] = ("sh", "byos-run")
    code: int = WORKS
    said: str = ""
    """What standard error must hold."""
    is_piped: bool = False


HARDLY_LARGER = 'size=$(( $(wc -c <"$1/run/byos-run") / 1024 + 400 ))k'
"""A disk that takes the file and nothing else."""


def bad_modules(top: str) -> dict[str, str | None]:
    """Variables of Python that lead to a directory of wrong modules (written by `lay`)."""
    return {"PYTHONPATH": f"{top}/bad", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": f"{top}/bad/typing.py"}


def small(path: str, *, options: str) -> str:
    """Mounts a file system in memory at `path`."""
    return f"mount -t tmpfs -o {options} none {path}"


def full(path: str) -> str:
    """A full disk at `path`, with a few hundred KiB free."""
    return small(path, options=f"size={NO_ROOM_KIB}k")


def on_a_disk(options: str) -> str:
    """The run directory on a file system of its own, to which the file is copied."""
    return (
        f'mkdir -p "$1/disk"; mount -t tmpfs -o {options} none "$1/disk"; cp "$1/run/byos-run" "$1/disk"; '
        'mount --bind "$1/disk" "$1/run"; cd "$1/run"'
    )


def nowhere(run_directory: str, options: str) -> str:
    """No place that will do: the run directory so, TMPDIR and /dev/shm with these options, and TMPDIR over /tmp as well."""
    others = f'mount -t tmpfs -o {options} none "$1/tmp"; mount -t tmpfs -o {options} none /dev/shm'
    return f'{run_directory}; {others}; mount --rbind "$1" /mnt; cd /mnt/run; mount --bind /mnt/tmp /tmp; export TMPDIR=/tmp'


def surroundings(top: str) -> list[Surrounding]:
    """All of them, for directories below `top`."""
    tmp = '"$1/tmp"'
    preload = (
        'cc -shared -fPIC -o "$1/bad/flock.so" "$1/bad/flock.c"; mkdir -p "$1/o"; '
        'mount -t tmpfs none "$1/o"; mkdir "$1/o/u" "$1/o/w"; '
        'mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/o/u,workdir=$1/o/w" /etc; '
        'echo "$1/bad/flock.so" >/etc/ld.so.preload'
    )
    return [
        Surrounding("nothing wrong"),
        Surrounding("HOME unset", {"HOME": None}),
        Surrounding("HOME read-only", before=small('"$1/home"', options="ro")),
        Surrounding(
            "HOME full", before=small('"$1/home"', options="size=4k") + '; head -c 4096 /dev/zero >"$1/home/x"'
        ),
        Surrounding("HOME is not there", {"HOME": "/nowhere"}),
        Surrounding("TMPDIR noexec", before=small(tmp, options="noexec")),
        Surrounding("TMPDIR read-only", before=small(tmp, options="ro")),
        Surrounding("TMPDIR full", before=full(tmp)),
        Surrounding("TMPDIR unset", {"TMPDIR": None}),
        Surrounding("every place full", before=nowhere(on_a_disk(HARDLY_LARGER), "size=300k"), code=71, said=NO_PLACE),
        Surrounding(
            "every place noexec", before=nowhere(on_a_disk("size=99m,noexec"), "noexec"), code=71, said=NO_PLACE
        ),
        Surrounding("flock refuses (ENOSYS)", before=preload),
        Surrounding("PYTHONPATH with boto3.py and typing.py, wrong PYTHONHOME", bad_modules(top)),
        Surrounding("the same, started by python3", bad_modules(top), command=("python3", "-E", "byos-run")),
        Surrounding("LD_LIBRARY_PATH with a broken libcrypto", {"LD_LIBRARY_PATH": f"{top}/bad"}),
        Surrounding("umask 077", command=("sh", "-c", 'umask 077; exec sh byos-run "$@"', "sh")),
        Surrounding("umask 000", command=("sh", "-c", 'umask 000; exec sh byos-run "$@"', "sh")),
        Surrounding(
            "a path with blanks", command=("sh", "-c", 'mkdir "a b"; cp byos-run "a b"; exec "a b/byos-run" "$@"', "sh")
        ),
        Surrounding("by a symlink", command=("sh", "-c", 'ln -s byos-run link; exec ./link "$@"', "sh")),
        Surrounding("exec bit lost, by sh", command=("sh", "-c", 'chmod 444 byos-run; exec sh byos-run "$@"', "sh")),
        Surrounding(
            "exec bit lost, by python3", command=("sh", "-c", 'chmod 444 byos-run; exec python3 byos-run "$@"', "sh")
        ),
        Surrounding("an empty environment", command=("env", "-i", "/bin/sh", "byos-run")),
        Surrounding("BYOS_PYTHON leads nowhere", {"BYOS_PYTHON": "/nowhere"}, code=71, said="is not there"),
        Surrounding(
            "from standard input, by sh", command=("sh", "-s", "--"), code=64, said="sh byos-run", is_piped=True
        ),
        Surrounding(
            "from standard input, by python3", command=("python3", "-"), code=1, said="sh.byos-run", is_piped=True
        ),
    ]
