"""Builds dist/byos-run: ``python3 packaging/build.py``; ``--lock`` refreshes the lock instead.

    interpreters of this builder -> libraries as the lock names them, trimmed and compiled -> the program's own modules
    -> parts -> one file, its bill of materials and SHA256SUMS beside it

Needs CPython 3.9 or newer and, the first time, a package index; nothing else. Two builds with the same set of
interpreters and the same zlib give the same bytes, whatever the time, the umask or the place.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile

import libraries
import natives
import pack
import sbom
import stage
from pythons import MACHINES, PYTHONS, installed, tag

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = ("byos_run/node/shim.py",)
"""Modules of ours that are started by their path."""
TOP = os.path.dirname(HERE)
LICENCE = "Apache-2.0"


def main() -> None:
    options = arguments()
    if options.lock:
        stage.relock()
        return
    interpreters = installed()
    carried = libraries.libraries(interpreters)
    sources = program(options.package)
    with tempfile.TemporaryDirectory() as scratch:
        parts = made(carried=carried, sources=sources, interpreters=interpreters, scratch=scratch)
    index = described(carried=carried, sources=sources, interpreters=interpreters, parts=parts)
    parts["index.json"] = (json.dumps(index, indent=1, sort_keys=True) + "\n").encode()
    os.makedirs(os.path.dirname(options.output), exist_ok=True)
    pack.written(path=options.output, header=header(), parts=parts, texts=texts(carried))
    accompanied(options.output, carried=carried, version=index["byos-run"])
    said(options.output, interpreters)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="build dist/byos-run")
    parser.add_argument("--lock", action="store_true", help="refresh packaging/lock from requirements.in and stop")
    parser.add_argument("--package", default=os.path.join(TOP, "agent", "byos_run"), help="the package to carry")
    parser.add_argument("--output", default=os.path.join(TOP, "dist", "byos-run"), help="the file to write")
    options = parser.parse_args()
    options.package, options.output = os.path.abspath(options.package), os.path.abspath(options.output)
    return options


def program(package: str) -> dict[str, bytes]:
    """Path -> source of the program's own modules."""
    sources = {}
    for directory, folders, files in os.walk(package):
        folders[:] = sorted(folder for folder in folders if folder != "__pycache__")
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                sources["byos_run/" + os.path.relpath(path, package).replace(os.sep, "/")] = content(path)
    return sources


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def made(*, carried: dict, sources: dict[str, bytes], interpreters: dict, scratch: str) -> dict[str, bytes]:
    """Name -> bytes of every part."""
    boot, private = content(os.path.join(HERE, "boot.py")), content(os.path.join(HERE, "private.py"))
    parts = {"__main__.py": content(os.path.join(HERE, "door.py")), "boot/source": libraries.squeezed(boot)}
    texts = {path: libraries.squeezed(source) for path, source in sources.items()}
    parts["own"] = pack.plain_part(texts)
    parts["programs"] = pack.plain_part({path: texts[path] for path in PROGRAMS if path in texts})
    for python in PYTHONS:
        name = tag(python)
        modules = {**sources, "byos_boot.py": boot, "byos_private.py": private}
        if python in interpreters:
            modules = libraries.compiled(
                modules, interpreter=interpreters[python][0], stripped="inner", scratch=scratch
            )
            parts["magic/" + name] = modules.pop("magic")
            parts["dataclasses/" + name] = libraries.squeezed(modules.pop("dataclasses"))
            parts["boot/" + name] = libraries.squeezed(modules["byos_boot.py"])
        del modules["byos_boot.py"]
        words = carried["words"][python]
        own = {path: libraries.deflated(code, words=words) for path, code in modules.items()}
        kind = "code/" if python in interpreters else "source/"
        parts[kind + name] = pack.modules_part({**carried["modules"][python], **own}, words=libraries.squeezed(words))
        parts["data/" + name] = pack.plain_part(carried["data"][python])
        for machine in MACHINES:
            parts["native/%s-%s" % (name, machine)] = pack.files_part(carried["native"][python, machine])
    for machine in MACHINES:
        parts["base/" + machine] = parts["native/%s-%s" % (tag(natives.BASE), machine)]
    return parts


def described(*, carried: dict, sources: dict[str, bytes], interpreters: dict, parts: dict[str, bytes]) -> dict:
    """What the file carries, for people and for ``--version --json``."""
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.encode() + b"\0" + hashlib.sha256(sources[path]).digest())
    return {
        "byos-run": version(sources),
        "sources_sha256": digest.hexdigest(),
        "lock_sha256": hashlib.sha256(content(os.path.join(HERE, "lock"))).hexdigest(),
        "machines": list(MACHINES),
        "pythons": {
            python: {
                "packages": carried["packages"][python],
                "compiled_by": interpreters[python][1] if python in interpreters else "",
            }
            for python in PYTHONS
        },
        "bundled": {
            each[0]: each[1]
            for name, its_version in sorted(carried["metadata"])
            for each in sbom.bundled(name, its_version)
            if each[1]
        },
        "parts": pack.described(parts),
    }


def version(sources: dict[str, bytes]) -> str:
    found = re.search(rb"^__version__ = \"([^\"]+)\"", sources["byos_run/__init__.py"], re.MULTILINE)
    if found is None:
        raise SystemExit("byos_run/__init__.py names no __version__")
    return found.group(1).decode()


def header() -> str:
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    text = content(os.path.join(HERE, "header.sh")).decode()
    for name, value in {
        "OLDEST_PAIR": oldest.replace(".", ", "),
        "NEWEST_PAIR": newest.replace(".", ", "),
        "OLDEST": oldest,
        "NEWEST": newest,
        "MACHINES": " or ".join(MACHINES),
        "NAMES": " ".join("python" + python for python in reversed(PYTHONS)),
    }.items():
        text = text.replace("@%s@" % name, value)
    return text


def texts(carried: dict) -> dict[str, bytes]:
    found = {"licences/" + name: text for name, text in carried["licences"].items()}
    for folder, inside in ((os.path.join(HERE, "licences"), "licences/"), (TOP, "licences/byos-run/")):
        for name in sorted(os.listdir(folder)):
            if folder != TOP or name == "LICENSE":
                found[inside + name] = content(os.path.join(folder, name))
    return found


def accompanied(path: str, *, carried: dict, version: str) -> None:
    """Writes ``<file>.cdx.json`` and SHA256SUMS, which covers both, beside the file."""
    digest = hashlib.sha256(content(path)).hexdigest()
    with open(path + ".cdx.json", "wb") as file:
        file.write(sbom.document(carried=carried, version=version, file_sha256=digest, licence=LICENCE))
    lines = [
        "%s  %s\n" % (hashlib.sha256(content(each)).hexdigest(), os.path.basename(each))
        for each in (path, path + ".cdx.json")
    ]
    with open(os.path.join(os.path.dirname(path), "SHA256SUMS"), "w", encoding="utf-8") as file:
        file.writelines(lines)


def said(path: str, interpreters: dict) -> None:
    digest = hashlib.sha256(content(path)).hexdigest()
    print("%s: %.2f MiB, sha256 %s" % (path, os.path.getsize(path) / 2**20, digest[:16]))
    for python in PYTHONS:
        if python not in interpreters:
            print("CPython %s: not on this machine, so it runs from source (a slower start)" % python)


if __name__ == "__main__":
    sys.exit(main())
