"""What of the installed libraries travels: which files, the service models without their texts, natives without symbols."""

from __future__ import annotations

import fnmatch
import json
import struct

# Never imported here: other systems, other backends, optional extras whose own needs are not carried either.
DROPPED = (
    "bin/*", "*.pyi", "*/py.typed", "*/__pycache__/*", "*.dist-info/*", "isal/isa-l/*", "isal/igzip.py", "isal/igzip_threaded.py",
    "psutil/_psbsd.py", "psutil/_psosx.py", "psutil/_pssunos.py", "psutil/_pswindows.py", "psutil/_psaix.py",
    "zstandard/_cffi*", "zstandard/backend_cffi.py",
    "urllib3/contrib/emscripten/*", "urllib3/contrib/_securetransport/*", "urllib3/contrib/pyopenssl.py",
    "urllib3/contrib/securetransport.py", "urllib3/contrib/socks.py", "urllib3/contrib/ntlmpool.py",
    "urllib3/contrib/appengine.py",
    "boto3/dynamodb/*", "boto3/ec2/*", "boto3/examples/*", "s3transfer/crt.py", "s3transfer/processpool.py",
    "botocore/crt/auth.py", "dateutil/zoneinfo/*", "dateutil/rrule.py", "dateutil/easter.py",
)  # fmt: skip

# The services that are called, and those that botocore's own credential providers call.
SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")
ENDPOINTS = ("s3", "sts", "portal.sso", "oidc", "signin")
SHARED_DATA = ("endpoints.json", "partitions.json", "sdk-default-configuration.json", "_retry.json")


def travels(path: str) -> bool:
    """Whether the file at ``path`` (relative to the installed tree) is carried."""
    if any(fnmatch.fnmatchcase(path, pattern) for pattern in DROPPED):
        return False
    parts = path.split("/")
    if parts[:2] == ["botocore", "data"]:
        wanted = parts[2] in SHARED_DATA if len(parts) == 3 else parts[2] in SERVICES
        return wanted and not parts[-1].startswith("examples-")
    if parts[:2] == ["boto3", "data"]:
        return parts[2] == "s3"
    return True


def is_licence(path: str) -> bool:
    name = path.rsplit("/", 1)[-1].upper()
    return (".dist-info/" in path or path.startswith("isal/isa-l/")) and name.startswith(
        ("LICENSE", "LICENCE", "COPYING", "NOTICE", "AUTHORS")
    )


def trimmed(*, path: str, content: bytes) -> bytes:
    """The bytes that travel for the file at ``path``."""
    if path.endswith(".so"):
        return without_symbols(content)
    if path.startswith(("botocore/data/", "boto3/data/")) and path.endswith(".json"):
        data = json.loads(content)
        if path == "botocore/data/endpoints.json":
            for partition in data["partitions"]:
                services = partition["services"]
                partition["services"] = {name: services[name] for name in services if name in ENDPOINTS}
        blank_texts(data)
        return json.dumps(data, separators=(",", ":")).encode()
    return content


def blank_texts(data: object) -> None:
    """Blanks every ``documentation`` text. botocore reads the key itself when it serves a call, so it must stay."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "documentation" and isinstance(value, str):
                data[key] = ""
            else:
                blank_texts(value)
    elif isinstance(data, list):
        for value in data:
            blank_texts(value)


def without_symbols(content: bytes) -> bytes:
    """A shared object without section headers and all that lies behind the last loaded segment.

    The loader reads program headers alone (ELF-64, little-endian), so symbols for debuggers go without a `strip` of
    each processor on the builder, and to the same bytes everywhere.
    """
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("a native module is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", content, 32)
    entry_bytes, entries = struct.unpack_from("<HH", content, 54)
    end = table + entry_bytes * entries
    for number in range(entries):
        (offset,) = struct.unpack_from("<Q", content, table + number * entry_bytes + 8)
        (size,) = struct.unpack_from("<Q", content, table + number * entry_bytes + 32)
        end = max(end, offset + size)
    kept = bytearray(content[:end])
    struct.pack_into("<Q", kept, 40, 0)
    struct.pack_into("<HHH", kept, 58, 0, 0, 0)
    return bytes(kept)
