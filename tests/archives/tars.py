"""Tars as people and programs make them, and as nobody should: each with its verdict and the rule it exercises.

``entry(...)`` is one header with its body, any field overridden, the checksum right unless told otherwise;
``cases()`` is the table. Rules as in ``zips``, and 12 hard links, 29 types and names of tars, 30 pax and GNU records,
31 checksums, ends and trailers of the codecs.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from typing import NamedTuple

import zstandard

TEXT = b"crank angle, pressure\n" * 30
OK, REFUSED = "ok", "refused"
END = bytes(1024)


class Case(NamedTuple):
    id: str
    rule: int
    verdict: str
    content: bytes
    says: str = ""
    holds: dict = {}  # noqa: RUF012
    name: str = "case.tar"


def entry(
    name=b"a.dat", content=TEXT, *, kind=b"0", link=b"", mode=b"0000644", size=None, mtime=b"14000000000", magic=b"ustar\x0000",
    prefix=b"", checksum=None, signed=False,
):  # fmt: skip
    """One header block and its padded body. *size*: the raw field, or a number."""
    size = len(content) if size is None else size
    field = b"%011o\0" % size if isinstance(size, int) else size
    block = bytearray(512)
    places = ((0, name), (100, mode), (108, b"0000000"), (116, b"0000000"), (124, field), (136, mtime), (156, kind), (157, link),
              (257, magic), (345, prefix))  # fmt: skip
    for at, value in places:
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    total = sum(byte - 256 if byte > 127 and signed else byte for byte in block)
    block[148:156] = checksum if checksum is not None else b"%06o\0 " % total
    return bytes(block) + content + bytes(-len(content) % 512)


def record(key, value):
    """One pax record: its length counts itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def pax(*records, kind=b"x"):
    return entry(b"PaxHeaders/x", b"".join(record(k, v) for k, v in records), kind=kind)


def long_name(name, kind=b"L"):
    return entry(b"././@LongLink", name + b"\0", kind=kind, magic=b"ustar  \0")


def tar(*parts):
    return b"".join(parts) + END


def folder(name):
    return entry(name, b"", kind=b"5", mode=b"0000755")


def link(name, target, kind=b"2"):
    return entry(name, b"", kind=kind, link=target)


def _names():
    bad = {
        "up": b"../x", "middle": b"a/../../x", "inside": b"a/../x", "absolute": b"/etc/passwd", "slashes": b"//x", "drive": b"C:/x",
        "backslash-up": b"..\\x", "empty": b"", "dot": b".", "nothing": b"./.", "folder-up": b"../",
    }  # fmt: skip
    for label, name in bad.items():
        yield Case(f"name-{label}", 29, REFUSED, tar(entry(b"good"), entry(name)))
    yield Case("name-long-up", 30, REFUSED, tar(long_name(b"a/" * 80 + b"../x"), entry()), "'..'")
    yield Case("name-pax-up", 30, REFUSED, tar(pax((b"path", b"../x")), entry()), "'..'")
    yield Case("name-pax-absolute", 30, REFUSED, tar(pax((b"path", b"/x")), entry()), "absolute")
    yield Case("name-prefix-up", 29, REFUSED, tar(entry(b"x", prefix=b"..")), "'..'")
    yield Case("name-too-long", 6, REFUSED, tar(pax((b"path", b"x" * 256)), entry()), "longer")
    yield Case("name-too-deep", 6, REFUSED, tar(pax((b"path", b"d/" * 101 + b"x")), entry()), "longer")
    good = {
        "dot-slash": (b"./a/x", b"a/x"),
        "latin-1": (b"Zylinder_\xfc", b"Zylinder_\xfc"),
        "control": (b"a\x1b[2Jb\n", b"a\x1b[2Jb\n"),
        "backslash": (b"a\\b", b"a\\b"),
        "dash": (b"-rf", b"-rf"),
    }
    for label, (name, path) in good.items():
        yield Case(f"name-good-{label}", 29, OK, tar(entry(name)), holds={path: TEXT})
    yield Case("name-100-bytes", 29, OK, tar(entry(b"x" * 100)), holds={b"x" * 100: TEXT})
    yield Case("name-prefix", 29, OK, tar(entry(b"x", prefix=b"p/q")), holds={b"p/q/x": TEXT})
    yield Case(
        "name-gnu-no-prefix", 29, OK, tar(entry(b"x", prefix=b"14000000000", magic=b"ustar  \0")), holds={b"x": TEXT}
    )
    yield Case("top-folder", 29, OK, tar(folder(b"./"), entry(b"./x")), holds={b"x": TEXT})


def _twice():
    yield Case("twice", 8, REFUSED, tar(entry(b"x"), entry(b"./x")), "twice")
    yield Case("twice-folder", 8, OK, tar(folder(b"d/"), folder(b"d"), entry(b"d/x")), holds={b"d/x": TEXT})
    yield Case("file-then-below", 8, REFUSED, tar(entry(b"d"), entry(b"d/x")), "below")
    yield Case("below-then-file", 8, REFUSED, tar(entry(b"d/x"), entry(b"d")), "at once")
    yield Case("folder-then-file", 8, REFUSED, tar(folder(b"d"), entry(b"d")), "at once")
    yield Case("link-then-below", 10, REFUSED, tar(link(b"d", b"."), entry(b"d/x")), "below")
    yield Case("link-then-folder", 10, REFUSED, tar(link(b"d", b"e"), folder(b"d")), "at once")
    yield Case("link-twice", 10, REFUSED, tar(link(b"d", b"e"), link(b"d", b"f")), "twice")
    yield Case("link-then-file", 10, REFUSED, tar(link(b"d", b"e"), entry(b"d")), "twice")


def _links():
    out = {"absolute": b"/etc", "up": b"..", "far": b"a/../../x", "middle": b"a/../x", "empty": b"", "slashes": b"//x"}
    for label, target in out.items():
        yield Case(f"link-{label}", 11, REFUSED, tar(entry(b"good"), link(b"l", target)), "link")
    yield Case("link-pax-up", 11, REFUSED, tar(pax((b"linkpath", b"../../x")), link(b"l", b"x")), "link")
    yield Case("link-long-up", 11, REFUSED, tar(long_name(b"../" * 50 + b"x", b"K"), link(b"l", b"x")), "link")
    yield Case("link-endless", 11, REFUSED, tar(pax((b"linkpath", b"x" * 4096)), link(b"l", b"x")), "link")
    yield Case("link-inside", 11, OK, tar(entry(b"a/x"), link(b"b/l", b"../a/x")), holds={b"b/l": "-> ../a/x"})
    yield Case("link-with-size", 29, REFUSED, tar(entry(b"l", kind=b"2", link=b"x")), "of its own")
    yield Case("hard", 12, OK, tar(entry(b"a/x"), link(b"y", b"a/x", b"1")), holds={b"a/x": TEXT, b"y": TEXT})
    yield Case("hard-dot-slash", 12, OK, tar(entry(b"./a/x"), link(b"./y", b"./a/x", b"1")), holds={b"y": TEXT})
    yield Case(
        "hard-of-hard", 12, OK, tar(entry(b"x"), link(b"y", b"x", b"1"), link(b"z", b"y", b"1")), holds={b"z": TEXT}
    )
    bad = {
        "absolute": b"/etc/passwd",
        "up": b"../x",
        "missing": b"nowhere",
        "itself": b"y",
        "folder": b"d",
        "empty": b"",
        "link": b"l",
    }
    for label, target in bad.items():
        yield Case(f"hard-{label}", 12, REFUSED, tar(folder(b"d"), link(b"l", b"d"), link(b"y", target, b"1")))
    yield Case("hard-later", 12, REFUSED, tar(link(b"y", b"x", b"1"), entry(b"x")), "no earlier file")
    yield Case("hard-overwritten", 12, REFUSED, tar(entry(b"x"), link(b"y", b"x", b"1"), entry(b"y")), "twice")
    yield Case("hard-with-size", 29, REFUSED, tar(entry(b"x"), entry(b"y", kind=b"1", link=b"x")), "of its own")


def _types():
    for kind, label in {b"3": "char", b"4": "block", b"6": "fifo", b"S": "sparse", b"M": "volume", b"N": "names", b"D": "dump",
                     b"Z": "unknown", b"9": "nine", b" ": "blank"}.items():  # fmt: skip
        yield Case(f"type-{label}", 29, REFUSED, tar(entry(b"x", kind=kind)), "'x'")
    for kind, label in {b"\0": "v7", b"7": "contiguous"}.items():
        yield Case(f"type-{label}", 29, OK, tar(entry(b"x", kind=kind)), holds={b"x": TEXT})
    yield Case("type-v7-folder", 29, OK, tar(entry(b"d/", b"", kind=b"\0", magic=b"")), holds={b"d": "/"})
    yield Case("type-folder-with-size", 29, REFUSED, tar(entry(b"d", kind=b"5")), "of its own")
    yield Case("type-label", 29, OK, tar(entry(b"label", b"", kind=b"V"), entry(b"x")), holds={b"x": TEXT})
    for mode in (b"0004777", b"0000000", b"0177777", b""):
        yield Case(f"mode-{mode.decode()}", 14, OK, tar(entry(b"x", mode=mode)), holds={b"x": TEXT})
    for label, mtime in {
        "empty": b"",
        "letters": b"not a number",
        "late": b"77777777777",
        "negative": b"\xff" * 12,
        "binary": b"\x80" + bytes(11),
    }.items():
        yield Case(f"time-{label}", 14, OK, tar(entry(b"x", mtime=mtime)), holds={b"x": TEXT})
    for value in (b"-1", b"1.5", b"nan", b"1e99", b"9" * 40):
        yield Case(
            f"time-pax-{value[:5].decode()}", 14, OK, tar(pax((b"mtime", value)), entry(b"x")), holds={b"x": TEXT}
        )


def _records():
    long = b"d" * 120 + b"/" + b"e" * 120
    yield Case("gnu-long", 30, OK, tar(long_name(long), entry()), holds={long: TEXT})
    yield Case(
        "gnu-long-both",
        30,
        OK,
        tar(long_name(long), long_name(b"t" * 200, b"K"), link(b"x", b"y")),
        holds={long: "-> " + "t" * 200},
    )
    yield Case("gnu-long-twice", 30, REFUSED, tar(long_name(b"a"), long_name(b"b"), entry()), "twice")
    yield Case("gnu-long-empty", 30, REFUSED, tar(long_name(b""), entry()), "empty")
    yield Case("gnu-long-nul", 30, REFUSED, tar(long_name(b"a\0b"), entry()), "NUL")
    yield Case("gnu-long-huge", 30, REFUSED, tar(entry(b"l", b"x" * (2 << 20), kind=b"L"), entry()), "record")
    yield Case(
        "gnu-long-endless",
        30,
        REFUSED,
        tar(entry(b"l", b"", kind=b"L", size=b"\x80" + bytes(3) + b"\x7f" + bytes(7))),
        "record",
    )
    yield Case("gnu-long-leads-nothing", 30, REFUSED, tar(long_name(b"a")), "leads no entry")
    yield Case("pax-leads-nothing", 30, REFUSED, tar(pax((b"path", b"a"))), "leads no entry")
    yield Case("pax-name", 30, OK, tar(pax((b"path", long)), entry()), holds={long: TEXT})
    yield Case("pax-unicode", 30, OK, tar(pax((b"path", "ü/ß".encode())), entry()), holds={"ü/ß".encode(): TEXT})
    yield Case(
        "pax-one-entry-only",
        30,
        OK,
        tar(pax((b"path", b"p")), entry(b"a"), entry(b"b")),
        holds={b"p": TEXT, b"b": TEXT},
    )
    yield Case("pax-size", 30, OK, tar(pax((b"size", b"660")), entry(size=0)), holds={b"a.dat": TEXT})
    # The header of the long name is not what the pax size speaks of (CVE-2025-62518).
    tarmageddon = tar(pax((b"size", b"660")), long_name(b"n" * 120), entry(size=0))
    yield Case("pax-size-then-long-name", 30, OK, tarmageddon, holds={b"n" * 120: TEXT})
    smuggled = tar(pax((b"size", b"0")), entry(b"outer", tar(entry(b"inner"))), entry(b"after"))
    yield Case("pax-size-smuggles", 30, REFUSED, tar(pax((b"size", b"3")), entry(b"outer", tar(entry(b"inner")))))
    yield Case("pax-size-zero-shows-inner", 30, REFUSED, smuggled)
    for label, value in {
        "negative": b"-1",
        "letters": b"abc",
        "endless": b"9" * 30,
        "huge": b"9" * 19,
        "empty": b"",
    }.items():
        yield Case(f"pax-size-{label}", 30, REFUSED, tar(pax((b"size", value)), entry()))
    yield Case("pax-nul-in-path", 30, REFUSED, tar(pax((b"path", b"a\0b")), entry()), "damaged")
    yield Case("pax-nul-in-link", 30, REFUSED, tar(pax((b"linkpath", b"a\0b")), link(b"l", b"x")), "damaged")
    yield Case("pax-twice", 30, REFUSED, tar(pax((b"path", b"a")), pax((b"path", b"b")), entry()), "two pax")
    yield Case("pax-key-twice", 30, REFUSED, tar(pax((b"path", b"a"), (b"path", b"b")), entry()), "damaged")
    damaged = {
        "length": b"99 path=a\n",
        "no-length": b"path=a\n",
        "short": b"3 path=a\n",
        "no-equals": b"8 patha\n",
        "no-newline": b"9 path=ab",
        "minus": b"-9 path=a\n",
        "zero": b"0 path=a\n",
        "key": b"5 =a\n",
    }
    for label, body in damaged.items():
        yield Case(f"pax-damaged-{label}", 30, REFUSED, tar(entry(b"x", body, kind=b"x"), entry()), "damaged")
    yield Case("pax-huge", 30, REFUSED, tar(pax((b"comment", b"x" * (2 << 20))), entry()), "record")
    yield Case(
        "pax-global-comment", 30, OK, tar(pax((b"comment", b"0f3a"), kind=b"g"), entry(b"x")), holds={b"x": TEXT}
    )
    for key in (b"path", b"size", b"linkpath"):
        yield Case(
            f"pax-global-{key.decode()}", 30, REFUSED, tar(pax((key, b"3"), kind=b"g"), entry()), "all that follows"
        )
    yield Case("pax-sparse", 30, REFUSED, tar(pax((b"GNU.sparse.major", b"1")), entry()), "sparse")
    oldest = pax(*((b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"9")) * 2)
    yield Case("pax-sparse-oldest", 30, REFUSED, tar(oldest, entry()), "sparse")
    yield Case("pax-solaris", 30, OK, tar(pax((b"path", b"p"), kind=b"X"), entry()), holds={b"p": TEXT})


def _numbers():
    binary = (660).to_bytes(12, "big")
    yield Case("size-binary", 30, OK, tar(entry(size=b"\x80" + binary[1:])), holds={b"a.dat": TEXT})
    for label, size in {
        "negative": b"\xff" * 12,
        "endless": b"\x80" + b"\xff" * 11,
        "letters": b"hello",
        "eight": b"00000000008",
        "minus": b"-1",
    }.items():
        yield Case(f"size-{label}", 30, REFUSED, tar(entry(size=size)))
    yield Case("size-after-nul", 30, REFUSED, tar(entry(size=b"\0001224")), "no number")
    yield Case("size-then-rest", 30, OK, tar(entry(size=b"1224\0rest")), holds={b"a.dat": TEXT})
    yield Case("size-blanks", 30, OK, tar(entry(size=b"      1224 \0")), holds={b"a.dat": TEXT})
    yield Case("size-more-than-there-is", 31, REFUSED, tar(entry(size=1 << 20)), "cut off")
    yield Case("size-8-gib", 31, REFUSED, tar(entry(size=b"77777777777")), "times")
    yield Case("checksum-wrong", 31, REFUSED, tar(entry(b"good"), entry(checksum=b"000001\0 ")), "checksum")
    yield Case("checksum-empty", 31, REFUSED, tar(entry(b"good"), entry(checksum=bytes(8))), "checksum")
    yield Case("checksum-letters", 31, REFUSED, tar(entry(b"good"), entry(checksum=b"abcdefgh")), "checksum")
    rest = b"%06o\0008" % (sum(entry()[:148]) + sum(entry()[156:512]) + 8 * 32)
    yield Case("checksum-then-rest", 31, OK, tar(entry(checksum=rest)), holds={b"a.dat": TEXT})
    yield Case("checksum-signed", 31, OK, tar(entry("ü".encode(), signed=True)), holds={"ü".encode(): TEXT})


def _ends():
    good, holds = tar(entry(b"a"), entry(b"b")), {b"a": TEXT, b"b": TEXT}
    yield Case("end", 31, OK, good, holds=holds)
    yield Case("end-blocked", 31, OK, good + bytes(10240 - len(good) % 10240), holds=holds)
    yield Case("end-one-block", 31, OK, good[:-512], holds=holds)
    yield Case("end-missing", 31, REFUSED, good[:-1024], "no end blocks")
    yield Case("end-half-block", 31, REFUSED, good[:-700], "no end blocks")
    yield Case("end-in-body", 31, REFUSED, good[:1300], "cut off")
    yield Case("end-in-header", 31, REFUSED, good[:1800], "no end blocks")
    yield Case("end-in-padding", 31, REFUSED, good[: 512 + 661], "cut off")
    yield Case("end-then-junk", 31, REFUSED, good + b"junk", "follow")
    yield Case("end-then-tar", 31, REFUSED, good + tar(entry(b"c")), "follow")
    yield Case("end-empty", 26, OK, END)
    yield Case("not-empty", 26, REFUSED, b"", "0 bytes")
    yield Case("not-xml", 26, REFUSED, b"<?xml version='1.0'?><Error/>" + bytes(500), "XML")
    yield Case("not-gzip", 26, REFUSED, gzip.compress(good), "gzip")
    yield Case("not-zip", 26, REFUSED, b"PK\3\4" + bytes(600), "zip")
    yield Case("not-header", 31, REFUSED, tar(entry(checksum=b"000001\0 ")), "checksum")
    yield Case("not-short", 26, REFUSED, b"hello")
    yield Case("nested", 28, OK, tar(entry(b"inner.tar", good)), holds={b"inner.tar": good})


def _codecs():
    good, holds = tar(entry(b"a"), entry(b"b/c", bytes(70_000) + TEXT)), {b"a": TEXT}
    packed = {
        "tar.gz": gzip.compress(good),
        "tgz": gzip.compress(good),
        "tar.bz2": bz2.compress(good),
        "tar.xz": lzma.compress(good),
        "tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress(good),
        "TAR.GZ": gzip.compress(good),
    }
    two = {"tar.gz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress, "tar.zst": zstandard.compress}
    for suffix, content in packed.items():
        name = f"case.{suffix}"
        yield Case(f"{suffix}", 31, OK, content, holds=holds, name=name)
        yield Case(f"{suffix}-cut-1", 31, REFUSED, content[:-1], name=name)
        yield Case(f"{suffix}-cut-4", 31, REFUSED, content[:-4], name=name)
        yield Case(f"{suffix}-cut-half", 31, REFUSED, content[: len(content) // 2], name=name)
        yield Case(f"{suffix}-junk", 31, REFUSED, content + b"junk", name=name)
        yield Case(f"{suffix}-not", 26, REFUSED, good, "tar", name=name)
        trailer = bytearray(content)
        trailer[-6 if suffix.lower() in ("tar.gz", "tgz") else -2] ^= 1
        yield Case(f"{suffix}-wrong-trailer", 31, REFUSED, bytes(trailer), name=name)
    for suffix, pack in two.items():
        name = f"case.{suffix}"
        yield Case(f"{suffix}-two", 31, OK, pack(good[:1000]) + pack(good[1000:]), holds=holds, name=name)
        yield Case(f"{suffix}-two-second-cut", 31, REFUSED, pack(good[:1000]) + pack(good[1000:])[:-5], name=name)
        yield Case(
            f"{suffix}-many",
            31,
            OK,
            b"".join(pack(good[i : i + 3000]) for i in range(0, len(good), 3000)),
            holds=holds,
            name=name,
        )
        yield Case(f"{suffix}-second-is-empty", 31, OK, pack(good) + pack(b""), holds=holds, name=name)
        yield Case(f"{suffix}-holds-text", 31, REFUSED, pack(b"hello, no tar" * 100), name=name)
    yield Case("tar.gz-zeros", 31, OK, packed["tar.gz"] + bytes(512), holds=holds, name="case.tar.gz")
    yield Case("tar.gz-zeros-junk", 31, REFUSED, packed["tar.gz"] + bytes(512) + b"x", name="case.tar.gz")
    wide = lzma.compress(good, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}])
    yield Case("tar.xz-window", 15, REFUSED, wide, "128 MiB", name="case.tar.xz")
    padded = lzma.compress(good[:1000]) + bytes(8) + lzma.compress(good[1000:]) + bytes(4)
    yield Case("tar.xz-padded", 31, OK, padded, holds=holds, name="case.tar.xz")
    yield Case("tar.xz-padded-junk", 31, REFUSED, padded + b"junk", name="case.tar.xz")
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    yield Case("tar.zst-skippable", 31, OK, skippable + packed["tar.zst"] + skippable, holds=holds, name="case.tar.zst")
    yield Case("tar.zst-skippable-cut", 31, REFUSED, packed["tar.zst"] + skippable[:-2], name="case.tar.zst")
    yield Case("tar.zst-window", 15, REFUSED, b"\x28\xb5\x2f\xfd\x00\xf8" + b"\1\0\0", "128 MiB", name="case.tar.zst")
    size = 3 << 30
    huge = entry(b"zeros", b"", size=b"%011o\0" % size)
    bomb = zstandard.ZstdCompressor(1).compress(huge + bytes(64 << 20))
    yield Case("tar.zst-bomb", 15, REFUSED, bomb, "times", name="case.tar.zst")


def _programs():
    for layout, label in ((tarfile.USTAR_FORMAT, "ustar"), (tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "pax")):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=layout) as archive:
            for name in ("case", "case/d"):
                member = tarfile.TarInfo(name)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            for name in ("case/x", "case/d/" + "n" * 90, "y" * 60 + "/" + "z" * 80):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(TEXT), 1_700_000_000.25 if label == "pax" else 1_700_000_000
                archive.addfile(member, io.BytesIO(TEXT))
        long = b"y" * 60 + b"/" + b"z" * 80
        yield Case(f"python-{label}", 30, OK, out.getvalue(), holds={b"case/x": TEXT, long: TEXT, b"case/d": "/"})


def cases():
    """The whole table, made afresh."""
    groups = (_names, _twice, _links, _types, _records, _numbers, _ends, _codecs, _programs)
    return [case for group in groups for case in group()]
