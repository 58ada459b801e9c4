"""What is in a built file, by size: ``python3 packaging/sizes.py [FILE]`` writes the table between the marks in README.md.

The file's own list of contents says how long each part is; a part of modules says how much of it is ours. A part that lies in
the file once under several names is counted once. What is left is the archive's own: its directory, the table, the header.
"""

from __future__ import annotations

import json
import marshal
import os
import sys
import zipfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
README = os.path.join(HERE, "README.md")
BEGIN, END = "<!-- sizes: make sizes -->\n", "<!-- end of sizes -->\n"
KINDS = {
    "code": "byte code of the libraries",
    "own code": "byte code of ours",
    "dataclasses": "methods of data classes, compiled",
    "native": "natives, stripped; most as differences from those for 3.11",
    "source": "source for 3.14, which has no byte code where no 3.14 compiles it",
    "data": "botocore's data and CA list, once for each of two SDK versions",
    "own": "our sources, for tracebacks",
    "licences": "licences",
    "": "start code, programs, list of contents, the archive itself",
}


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(TOP, "dist", "byos-run")
    with open(README, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
    text = before + BEGIN + table(path) + END + rest.partition(END)[2]
    with open(README, "w", encoding="utf-8") as file:
        file.write(text)
    print(table(path), end="")


def table(path: str) -> str:
    """The table, largest first; its rows add up to the file."""
    whole, rows = os.path.getsize(path), counted(path)
    rows[""] = {"": whole - sum(sum(row.values()) for row in rows.values())}
    lines = ["| in the file, %s MiB | for | MiB |" % mebibytes(whole), "|---|---|---|"]
    for kind, row in sorted(rows.items(), key=lambda item: -sum(item[1].values())):
        each = ", ".join("%s %s" % (name, mebibytes(size)) for name, size in row.items() if name)
        lines.append("| %s | %s | %s |" % (KINDS[kind], each, mebibytes(sum(row.values()))))
    return "\n".join(lines) + "\n"


def counted(path: str) -> dict[str, dict[str, int]]:
    """Kind -> what it is for -> bytes in the file."""
    rows: dict[str, dict[str, int]] = {}
    with zipfile.ZipFile(path) as archive:
        parts = json.loads(archive.read("index.json"))["parts"]
        stored = {info.filename: info.compress_size for info in archive.infolist()}
        for name in sorted(set(parts) & set(stored), key=natural):
            kind, _, what = name.partition("/")
            if kind == "code":
                ours = own_bytes(archive.read(name))
                rows.setdefault("own code", {})[readable(what)] = ours
                rows.setdefault("code", {})[readable(what)] = stored[name] - ours
            elif kind in KINDS:
                rows.setdefault(kind, {})[readable(what)] = stored[name]
        licences = sum(size for name, size in stored.items() if name.startswith("licences/"))
    return {**rows, "licences": {"": licences}}


def natural(name: str) -> tuple[str, int, str]:
    kind, _, what = name.partition("/")
    version, _, machine = what.partition("-")
    return kind, int(version[2:] or 0) if version.startswith("cp") else 0, machine


def readable(what: str) -> str:
    """cp311-x86_64 -> 3.11 x86_64."""
    version, _, machine = what.partition("-")
    return " ".join(filter(None, (version.replace("cp3", "3.", 1), machine)))


def own_bytes(part: bytes) -> int:
    """How many bytes of a part of modules are byos_run's and the start's."""
    index = marshal.loads(zlib.decompress(part[4 : 4 + int.from_bytes(part[:4], "little")]))
    return sum(size for _, size, path in index.values() if path.startswith("byos_"))


def mebibytes(size: int) -> str:
    return "%.2f" % (size / 2**20)


if __name__ == "__main__":
    sys.exit(main())
