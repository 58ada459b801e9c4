"""Zips as people make them, as programs make them, and as nobody should: each with its verdict and the rule it exercises.

``member(...)`` describes one member, with any field of either header overridden; ``build(...)`` puts them together,
with any field of the end records overridden; ``cases()`` is the table. The rules:

 1 ".."             2 absolute        3 drive             4 backslash            5 empty, NUL, control
 6 length           7 odd on Windows  8 duplicates        9 text of names       10 links as parents
11 links           13 types          14 modes, times     15 limits, ratio       16 overlap
17 sizes, CRC, end of the stream     19 end record       20 directory           21 zip64
22 local header against directory    23 data descriptor  24 encryption, method  25 disks, hidden members
26 empty, not a zip                  27 cut off          28 nested
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zipfile
import zlib
from typing import NamedTuple

import zstandard

TEXT = b"crank angle, pressure\n" * 30
OK, REFUSED = "ok", "refused"
UNIX, FAT, NTFS, DARWIN = 3, 0, 10, 19
FILE, LINK, FOLDER = 0o100644, 0o120777, 0o040755


class Case(NamedTuple):
    id: str
    rule: int
    verdict: str
    content: bytes
    says: str = ""
    """Part of the message of a refusal."""
    holds: dict = {}  # noqa: RUF012
    """Paths and contents that an accepted archive must become, "/" for a directory, "-> x" for a link."""


def raw_deflate(content, level=6):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def pack_lzma(content, *, mark=True):
    model = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=[model])
    return b"\x09\x04\x05\x00" + bytes([93]) + struct.pack("<I", 1 << 16) + packer.compress(content) + packer.flush()


def pack_lzma_unmarked(content):
    """As WinZip and older 7-Zips do it: no mark at the end. The first chunk of LZMA2 is such a stream."""
    model = {"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}
    raw = lzma.compress(content, lzma.FORMAT_RAW, filters=[model])
    assert raw[0] >= 0xE0
    return b"\x09\x04\x05\x00" + raw[5:6] + struct.pack("<I", 1 << 16) + raw[6:-1]


PACKERS = {
    0: bytes, 8: raw_deflate, 12: bz2.compress, 14: pack_lzma, 93: zstandard.compress, 20: zstandard.compress,
    95: lzma.compress,
}  # fmt: skip


def member(
    name=b"a.dat", content=TEXT, *, method=8, data=None, flags=0, mode=FILE, host=UNIX, extra=b"", local_extra=b"",
    descriptor=b"", gap=b"", local=None, central=None, attributes=None, comment=b"", stamp=(0x6000, 0x5A21),
):  # fmt: skip
    """One member as build() takes it; *local* and *central* override fields of either header by name."""
    data = PACKERS.get(method, bytes)(content) if data is None else data
    fields = {
        "need": 20, "flags": flags, "method": method, "time": stamp[0], "date": stamp[1], "crc": zlib.crc32(content),
        "packed": len(data), "unpacked": len(content), "name": name,
    }  # fmt: skip
    attributes = (mode << 16 if host in (UNIX, DARWIN) else 0) if attributes is None else attributes
    both = {**fields, "extra": extra, "made": host << 8 | 30, "attributes": attributes, "comment": comment, "disk": 0}
    return {
        "local": {**fields, "extra": local_extra, "signature": b"PK\3\4", **(local or {})},
        "central": {**both, "signature": b"PK\1\2", **(central or {})}, "data": data, "descriptor": descriptor, "gap": gap,
    }  # fmt: skip


def local_header(f):
    return struct.pack(
        "<4s5H3I2H", f["signature"], f["need"], f["flags"], f["method"], f["time"], f["date"], f["crc"] & 0xFFFFFFFF, f["packed"],
        f["unpacked"], f.get("name_size", len(f["name"])), f.get("extra_size", len(f["extra"])),
    ) + f["name"] + f["extra"]  # fmt: skip


def central_header(f, offset):
    return struct.pack(
        "<4s6H3I5H2I", f["signature"], f["made"], f["need"], f["flags"], f["method"], f["time"], f["date"],
        f["crc"] & 0xFFFFFFFF, f["packed"], f["unpacked"], f.get("name_size", len(f["name"])), len(f["extra"]),
        f.get("comment_size", len(f["comment"])), f["disk"], 0, f["attributes"], f.get("offset", offset),
    ) + f["name"] + f["extra"] + f["comment"]  # fmt: skip


def build(
    members,
    *,
    prefix=b"",
    shifted=False,
    before_directory=b"",
    after_directory=b"",
    wide=None,
    trailing=b"",
    comment=b"",
    **end,
):
    """The zip of *members*. *shifted*: offsets count from the object's start; *wide*: fields of a zip64 end record."""
    out, offsets = bytearray(prefix), []
    base = 0 if shifted else len(prefix)
    for m in members:
        out += m["gap"]
        offsets.append(len(out) - base)
        out += local_header(m["local"]) + m["data"] + m["descriptor"]
    out += before_directory
    start = len(out) - base
    directory = b"".join(central_header(m["central"], offset) for m, offset in zip(members, offsets))
    out += directory + after_directory
    told = {"count": len(members), "size": len(directory), "offset": start, **end}
    if wide is not None:
        place = len(out) - base
        fields = {
            "count": len(members),
            "size": len(directory),
            "offset": start,
            "told": place,
            "length": 44,
            "disks": 1,
            **wide,
        }
        out += struct.pack(
            "<4sQ2H2I4Q", fields.get("signature", b"PK\6\6"), fields["length"], 45, 45, 0, 0, fields["count"],
            fields["count"], fields["size"], fields["offset"],
        ) + fields.get("data", b"")  # fmt: skip
        out += struct.pack("<4sIQI", b"PK\6\7", 0, fields["told"], fields["disks"])
    out += struct.pack(
        "<4s4H2IH", b"PK\5\6", told.get("disk", 0), told.get("first_disk", 0), told.get("here", told["count"] & 0xFFFF),
        told["count"] & 0xFFFF, told["size"] & 0xFFFFFFFF, told["offset"] & 0xFFFFFFFF,
        told.get("comment_size", len(comment)),
    )  # fmt: skip
    return bytes(out + comment + trailing)


def field(number, data):
    return struct.pack("<HH", number, len(data)) + data


def named(name, **more):
    return build([member(b"good.dat"), member(name, **more)])


def unicode_path(raw, text, *, version=1, crc=None):
    return field(0x7075, struct.pack("<BI", version, zlib.crc32(raw) if crc is None else crc) + text)


def wide_member(name=b"a.dat", content=TEXT, *, local=True, **more):
    """A small member whose sizes stand in a zip64 field."""
    packed = raw_deflate(content)
    sizes = struct.pack("<QQ", len(content), len(packed))
    ones = {"packed": 0xFFFFFFFF, "unpacked": 0xFFFFFFFF}
    return member(
        name, content, extra=field(1, sizes), local_extra=field(1, sizes) if local else b"",
        central=ones, local=ones if local else {}, **more,
    )  # fmt: skip


def _names():
    bad = {
        1: [
            b"../x",
            b"a/../../x",
            b"a/..",
            b"..",
            b"../",
            b"a\\..\\..\\x",
            b"..\\x",
            b"a/b/../c",
            b"./../x",
            b"a/../x",
        ],
        2: [b"/etc/passwd", b"//host/share/x", b"\\\\host\\share", b"\\x", b"/", b"//"],
        3: [b"C:x", b"c:/x", b"C:\\x", b"Z:"],
        5: [b"", b"a\0b", b"\0", b"."],
        6: [b"x" * 256, b"d/" + b"y" * 300, b"/".join([b"d"] * 101), b"/".join([b"e" * 200] * 25), "ü".encode() * 128],
    }
    says = {1: "'..'", 2: "absolute", 3: "absolute", 5: "name", 6: "longer"}
    for rule, names in bad.items():
        for number, name in enumerate(names):
            yield Case(f"name-{rule}-{number}", rule, REFUSED, named(name), says[rule])
    for number, name in enumerate((b"..\\x", b"a\\..\\x", b"\\x", b"C:\\x")):
        yield Case(f"name-fat-{number}", 4, REFUSED, named(name, host=FAT))
    good = {
        "blanks": b" a b ",
        "dots": b"...",
        "dot-file": b".hidden",
        "tilde": b"~/x",
        "percent": b"100%/x",
        "plus": b"a+b#c?d&e",
        "dash": b"-rf",
        "star": b"*",
        "dollar": b"$HOME/`x`",
        "quote": b'it\'s "x"',
        "dots-inside": b"a..b/c..",
        "dot-part": b"a/.b",
    }
    for label, name in good.items():
        yield Case(f"name-good-{label}", 5, OK, named(name), holds={name: TEXT})
    yield Case("name-control", 5, OK, named(b"a\n\x1b[31mb"), holds={b"a\n\x1b[31mb": TEXT})
    yield Case("name-dot-slash", 5, OK, named(b"./a/./b//c"), holds={b"a/b/c": TEXT})
    yield Case("name-top-directory", 5, OK, named(b"./", content=b"", method=0, mode=FOLDER), holds={b"good.dat": TEXT})
    yield Case("name-255", 6, OK, named(b"x" * 255), holds={b"x" * 255: TEXT})
    yield Case("name-100-levels", 6, OK, named(b"/".join([b"d"] * 100)), holds={b"/".join([b"d"] * 100): TEXT})
    for label, name in {
        "reserved": b"CON",
        "colon": b"file.txt:stream",
        "dot-end": b"x.",
        "blank-end": b"x ",
        "nul": b"aux.h",
    }.items():
        yield Case(f"name-windows-{label}", 7, OK, named(name), holds={name: TEXT})
    yield Case("backslash-explorer", 4, OK, named(b"case\\in\\x.dat", host=FAT), holds={b"case/in/x.dat": TEXT})
    yield Case("backslash-ntfs", 4, OK, named(b"case\\x.dat", host=NTFS), holds={b"case/x.dat": TEXT})
    yield Case("backslash-folder", 4, OK, named(b"case\\", content=b"", method=0, host=FAT), holds={b"case": "/"})
    japanese = b"\x95\x5c/x.dat"
    yield Case("backslash-in-a-letter", 4, OK, named(japanese, host=FAT), holds={"ò\\/x.dat".encode(): TEXT})
    winzip = unicode_path(b"a/\x81.dat", "a\\ü.dat".encode())
    yield Case(
        "backslash-in-unicode-path",
        4,
        OK,
        named(b"a/\x81.dat", host=FAT, extra=winzip),
        holds={"a/ü.dat".encode(): TEXT},
    )
    yield Case("backslash-unix", 4, OK, named(b"case\\x.dat"), holds={b"case\\x.dat": TEXT})
    yield Case(
        "backslash-local-only", 4, OK, named(b"case/x.dat", local={"name": b"case\\x.dat"}), holds={b"case/x.dat": TEXT}
    )


def _texts():
    raw, text = b"Zylinder_\x81.dat", "Zylinder_ü.dat".encode()
    yield Case("text-cp437", 9, OK, named(raw, host=FAT), holds={text: TEXT})
    yield Case("text-utf8-flag", 9, OK, named(text, flags=0x800), holds={text: TEXT})
    yield Case("text-utf8-no-flag", 9, OK, named(text), holds={text: TEXT})
    yield Case("text-utf8-flag-false", 9, REFUSED, named(raw, flags=0x800), "UTF-8")
    yield Case("text-surrogate", 9, REFUSED, named(b"a\xed\xa0\x80", flags=0x800), "UTF-8")
    yield Case("text-overlong", 9, REFUSED, named(b"a\xc0\xaf..", flags=0x800), "UTF-8")
    yield Case("text-unicode-path", 9, OK, named(raw, extra=unicode_path(raw, text)), holds={text: TEXT})
    yield Case("text-unicode-path-stale", 9, OK, named(raw, extra=unicode_path(raw, b"x", crc=1)), holds={text: TEXT})
    yield Case(
        "text-unicode-path-version", 9, OK, named(raw, extra=unicode_path(raw, b"x", version=2)), holds={text: TEXT}
    )
    yield Case("text-unicode-path-climbs", 9, REFUSED, named(raw, extra=unicode_path(raw, b"../x")), "'..'")
    yield Case("text-unicode-path-nul", 9, REFUSED, named(raw, extra=unicode_path(raw, b"x\0y")), "NUL")
    yield Case("text-unicode-path-empty", 9, OK, named(raw, extra=unicode_path(raw, b"")), holds={text: TEXT})
    yield Case("text-unicode-path-twice", 9, REFUSED, named(raw, extra=unicode_path(raw, text) * 2), "twice")
    yield Case("text-unicode-path-bad", 9, REFUSED, named(raw, extra=unicode_path(raw, b"\xff")), "UTF-8")


def _duplicates():
    twice = {
        "same": (b"x", b"x"), "dot": (b"x", b"./x"), "slashes": (b"a/x", b"a//x"), "file-below-file": (b"a", b"a/b"),
        "file-above-file": (b"a/b", b"a"), "deep": (b"a/b/c/d", b"a/b"), "three": (b"p/q", b"p/q/"),
    }  # fmt: skip
    for label, (first, second) in twice.items():
        folder = {"content": b"", "method": 0} if second.endswith(b"/") else {}
        yield Case(f"twice-{label}", 8, REFUSED, build([member(first), member(second, **folder)]))
    yield Case("twice-slash-kind", 8, REFUSED, build([member(b"a/x"), member(b"a\\x", host=FAT)]), "twice")
    yield Case("twice-text", 8, REFUSED, build([member("ü".encode()), member(b"\x81", host=FAT)]), "twice")
    folder = member(b"a/", b"", method=0, mode=FOLDER)
    yield Case("twice-folder", 8, OK, build([folder, folder, member(b"a/x")]), holds={b"a": "/", b"a/x": TEXT})
    yield Case("case-differs", 8, OK, build([member(b"x"), member(b"X")]), holds={b"x": TEXT, b"X": TEXT})
    yield Case("folder-after-its-file", 8, OK, build([member(b"a/x"), folder]), holds={b"a/x": TEXT})


def link(name, target, **more):
    return member(name, target, method=more.pop("method", 0), mode=LINK, **more)


def _links():
    out = {
        "absolute": b"/etc", "up": b"..", "up-file": b"../x", "far": b"d/../../x", "middle": b"d/../x", "empty": b"",
        "nul": b"a\0b", "endless": b"x" * 4096, "huge": b"x/" * 20000, "slashes": b"//etc",
    }  # fmt: skip
    for label, target in out.items():
        yield Case(f"link-{label}", 11, REFUSED, build([member(b"good"), link(b"l", target)]))
    yield Case("link-deep-up", 11, REFUSED, build([link(b"a/b/l", b"../../../x")]), "link")
    yield Case("link-chain-out", 11, REFUSED, build([link(b"a/l", b"."), link(b"a/m", b"l/../../x")]), "link")
    inside = build(
        [
            member(b"lib/z.so.1.2"),
            link(b"lib/z.so.1", b"z.so.1.2"),
            link(b"lib/z.so", b"z.so.1"),
            link(b"a/b/top", b"../../lib"),
        ]
    )
    yield Case("link-inside", 11, OK, inside, holds={b"lib/z.so": "-> z.so.1", b"a/b/top": "-> ../../lib"})
    yield Case("link-deflated", 11, OK, build([link(b"l", b"x", method=8)]), holds={b"l": "-> x"})
    yield Case("link-dangling", 11, OK, build([link(b"l", b"nowhere")]), holds={b"l": "-> nowhere"})
    yield Case("link-loop", 11, OK, build([link(b"l", b"m"), link(b"m", b"l")]), holds={b"l": "-> m"})
    yield Case("link-parent", 10, REFUSED, build([link(b"d", b"e"), member(b"d/x")]), "below")
    yield Case("link-parent-after", 10, REFUSED, build([member(b"d/x"), link(b"d", b"e")]), "at once")
    yield Case("link-twice", 10, REFUSED, build([link(b"d", b"e"), link(b"d", b"f")]), "twice")
    yield Case("link-over-file", 10, REFUSED, build([member(b"d"), link(b"d", b"f")]), "twice")
    yield Case(
        "link-of-fat",
        13,
        OK,
        build([member(b"l", b"/etc", method=0, host=FAT, attributes=LINK << 16)]),
        holds={b"l": b"/etc"},
    )
    yield Case("link-bad-crc", 17, REFUSED, build([link(b"l", b"x", central={"crc": 7}, local={"crc": 7})]), "CRC")
    yield Case("link-folder", 13, REFUSED, build([link(b"l/", b"x")]), "content")


def _types():
    for label, mode in {"char": 0o020644, "block": 0o060644, "socket": 0o140644}.items():
        yield Case(f"type-{label}", 13, REFUSED, build([member(b"x", mode=mode)]), "device")
    for label, mode in {"fifo": 0o010600, "none": 0, "plain": 0o100000, "suid": 0o104755, "unknown": 0o150644}.items():
        yield Case(f"type-{label}", 13, OK, build([member(b"x", mode=mode)]), holds={b"x": TEXT})
    yield Case(
        "type-info-zip-stdin", 13, OK, build([member(b"-", mode=0o010600, flags=8, descriptor=b"PK\7\x08" + bytes(12))])
    )
    yield Case("type-folder-with-content", 13, REFUSED, build([member(b"d/", TEXT)]), "content")
    yield Case("type-folder-by-mode", 13, OK, build([member(b"d", b"", method=0, mode=FOLDER)]), holds={b"d": "/"})
    yield Case(
        "type-folder-by-fat", 13, OK, build([member(b"d", b"", method=0, host=FAT, attributes=0x10)]), holds={b"d": "/"}
    )
    yield Case("type-folder-deflated", 13, OK, build([member(b"d/", b"", data=b"\3\0")]), holds={b"d": "/"})
    yield Case("type-folder-huge-packed", 15, REFUSED, build([member(b"d/", b"", data=bytes(20000))]), "content")
    stamps = {"zero": (0, 0), "ones": (0xFFFF, 0xFFFF), "month-15": (0, 15 << 5 | 31), "now": (0x6000, 0x5A21)}
    for label, stamp in stamps.items():
        yield Case(f"time-{label}", 14, OK, build([member(b"x", stamp=stamp)]), holds={b"x": TEXT})
    for label, value in {"old": -(1 << 31), "late": (1 << 31) - 1}.items():
        yield Case(
            f"time-extended-{label}", 14, OK, build([member(b"x", extra=field(0x5455, struct.pack("<Bi", 1, value)))])
        )
    yield Case("time-extended-short", 14, OK, build([member(b"x", extra=field(0x5455, b"\1"))]))
    ntfs = field(0x0A, struct.pack("<IHHQQQ", 0, 1, 24, (1 << 64) - 1, 0, 0))
    yield Case("time-ntfs", 14, OK, build([member(b"x", extra=ntfs, host=FAT)]))


def _sizes():
    lies = {
        "crc": {"crc": 1}, "longer": {"unpacked": len(TEXT) + 1}, "shorter": {"unpacked": len(TEXT) - 1}, "none": {"unpacked": 0},
        "huge": {"unpacked": 0xFFFFFFFE}, "double": {"unpacked": 2 * len(TEXT)},
    }  # fmt: skip
    for label, lie in lies.items():
        yield Case(f"size-{label}", 17, REFUSED, build([member(central=lie, local=lie)]))
        yield Case(f"size-{label}-descriptor", 17, REFUSED, build([member(central=lie, flags=8, descriptor=bytes(16))]))
    for method in (12, 14, 93, 95):
        for label in ("crc", "longer", "shorter"):
            yield Case(
                f"size-{label}-{method}",
                17,
                REFUSED,
                build([member(method=method, central=lies[label], local=lies[label])]),
            )
    packed = raw_deflate(TEXT)
    wounds = {
        "trailing": packed + b"junk", "trailing-zero": packed + b"\0", "cut": packed[:-3], "no-end": packed[:-1], "empty": b"",
        "garbage": b"\xff" * 60, "two-streams": packed + packed,
    }  # fmt: skip
    for label, data in wounds.items():
        yield Case(f"deflate-{label}", 17, REFUSED, build([member(data=data)]))
    for method in (12, 14, 93, 95):
        good = PACKERS[method](TEXT)
        yield Case(f"packed-{method}", 24, OK, build([member(method=method)]), holds={b"a.dat": TEXT})
        cut = member(method=method, data=good[:-5], flags=2)  # the flag promises an end mark of lzma
        yield Case(f"packed-{method}-cut", 17, REFUSED, build([cut]))
        yield Case(f"packed-{method}-trailing", 17, REFUSED, build([member(method=method, data=good + b"junkjunk")]))
        yield Case(f"packed-{method}-garbage", 17, REFUSED, build([member(method=method, data=b"\x5d" * 80)]))
    yield Case("packed-20", 24, OK, build([member(method=20)]), holds={b"a.dat": TEXT})
    for label, content in {
        "text": TEXT,
        "run": b"a" * 3000,
        "zeros": bytes(70000),
        "digits": b"0123456789" * 9000,
    }.items():
        data = pack_lzma_unmarked(content)
        yield Case(
            f"lzma-no-mark-{label}",
            17,
            OK,
            build([member(content=content, method=14, data=data)]),
            holds={b"a.dat": content},
        )
        yield Case(
            f"lzma-no-mark-{label}-junk", 17, REFUSED, build([member(content=content, method=14, data=data + b"junk")])
        )
        yield Case(
            f"lzma-no-mark-{label}-cut", 17, REFUSED, build([member(content=content, method=14, data=data[:-6])])
        )
    big = struct.pack("<HHBI", 9, 5, 93, 0xFFFFFFFF) + pack_lzma(TEXT)[9:]
    yield Case("lzma-dictionary-4g", 15, OK, build([member(method=14, data=big)]), holds={b"a.dat": TEXT})
    yield Case("stored", 24, OK, build([member(method=0)]), holds={b"a.dat": TEXT})
    yield Case(
        "stored-descriptor",
        23,
        OK,
        build([member(method=0, flags=8, descriptor=bytes(16), local={"crc": 0, "packed": 0, "unpacked": 0})]),
    )
    yield Case("stored-sizes-differ", 17, REFUSED, build([member(method=0, central={"unpacked": 9})]), "differ")
    yield Case("stored-wrong-crc", 17, REFUSED, build([member(method=0, central={"crc": 9}, local={"crc": 9})]), "CRC")
    bomb = raw_deflate(bytes(200 << 20), 9)
    lie = {"unpacked": 1000, "crc": zlib.crc32(bytes(1000))}
    yield Case("bomb-that-lies", 15, REFUSED, build([member(data=bomb, central=lie, local=lie)]), "claims")
    yield Case(
        "bomb-beyond-deflate", 15, REFUSED, build([member(central={"unpacked": 0xFFFFFF00})]), "than deflate can"
    )
    zeros = bytes(40 << 20)
    yield Case("zeros", 15, OK, build([member(content=zeros)]))
    yield Case(
        "zstd-bomb-that-lies",
        15,
        REFUSED,
        build([member(method=93, data=zstandard.compress(bytes(400 << 20)), central=lie, local=lie)]),
    )
    frame = struct.pack("<I", 0xFD2FB528) + b"\x00\xf8" + b"\1\0\0"
    yield Case("zstd-window-huge", 15, REFUSED, build([member(content=b"", method=93, data=frame)]))
    yield Case("empty-file-stored", 17, OK, build([member(content=b"", method=0)]), holds={b"a.dat": b""})
    yield Case("empty-file-deflated", 17, OK, build([member(content=b"")]), holds={b"a.dat": b""})
    yield Case("empty-file-no-bytes", 17, REFUSED, build([member(content=b"", data=b"")]))


def _overlaps():
    one = member(b"one", method=0)
    two = member(b"two", method=0)
    same = build([one, {**two, "central": {**two["central"], "offset": 0}}])
    yield Case("overlap-same-place", 16, REFUSED, same, "overlaps")
    inner = local_header(two["local"]) + two["data"]
    outer = member(b"outer", inner + b"tail", method=0)
    quoted = build([outer, {**two, "central": {**two["central"], "offset": 35}}])
    yield Case("overlap-inside", 16, REFUSED, quoted, "overlaps")
    kernel = raw_deflate(bytes(1 << 20), 9)
    for count in (2, 50, 250):
        yield Case(f"overlap-bomb-{count}", 16, REFUSED, _fifield(kernel, count))
    long = {"packed": len(one["data"]) + 40, "unpacked": len(one["data"]) + 40}
    yield Case(
        "overlap-next-by-size",
        16,
        REFUSED,
        build([member(b"one", method=0, central=long, local=long), two]),
        "overlaps",
    )
    little = {"extra_size": 20}
    yield Case("overlap-by-local-extra", 16, REFUSED, build([member(b"one", method=0, local=little), two]), "overlaps")
    yield Case("overlap-directory", 16, REFUSED, build([member(b"one", method=0, local=little)]), "overlaps")
    yield Case(
        "overlap-directory-by-size",
        16,
        REFUSED,
        build([member(b"one", method=0, central=long, local=long)]),
        "overlaps",
    )
    far = build([member(central={"offset": 1 << 30})])
    yield Case("offset-past-the-end", 16, REFUSED, far)
    yield Case(
        "offset-in-the-directory",
        16,
        REFUSED,
        build([{**one, "central": {**one["central"], "offset": len(inner) + 3}}]),
    )
    back = build([member(b"one"), member(b"two")])
    yield Case("order-of-directory", 16, OK, _reversed(), holds={b"one": TEXT, b"two": TEXT[::-1]})
    yield Case("order-plain", 16, OK, back)


def _reversed():
    """The directory names the last member first."""
    one, two = member(b"one"), member(b"two", TEXT[::-1])
    first = local_header(one["local"]) + one["data"]
    body = first + local_header(two["local"]) + two["data"]
    directory = central_header(two["central"], len(first)) + central_header(one["central"], 0)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)


def _fifield(kernel, count):
    """Full overlap: *count* entries that share one kernel."""
    fields = {"crc": zlib.crc32(bytes(1 << 20)), "packed": len(kernel), "unpacked": 1 << 20}
    names = [b"%05d" % i for i in range(count)]
    first = member(names[0], data=kernel, central=fields, local=fields)
    body = local_header(first["local"]) + kernel
    directory = b"".join(central_header(member(n, data=kernel, central=fields)["central"], 0) for n in names)
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def _ends():
    good = [member(b"a.dat"), member(b"b/c.dat")]
    plain = build(good)
    holds = {b"a.dat": TEXT, b"b/c.dat": TEXT}
    yield Case("end-plain", 19, OK, plain, holds=holds)
    yield Case("end-comment", 19, OK, build(good, comment=b"made by hand"), holds=holds)
    yield Case("end-comment-long", 19, OK, build(good, comment=b"c" * 65535), holds=holds)
    yield Case("end-comment-signature", 19, OK, build(good, comment=b"see PK\5\6 there" + bytes(30)), holds=holds)
    yield Case(
        "end-comment-holds-zip", 19, REFUSED, build(good, comment=build([member(b"evil")])), "different archives"
    )
    for label, size in (("more", 9), ("less", 0)):  # others read the one that comes last
        hidden = build([member(b"evil")], comment=b"1", comment_size=size)
        yield Case(f"end-comment-holds-zip-{label}", 19, REFUSED, build(good, comment=hidden), "different archives")
    yield Case("end-comment-holds-empty", 19, OK, build(good, comment=b"PK\5\6" + bytes(18)), holds=holds)
    for label, pad in {"1": 1, "511": 511, "64k": 65536, "300k": 300_000}.items():
        yield Case(f"end-zeros-{label}", 19, OK, build(good, trailing=bytes(pad)), holds=holds)
    yield Case("end-trailing-text", 19, REFUSED, build(good, trailing=b"\r\n"), "follow")
    yield Case("end-trailing-junk", 19, REFUSED, build(good, trailing=b"x" * 3000), "follow")
    yield Case("end-trailing-zip", 19, OK, build([member(b"first")]) + b"", holds={b"first": TEXT})
    yield Case("end-two-zips", 20, OK, build([member(b"first")]) + build([member(b"second")]), holds={b"second": TEXT})
    yield Case("end-comment-cut", 19, REFUSED, build(good, comment=b"comment")[:-2], "cut off")
    yield Case("end-comment-too-long", 19, REFUSED, build(good, comment_size=5))
    yield Case("end-count-more", 20, REFUSED, build(good, count=3), "members")
    yield Case("end-count-less", 20, REFUSED, build(good, count=1), "members")
    yield Case("end-count-zero", 20, REFUSED, build(good, count=0, here=0))
    yield Case("end-count-here", 25, REFUSED, build(good, here=1), "disk")
    yield Case("end-directory-longer", 20, REFUSED, build(good, size=1000))
    yield Case("end-directory-shorter", 20, REFUSED, build(good, size=51))
    yield Case("end-offset-more", 20, REFUSED, build(good, offset=len(plain)))
    yield Case("end-offset-less", 20, REFUSED, build(good, offset=3))
    yield Case("end-offset-ones", 21, REFUSED, build(good, offset=0xFFFFFFFF))
    yield Case("end-size-ones", 21, REFUSED, build(good, size=0xFFFFFFFF))
    yield Case("end-gap-after-directory", 20, REFUSED, build(good, after_directory=b"gap!"))
    yield Case("end-gap-before-directory", 25, OK, build(good, before_directory=b"gap!" * 10), holds=holds)
    yield Case("entry-signature", 20, REFUSED, build([member(central={"signature": b"PK\1\3"})]))
    yield Case("entry-name-too-long", 20, REFUSED, build([member(central={"name_size": 5000})]))
    yield Case("entry-comment", 20, OK, build([member(comment=b"a comment" * 50)]), holds={b"a.dat": TEXT})
    yield Case("entry-comment-too-long", 20, REFUSED, build([member(central={"comment_size": 60000})]))
    yield Case("entry-extra-cut", 20, REFUSED, build([member(extra=b"\x55\x54\xff\x00abc")]), "extra")
    yield Case("entry-extra-zeros", 20, OK, build([member(extra=bytes(7))]), holds={b"a.dat": TEXT})
    yield Case("entry-extra-unknown", 20, OK, build([member(extra=field(0xCAFE, b"") + field(0x7855, b"abcd"))]))
    stub = b"#!/bin/sh\nexec unzip $0\n" + b"\x7fELF" * 500
    yield Case("prefix-offsets-from-archive", 20, OK, build(good, prefix=stub), holds=holds)
    yield Case("prefix-offsets-from-object", 20, OK, build(good, prefix=stub, shifted=True), holds=holds)
    yield Case("prefix-headers-elsewhere", 20, REFUSED, _prefix_that_lies(good, stub))
    yield Case("prefix-pk00", 20, OK, build(good, prefix=b"PK00", shifted=True), holds=holds)
    yield Case("nested", 28, OK, build([member(b"inner.zip", plain, method=0)]), holds={b"inner.zip": plain})


def _prefix_that_lies(good, stub):
    whole = build(good, prefix=stub, shifted=True)
    at = whole.rfind(b"PK\5\6")
    offset = struct.unpack_from("<I", whole, at + 16)[0]
    return whole[: at + 16] + struct.pack("<I", offset - 8) + whole[at + 20 :]


def _wide():
    good, holds = [member(b"a.dat"), member(b"b.dat")], {b"a.dat": TEXT, b"b.dat": TEXT}
    ones = {"size": 0xFFFFFFFF, "offset": 0xFFFFFFFF, "count": 0xFFFF}
    yield Case("zip64-end", 21, OK, build(good, wide={}, **ones), holds=holds)
    yield Case("zip64-end-not-needed", 21, OK, build(good, wide={}), holds=holds)
    yield Case("zip64-end-prefix", 21, OK, build(good, prefix=b"stub" * 9, wide={}, **ones), holds=holds)
    yield Case(
        "zip64-end-prefix-shifted", 21, OK, build(good, prefix=b"stub" * 9, shifted=True, wide={}, **ones), holds=holds
    )
    wrong = {
        "count": {"count": 3},
        "endless-count": {"count": 1 << 60},
        "size": {"size": 1 << 40},
        "offset": {"offset": 1 << 60},
        "told": {"told": 4},
        "told-past": {"told": 1 << 62},
        "signature": {"signature": b"PK\6\5"},
        "length": {"length": 60},
        "data": {"data": b"1234", "length": 48},
        "gap": {"data": b"1234"},
        "disks": {"disks": 3},
    }
    for label, fields in wrong.items():
        yield Case(f"zip64-end-{label}", 21, REFUSED, build(good, wide=fields, **ones))
    yield Case("zip64-end-contradicts-count", 21, REFUSED, build(good, wide={}, count=1), "contradict")
    yield Case("zip64-end-contradicts-size", 21, REFUSED, build(good, wide={}, size=5), "contradict")
    yield Case("zip64-no-locator", 21, REFUSED, build(good, **ones))
    yield Case("zip64-member", 21, OK, build([wide_member()]), holds={b"a.dat": TEXT})
    yield Case("zip64-member-directory-only", 21, OK, build([wide_member(local=False)]), holds={b"a.dat": TEXT})
    yield Case("zip64-member-longer-field", 21, OK, build([_longer_field()]), holds={b"a.dat": TEXT})
    yield Case("zip64-member-no-field", 21, REFUSED, build([member(central={"unpacked": 0xFFFFFFFF})]), "64-bit")
    yield Case("zip64-member-no-offset", 21, REFUSED, build([member(central={"offset": 0xFFFFFFFF})]), "64-bit")
    yield Case(
        "zip64-member-short",
        21,
        REFUSED,
        build([member(extra=field(1, b"1234"), central={"unpacked": 0xFFFFFFFF})]),
        "64-bit",
    )
    twice = {"packed": 0xFFFFFFFF, "unpacked": 0xFFFFFFFF}
    yield Case(
        "zip64-member-twice", 21, REFUSED, build([member(extra=field(1, bytes(16)) * 2, central=twice)]), "twice"
    )
    yield Case("zip64-member-endless", 21, REFUSED, build([member(extra=field(1, b"\xff" * 16), central=twice)]))
    offset = member(extra=field(1, bytes(8)), central={"offset": 0xFFFFFFFF})
    yield Case("zip64-member-offset", 21, OK, build([offset]), holds={b"a.dat": TEXT})
    disk = member(extra=field(1, struct.pack("<I", 4)), central={"disk": 0xFFFF})
    yield Case("zip64-member-disk", 25, REFUSED, build([disk]), "disk")


def _longer_field():
    content = raw_deflate(TEXT)
    data = struct.pack("<QQQ", len(TEXT), len(content), 0)
    return member(extra=field(1, data), central={"packed": 0xFFFFFFFF, "unpacked": 0xFFFFFFFF})


def _locals():
    differ = {
        "name": {"name": b"b.dat"},
        "name-shorter": {"name": b"a.da"},
        "name-climbs": {"name": b"../.."},
        "method": {"method": 0},
        "encrypted": {"flags": 1},
        "crc": {"crc": 1},
        "packed": {"packed": 1},
        "unpacked": {"unpacked": 1},
        "signature": {"signature": b"PK\3\5"},
        "sizes-zero": {"packed": 0, "unpacked": 0, "crc": 0},
        "ones-no-field": {"packed": 0xFFFFFFFF},
        "extra-too-long": {"extra_size": 60000},
        "name-case": {"name": b"A.dat"},
    }
    for label, fields in differ.items():
        yield Case(f"local-{label}", 22, REFUSED, build([member(b"a.dat", local=fields)]))
    same = {
        "version": {"need": 45},
        "time": {"time": 7, "date": 7},
        "extra": {"extra": field(0x7855, b"abcd")},
        "zipalign": {"extra": bytes(3)},
        "utf8-flag": {"flags": 0x800},
    }
    for label, fields in same.items():
        yield Case(f"local-other-{label}", 22, OK, build([member(b"a.dat", local=fields)]), holds={b"a.dat": TEXT})
    packed = raw_deflate(TEXT)
    nothing = {"crc": 0, "packed": 0, "unpacked": 0}
    told = struct.pack("<III", zlib.crc32(TEXT), len(packed), len(TEXT))
    wide = struct.pack("<IQQ", zlib.crc32(TEXT), len(packed), len(TEXT))
    for label, tail in {
        "12": told,
        "16": b"PK\7\x08" + told,
        "20": wide,
        "24": b"PK\7\x08" + wide,
        "none": b"",
    }.items():
        again = [member(b"a.dat", flags=8, local=nothing, descriptor=tail), member(b"b.dat")]
        yield Case(f"descriptor-{label}", 23, OK, build(again), holds={b"a.dat": TEXT, b"b.dat": TEXT})
    hidden = local_header(member(b"hidden")["local"]) + packed
    yield Case(
        "hidden-between",
        25,
        OK,
        build([member(b"a.dat"), member(b"b.dat", gap=hidden)]),
        holds={b"a.dat": TEXT, b"b.dat": TEXT},
    )
    yield Case(
        "hidden-large-gap",
        25,
        OK,
        build([member(b"a.dat"), member(b"b.dat", gap=bytes(400_000))]),
        holds={b"b.dat": TEXT},
    )


def _refused_kinds():
    for flags, label in ((1, "zip-crypto"), (0x41, "strong"), (0x2001, "masked")):
        yield Case(f"encrypted-{label}", 24, REFUSED, build([member(flags=flags)]), "encrypted")
    yield Case(
        "encrypted-aes",
        24,
        REFUSED,
        build([member(method=99, flags=1, extra=field(0x9901, b"\2\0AE\3\x08\0"))]),
        "encrypted",
    )
    for method, name in {
        1: "shrink",
        2: "reduce",
        6: "implode",
        9: "deflate64",
        10: "dcl implode",
        19: "ibm lz77",
        96: "jpeg",
        97: "wavpack",
        98: "ppmd",
        77: "unknown",
    }.items():
        yield Case(f"method-{method}", 24, REFUSED, build([member(method=method)]), f"method {method} ({name}")
    yield Case("patched", 24, REFUSED, build([member(flags=0x20)]), "patched")
    yield Case("disk-member", 25, REFUSED, build([member(central={"disk": 1})]), "disk")
    yield Case("disk-end", 25, REFUSED, build([member()], disk=1), "disk")
    yield Case("disk-first", 25, REFUSED, build([member()], first_disk=1), "disk")
    yield Case("disk-one-of-many", 25, REFUSED, b"PK\7\x08" + local_header(member()["local"]) + TEXT, "disk")
    yield Case("empty-zip", 26, OK, b"PK\5\6" + bytes(18))
    yield Case("empty-object", 26, REFUSED, b"", "0 bytes")
    xml = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"
    others = {
        "xml": (xml, "XML"),
        "html": (b"<!DOCTYPE html><html>denied</html>", "HTML"),
        "gzip": (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "7z"),
        "rar": (b"Rar!\x1a\x07\1\0", "rar"),
        "zeros": (bytes(5000), "zeros"),
        "text": (b"hello", "hello"),
        "tar": (bytes(257) + b"ustar\x0000" + bytes(300), "tar"),
        "zstd": (zstandard.compress(TEXT), "zstd"),
        "pk": (b"PK", "no end"),
    }
    for label, (content, says) in others.items():
        yield Case(f"not-{label}", 26, REFUSED, content, says)
    whole = build([member(b"a.dat"), member(b"b.dat")])
    for label, length in {
        "half": len(whole) // 2,
        "end": len(whole) - 22,
        "one": len(whole) - 1,
        "head": 30,
        "four": 4,
    }.items():
        yield Case(f"cut-{label}", 27, REFUSED, whole[:length])
    yield Case("cut-front", 27, REFUSED, whole[100:])
    yield Case("cut-middle", 27, REFUSED, whole[:40] + whole[90:])


def _programs():
    """As the programs that people use write them."""
    for label, method in {"stored": 0, "deflate": 8, "bzip2": 12, "lzma": 14}.items():
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("case/inputs.in", TEXT)
            archive.writestr("case/empty/", "")
        yield Case(f"python-{label}", 24, OK, out.getvalue(), holds={b"case/inputs.in": TEXT, b"case/empty": "/"})
    out = Unseekable()
    with zipfile.ZipFile(out, "w", 8) as archive:
        archive.writestr("x", TEXT)
    yield Case("python-pipe", 23, OK, out.getvalue(), holds={b"x": TEXT})
    mac = [
        member(
            b"case/x.dat",
            flags=8,
            host=DARWIN,
            local={"crc": 0, "packed": 0, "unpacked": 0},
            descriptor=b"PK\7\x08" + bytes(12),
        ),
        member(b"__MACOSX/", b"", method=0, mode=FOLDER),
        member(b"__MACOSX/case/._x.dat", bytes(82)),
    ]
    yield Case("macos", 23, OK, build(mac), holds={b"case/x.dat": TEXT, b"__MACOSX": "/"})
    java = [
        member(b"META-INF/", b"", method=0, extra=field(0xCAFE, b""), host=FAT),
        member(b"META-INF/MANIFEST.MF", host=FAT, flags=0x808),
    ]
    yield Case("java", 22, OK, build(java), holds={b"META-INF/MANIFEST.MF": TEXT})
    golang = [member(b"dir/", b"", method=0, host=FAT), member(b"dir/x", flags=8, host=FAT, attributes=0)]
    yield Case("go", 23, OK, build(golang), holds={b"dir/x": TEXT})
    seven = [
        member(
            b"x",
            extra=field(0x0A, struct.pack("<IHHQQQ", 0, 1, 24, 133_000_000_000_000_000, 0, 0)),
            host=FAT,
            attributes=0x20,
        )
    ]
    yield Case("7-zip", 14, OK, build(seven), holds={b"x": TEXT})
    attributes = 0x8020 | FILE << 16
    yield Case("p7zip", 13, OK, build([member(b"x", attributes=attributes)]), holds={b"x": TEXT})
    yield Case("two-large-stored", 17, OK, build([member(b"big", bytes(range(256)) * 30000, method=0), member(b"z")]))


def crowd(size, **end):
    """A zip of *size* empty files."""
    return build([member(b"%d" % i, b"", method=0) for i in range(size)], **end)


class Unseekable(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError

    def tell(self):
        raise OSError


def cases():
    """The whole table, made afresh."""
    groups = (
        _names,
        _texts,
        _duplicates,
        _links,
        _types,
        _sizes,
        _overlaps,
        _ends,
        _wide,
        _locals,
        _refused_kinds,
        _programs,
    )
    return [case for group in groups for case in group()]
