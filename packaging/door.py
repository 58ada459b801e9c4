"""The first code that Python runs: ``__main__`` of the archive, read as text at every start, so kept short.

Started by the header (the guard names this very process) it proves the file whole and hands over to ``boot.py``.
Started by a user (``python3 byos-run``, any Python from 2.7 on) it starts the header, which searches and isolates.

The header names the length, the place of the table and a checksum over all but itself. It finds accidents; SHA256SUMS
beside the file is against malice.
"""

import os
import sys

HEADER_BYTES = 4096
TABLE = b"\n# table "
CHECKSUM = b"\n# checksum "


def main():
    path = os.path.abspath(os.path.dirname(__file__))
    if os.environ.pop("BYOS_BOOT", "") != str(os.getpid()):
        os.environ["BYOS_FIRST"] = sys.executable or ""
        sys.argv[:1] = ["/bin/sh", path]
        os.execv("/bin/sh", sys.argv)
    import _signal  # not signal, which would load half a dozen modules first
    import marshal
    import mmap
    import zlib

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # an end without a traceback while there is nothing to remove
    with open(path, "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    head = bytes(whole[:HEADER_BYTES])
    at = head.find(CHECKSUM) + len(CHECKSUM)
    if head[at : at + 8] != b"%08x" % zlib.crc32(whole[at + 8 :], zlib.crc32(whole[:at])):
        sys.stderr.write("byos-run: '%s' is cut short or altered: its checksum is wrong; upload it again\n" % path)
        raise SystemExit(71)
    offset, size = head[head.find(TABLE) + len(TABLE) :].split()[:2]
    table = {}
    for line in bytes(whole[int(offset) : int(offset) + int(size)]).decode().splitlines():
        name, offset, size = line.split()
        table[name] = whole[int(offset) : int(offset) + int(size)]
    python = "cp%d%d" % sys.version_info[:2]
    if "boot/" + python in table:
        code = marshal.loads(zlib.decompress(table["boot/" + python]))
    else:
        code = compile(zlib.decompress(table["boot/source"]), "byos-run/boot.py", "exec", dont_inherit=True)
    boot = {"__name__": "byos_boot"}
    exec(code, boot)
    return boot["start"](path=path, table=table)


code = main()
for stream in (sys.stdout, sys.stderr):
    try:
        stream.flush()
    except (AttributeError, OSError, ValueError):
        continue  # closed: nobody reads
os._exit(code)  # nothing is left to tear down, and taking modules apart costs 20 ms
