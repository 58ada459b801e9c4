"""One start of the file on one node: a run directory, a home and a TMPDIR of its own, then what it said and what it left.

A start may be preceded by a text for sh in a mount namespace of its own (root), so that a full or noexec /tmp is nobody else's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.nodes.places import Node

INSIDE = "/mnt"
START_S = 120
MARK = ".byos-run-"
# Registers qemu for the programs of another processor, in a user namespace of its own (Linux 6.7 and newer keep one list each).
# The kernel reads it when it is registered (F), so it need not lie in the tree. Magic and mask: an ELF-64 program for aarch64.
EMULATED = r"""
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64-static:F" >/proc/sys/fs/binfmt_misc/register
"""


class Started(NamedTuple):
    """A start that has ended."""

    code: int
    output: str
    error: str
    seconds: float


class Place(NamedTuple):
    """The directories of one start."""

    top: Path

    @property
    def run(self) -> Path:
        """The run directory, which holds the file."""
        return self.top / "run"

    def left(self) -> list[str]:
        """What lies where starts may write and nobody laid it."""
        kept = [path.name for name in ("home", "tmp") for path in (self.top / name).iterdir()]
        kept += [path.name for path in self.run.iterdir() if path.name.startswith(".")]
        return kept + [name for top in ("/tmp", "/dev/shm") for name in dead(top)]


def dead(top: str) -> list[str]:
    """Private directories below `top` whose process is gone."""
    names = [name for name in os.listdir(top) if name.startswith(MARK)]
    return [name for name in names if not os.path.exists(f"/proc/{name[len(MARK) :].split('-')[1]}")]


@contextmanager
def place(file: Path) -> Iterator[Place]:
    """Fresh directories with a copy of the file, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="byos-node-") as top:
        made = Place(Path(top))
        for name in ("run", "home", "tmp"):
            (made.top / name).mkdir()
        shutil.copy(file, made.run / "byos-run")
        yield made


def environ(node: Node, where: Place, variables: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment of a start; a variable given as None is not set."""
    top = INSIDE if node.root else str(where.top)
    plain: dict[str, str | None] = {
        "HOME": f"{top}/home", "TMPDIR": f"{top}/tmp", "PATH": os.environ["PATH"], "BYOS_PYTHON": node.python, "LANG": "C.UTF-8",
    }  # fmt: skip
    if node.root:
        plain["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    return {name: value for name, value in {**plain, **(variables or {})}.items() if value is not None}


def command(node: Node, where: Place, words: Sequence[str], *, before: str = "") -> list[str]:
    """The whole command of a start of `words`; `before` is a text for sh in a mount namespace, $1 the top of the place."""
    if node.root:
        text = EMULATED if node.is_emulated else ""
        text += f'mount --rbind /proc "$2/proc"; mount --rbind /dev "$2/dev"; mount --rbind "$1" "$2{INSIDE}"; '
        text += f'root=$2; shift 2; exec chroot "$root" sh -c "cd {INSIDE}/run && exec \\"\\$@\\"" sh "$@"'
        own = "-Urm" if node.is_emulated else "-m"
        return ["unshare", own, "sh", "-ec", text, "sh", str(where.top), str(node.root), *words]
    if before:
        text = f'{before}\nshift; cd .; exec "$@"'
        return ["unshare", "-m", "sh", "-ec", text, "sh", str(where.top), *words]
    return list(words)


def start(
    node: Node,
    where: Place,
    *words: str,
    before: str = "",
    variables: Mapping[str, str | None] | None = None,
    stdin: bytes = b"",
) -> Started:
    """Starts `words` in the run directory and waits for the end."""
    began = time.monotonic()
    done = subprocess.run(
        command(node, where, words, before=before), cwd=where.run, env=environ(node, where, variables),
        input=stdin, capture_output=True, timeout=START_S, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - began
    return Started(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), seconds)
