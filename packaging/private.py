"""The private directory: where it may be, what its name proves, and what a start that was killed left behind.

A fresh directory of mode 0700 per start, in the first of $TMPDIR, /tmp, /dev/shm and the working directory that takes
all files and from which a native module really loads. No locks, no shared cache, nothing reused.

The name carries uid, pid, start time of that process, boot id and pid namespace. A directory whose process is proved
dead by them goes; one from another boot or another namespace can't be judged from here and stays.
"""

import _frozen_importlib_external as external
import _imp
import os
import stat
import sys
import zlib

MARK = ".byos-run-"
PROOF = "psutil._psutil_linux"  # the smallest native, and one for all Python versions
WINDOW_BYTES = 32 << 10


class Private:
    """One private directory; nothing is on disk before ``unpack``."""

    def __init__(self):
        self.path = ""
        self.owner = os.getpid()
        self.identity = identity()

    def is_ours(self):
        """Whether this is the process that made it, not one that was forked off."""
        return os.getpid() == self.owner

    def unpack(self, *, modules, parts, base, index):
        """Writes all files and points ``modules`` at them. Exit 71 with each reason if no directory will do."""
        folders = candidates()
        for folder in folders:
            sweep(folder=folder, identity=self.identity)
        reasons = []
        for folder in folders:
            self.path = os.path.join(folder, MARK + "-".join(self.identity) + "-" + os.urandom(4).hex())
            try:
                os.mkdir(self.path, 0o700)
                natives = write(top=self.path, parts=parts, base=base, index=index)
                prove(os.path.join(self.path, natives[PROOF]))
            except (OSError, ImportError) as error:
                why = getattr(error, "strerror", None) or str(error).rpartition(": ")[2]
                reasons.append("%s: %s" % (folder, why))
                self.remove()
                continue
            modules.root = self.path
            modules.natives = natives
            return
        self.path = ""
        sys.stderr.write("byos-run: no directory takes the program's files and lets them run\n")
        sys.stderr.write("byos-run: looked at: %s\n" % "; ".join(reasons))
        sys.stderr.write("byos-run: set TMPDIR to one with 8 MiB of room that is not mounted noexec\n")
        raise SystemExit(71)

    def remove(self):
        """Removes the directory with all in it; what can't be removed stays without a word (the run is over)."""
        if self.path:
            remove(self.path)


def candidates():
    found = []
    try:
        here = os.getcwd()
    except OSError:
        here = "/tmp"
    wanted = (os.environ.get("TMPDIR") or "/tmp", "/tmp", "/dev/shm", here)
    for folder in [os.path.join(here, each) for each in wanted]:
        if os.path.isdir(folder) and folder not in found:
            found.append(folder)
    return found


def identity():
    """uid, pid, start time in clock ticks, boot id, pid namespace: text without "-" each."""
    return (
        str(os.geteuid()),
        str(os.getpid()),
        started(os.getpid()) or "unknown",
        first_line("/proc/sys/kernel/random/boot_id").replace("-", "") or "unknown",
        "".join(filter(str.isdigit, linked("/proc/self/ns/pid"))) or "unknown",
    )


def started(pid):
    """When the process started, in clock ticks since boot, or None if it is gone or a zombie (proc(5), stat)."""
    fields = first_line("/proc/%s/stat" % pid).rpartition(")")[2].split()
    return None if len(fields) < 20 or fields[0] in "ZX" else fields[19]


def first_line(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def linked(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def write(*, top, parts, base, index):
    """Writes the files of ``parts``; returns name -> relative path of the native modules among them.

    ``base`` is the part whose natives the others are kept as differences from.
    """
    natives, folders = {}, {top}
    with open(os.path.join(top, "index.json"), "wb") as file:
        file.write(index)
    for entries, body in parts:
        for inside, entry in entries.items():
            path = os.path.join(top, inside)
            folder = os.path.dirname(path)
            if folder not in folders:
                os.makedirs(folder, 0o700, exist_ok=True)
                folders.add(folder)
            with open(path, "wb", 0) as file:
                content = inflated(entry=entry, body=body, base=base)
                if file.write(content) != len(content):
                    raise OSError(28, "No space left on device")
            if inside.endswith(".so"):
                natives[inside.partition(".")[0].replace("/", ".")] = inside
    return natives


def inflated(*, entry, body, base):
    """The content of one file; natives.py of the build says how one is kept as differences from another."""
    offset, size, like, blocks = entry
    if not like:
        return zlib.decompress(body[offset : offset + size])
    entries, base_body = base
    known = inflated(entry=entries[like], body=base_body, base=base)
    pieces = []
    for at, size in blocks:
        block = zlib.decompressobj(-15, zdict=known[at : at + WINDOW_BYTES])
        pieces.append(block.decompress(body[offset : offset + size]))
        offset += size
    return b"".join(pieces)


def prove(path):
    """Loads one native module from ``path``: a noexec mount, a policy or a wrong libc shows here, not in mid-run."""
    loader = external.ExtensionFileLoader(PROOF, path)
    _imp.create_dynamic(external.spec_from_file_location(PROOF, path, loader=loader))


def sweep(*, folder, identity):
    """Removes below ``folder`` what starts of this user, boot and namespace left whose process is gone."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(MARK)]
    except OSError:
        return
    for name in names:
        parts = name[len(MARK) :].split("-")
        if len(parts) != 6 or "unknown" in parts or (parts[0], *parts[3:5]) != (identity[0], *identity[3:5]):
            continue
        if started(parts[1]) != parts[2]:
            remove(os.path.join(folder, name))


def remove(path):
    """Removes our own directory at ``path``, opened component by component and never through a link."""
    try:
        inside = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(inside).st_uid == os.geteuid():
            empty(inside)
            os.rmdir(path)
    except OSError:
        return
    finally:
        os.close(inside)


def empty(directory):
    for name in os.listdir(directory):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                empty(inside)
            finally:
                os.close(inside)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
