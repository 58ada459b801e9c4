"""The bill of materials beside the file: CycloneDX 1.6, JSON, from the lock and what the installed wheels say of themselves.

    each distribution: name, version, licence, package URL, the Pythons it is carried for -> within it what it bundles (C
    libraries, the CA list, modules of others) -> one document, the same bytes for the same parts

It carries no time and no random number: two builds give one document. Not promised: where in a C library a bundler made changes.
"""

from __future__ import annotations

import email.parser
import hashlib
import json
import uuid

FORMAT = "CycloneDX"
VERSION = "1.6"

# (distribution, its version or "" for any) -> what it bundles: (name, version, licence, package URL, what for). A version that
# is not known here stops the build: a new wheel may bundle a new library.
BUNDLED = {
    ("zstandard", "0.25.0"): [
        ("zstd", "1.5.7", "BSD-3-Clause", "pkg:github/facebook/zstd@v1.5.7", "compiled into its native module"),
    ],
    ("isal", "1.9.1"): [
        ("isa-l", "2.32.1", "BSD-3-Clause", "pkg:github/intel/isa-l@v2.32.1", "compiled into its native modules"),
    ],
    ("psutil", ""): [
        ("psutil-native", "", "BSD-3-Clause", "", "C of the project itself, no library of others"),
    ],
    ("botocore", ""): [
        ("cacert.pem", "", "MPL-2.0", "", "Mozilla's list of certificate authorities, as botocore ships it"),
        ("six", "1.16.0", "MIT", "pkg:pypi/six@1.16.0", "botocore.vendored.six"),
        ("requests", "", "Apache-2.0", "pkg:pypi/requests", "the exceptions alone: botocore.vendored.requests"),
    ],
}  # fmt: skip
BUNDLERS = frozenset(name for name, _ in BUNDLED)

# What older metadata says in words of its own.
SPOKEN = {
    "Apache License 2.0": "Apache-2.0",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",  # python-dateutil, as its LICENSE says
}


def document(*, carried: dict, version: str, file_sha256: str, licence: str) -> bytes:
    """The document for a built file with that digest. SystemExit if a part names no licence, or may bundle what nobody listed."""
    pythons: dict[tuple[str, str], list[str]] = {}
    for python, packages in carried["packages"].items():
        for name, its_version in packages.items():
            pythons.setdefault((name, its_version), []).append(python)
    components = [
        component(name=name, version=its_version, pythons=pythons[name, its_version], metadata=carried["metadata"])
        for name, its_version in sorted(pythons)
    ]
    own = {
        "type": "application",
        "bom-ref": "byos-run@" + version,
        "name": "byos-run",
        "version": version,
        "licenses": licences(licence),
        "hashes": [{"alg": "SHA-256", "content": file_sha256}],
    }
    text = json.dumps([own, components], sort_keys=True)
    made = {
        "bomFormat": FORMAT,
        "specVersion": VERSION,
        "serialNumber": "urn:uuid:%s" % uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4),
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": [
            {"ref": own["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]},
            *({"ref": each["bom-ref"], "dependsOn": within(each)} for each in components),
        ],
    }
    return (json.dumps(made, indent=1, sort_keys=True) + "\n").encode()


def component(*, name: str, version: str, pythons: list[str], metadata: dict[tuple[str, str], bytes]) -> dict:
    """One distribution, with what it bundles inside it."""
    said = email.parser.BytesHeaderParser().parsebytes(metadata[name, version])
    real = said["Name"]
    url = "pkg:pypi/%s@%s" % (real.lower().replace("_", "-"), version)
    made = {
        "type": "library",
        "bom-ref": url,
        "name": real,
        "version": version,
        "purl": url,
        "licenses": licences(licence_of(said)),
        "properties": [{"name": "byos-run:cpython", "value": python} for python in pythons],
    }
    inside = [part(each, within=url) for each in bundled(name, version)]
    return {**made, "components": inside} if inside else made


def part(each: tuple[str, str, str, str, str], *, within: str) -> dict:
    name, version, licence, url, what_for = each
    made = {
        "type": "data" if name.endswith(".pem") else "library",
        "bom-ref": "%s#%s" % (within, name),
        "name": name,
        "licenses": licences(licence),
        "description": what_for,
    }
    made.update({key: value for key, value in (("version", version), ("purl", url)) if value})
    return made


def within(made: dict) -> list[str]:
    return [each["bom-ref"] for each in made.get("components", ())]


def bundled(name: str, version: str) -> list:
    """What this version bundles. SystemExit if only other versions of it are known."""
    if name not in BUNDLERS:
        return []
    found = BUNDLED.get((name, version), BUNDLED.get((name, "")))
    if found is None:
        raise SystemExit(
            "packaging/sbom.py does not know what %s %s bundles: look, and name it there" % (name, version)
        )
    return found


def licence_of(said) -> str:
    """The SPDX expression of a wheel's metadata."""
    text = said["License-Expression"] or said["License"] or ""
    if not text or "\n" in text:
        raise SystemExit("%s says no licence that packaging/sbom.py can read" % said["Name"])
    return SPOKEN.get(text, text)


def licences(expression: str) -> list[dict]:
    if " OR " in expression or " AND " in expression:
        return [{"expression": expression}]
    return [{"license": {"id": expression}}]
