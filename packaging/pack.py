"""Lays the one file out: text for sh, then a zip archive whose members are parts.

    header | __main__.py | parts, one per purpose and Python version | index.json | licences | table | directory

A part is a length, a compressed marshalled index and blobs compressed one by one; equal parts lie in the file once.
Members are stored, not deflated, so that a part is a slice of the file. All dates are the format's first. The archive
has no comment: Pythons before 3.8 would not see it as one, and could not start the header to find a newer one.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import zipfile
import zlib

TABLE = "table"
# What the header leaves room for and `seal` fills in: name -> width.
FILLED = {"BYTES": 10, "TABLE_OFFSET": 10, "TABLE_BYTES": 6, "CHECKSUM": 8}


def part(entries: dict[str, tuple], blobs: list[bytes]) -> bytes:
    index = zlib.compress(marshal.dumps(entries, 2), 9)
    return len(index).to_bytes(4, "little") + index + b"".join(blobs)


def modules_part(modules: dict[str, bytes], *, words: bytes) -> bytes:
    """Path -> deflated code; indexed by dotted name as (offset, size, path), and "" for their dictionary, first."""
    entries, blobs, offset = {"": (0, len(words), "")}, [words], len(words)
    for path, blob in sorted(modules.items()):
        name = path[: -len("/__init__.py")] if path.endswith("/__init__.py") else path[: -len(".py")]
        entries[name.replace("/", ".")] = (offset, len(blob), path)
        blobs.append(blob)
        offset += len(blob)
    return part(entries, blobs)


def files_part(files: dict[str, tuple]) -> bytes:
    """Path -> (blob, base's path or "", blocks); indexed by path as (offset, size, base's path, blocks)."""
    entries, blobs, offset = {}, [], 0
    for path, (blob, like, blocks) in sorted(files.items()):
        entries[path] = (offset, len(blob), like, blocks)
        blobs.append(blob)
        offset += len(blob)
    return part(entries, blobs)


def plain_part(files: dict[str, bytes]) -> bytes:
    """Path -> compressed content, none of it a difference from another."""
    return files_part({path: (blob, "", ()) for path, blob in files.items()})


def described(parts: dict[str, bytes]) -> dict[str, dict]:
    """Name -> bytes and SHA-256 of each part, for the file's own index."""
    return {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(parts.items())
    }


def written(*, path: str, header: str, parts: dict[str, bytes], texts: dict[str, bytes]) -> None:
    """Writes the file at ``path``, whole or not at all. ``texts`` are ordinary members for people (licences)."""
    new = "%s.%d.new" % (path, os.getpid())
    try:
        with open(new, "w+b") as file:
            file.write(with_room(header).encode())
            with zipfile.ZipFile(file, "w") as archive:
                rows = add(archive, parts)
                for name, content in sorted(texts.items()):
                    archive.writestr(member(name), content, zipfile.ZIP_DEFLATED, 9)
                table_offset, table_bytes = add_table(archive, rows)
            seal(file, header=header, table_offset=table_offset, table_bytes=table_bytes)
        os.chmod(new, 0o755)
        os.replace(new, path)
    finally:
        if os.path.exists(new):
            os.unlink(new)


def member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


def add(archive: zipfile.ZipFile, parts: dict[str, bytes]) -> list[str]:
    """Stores each distinct part once; returns the table's rows: name, offset, bytes."""
    rows, seen = [], {}
    for name, content in parts.items():
        if content not in seen:
            seen[content] = store(archive, name, content)
        rows.append("%s %d %d" % (name, seen[content], len(content)))
    return rows


def store(archive: zipfile.ZipFile, name: str, content: bytes) -> int:
    archive.writestr(member(name), content, zipfile.ZIP_STORED)
    return archive.start_dir - len(content)


def add_table(archive: zipfile.ZipFile, rows: list[str]) -> tuple[int, int]:
    content = "\n".join(rows).encode()
    return store(archive, TABLE, content), len(content)


def with_room(header: str) -> str:
    for name, width in FILLED.items():
        header = header.replace("@%s@" % name, " " * width, 1)
    return header


def seal(file, *, header: str, table_offset: int, table_bytes: int) -> None:
    """Fills in the header's length and place of the table (blanks behind them do no harm there), then the checksum."""
    size = file.seek(0, os.SEEK_END)
    for name, value in (("BYTES", size), ("TABLE_OFFSET", table_offset), ("TABLE_BYTES", table_bytes)):
        fill(file, header=header, name=name, value=str(value))
    file.seek(0)
    content = file.read()
    at = place(header, "CHECKSUM")
    fill(file, header=header, name="CHECKSUM", value="%08x" % zlib.crc32(content[at + 8 :], zlib.crc32(content[:at])))


def place(header: str, name: str) -> int:
    before = header[: header.index("@%s@" % name)]
    return len(with_room(before).encode())


def fill(file, *, header: str, name: str, value: str) -> None:
    file.seek(place(header, name))
    file.write(value.encode())
