"""What is carried of the libraries, ready to pack: kept in the cache under the digest of all that it depends on."""

from __future__ import annotations

import glob
import hashlib
import marshal
import os
import pickle
import subprocess
import tempfile
import time
import zlib

import natives
import stage
import trim
from pythons import MACHINES, PYTHONS

HERE = os.path.dirname(os.path.abspath(__file__))
TYPICAL = "botocore/session.py"  # saves a twelfth of all byte code as the dictionary of the others
WORDS_BYTES = 32 << 10
WEEK_S = 7 * 24 * 3600


def libraries(interpreters: dict[str, tuple[str, str]]) -> dict:
    """Parts of all libraries: ``words``, ``modules``, ``data``, ``native``, ``licences``, ``packages``, ``metadata``.

    ``words``: version -> what modules are deflated with; ``modules``: version -> path -> see ``deflated``; ``data``:
    version -> path -> zlib bytes; ``native``: (version, processor) -> path -> see
    ``natives.encoded``; ``licences``: name -> text; ``packages``: version -> distribution -> its version;
    ``metadata``: (distribution, version) -> what its wheel says of itself.
    """
    kept = os.path.join(stage.cache(), "libraries-" + digest(interpreters))
    if not os.path.isfile(kept):
        with tempfile.TemporaryDirectory(dir=stage.cache()) as scratch:
            made = collected(trees=stage.staged(scratch), interpreters=interpreters, scratch=scratch)
            new = os.path.join(scratch, "new")
            with open(new, "wb") as file:
                pickle.dump(made, file)
            os.replace(new, kept)
        forget_old(kept)
    with open(kept, "rb") as file:
        return pickle.load(file)


def forget_old(kept: str) -> None:
    """Removes what was kept for locks and builders of more than a week ago."""
    for path in glob.glob(os.path.join(glob.escape(os.path.dirname(kept)), "libraries-*")):
        if path != kept and time.time() - os.path.getmtime(path) > WEEK_S:
            os.unlink(path)


def digest(interpreters: dict[str, tuple[str, str]]) -> str:
    state = hashlib.sha256(repr(sorted((python, full) for python, (_, full) in interpreters.items())).encode())
    for name in ("lock", "libraries.py", "trim.py", "natives.py", "bytecode.py", "pythons.py"):
        with open(os.path.join(HERE, name), "rb") as file:
            state.update(file.read())
    return state.hexdigest()[:32]


def collected(*, trees: dict, interpreters: dict, scratch: str) -> dict:
    made: dict = {"words": {}, "modules": {}, "data": {}, "native": {}, "licences": {}, "packages": {}}
    made["metadata"] = {}
    trees = {target: read(tree) for target, tree in trees.items()}
    for machine in MACHINES:
        made["native"].update(encoded({python: trees[python, machine][0] for python in PYTHONS}, machine=machine))
    for python in PYTHONS:
        for machine in MACHINES:
            made["licences"].update(trees[python, machine][1])
        pure, _, metadata = trees[python, MACHINES[0]]
        made["metadata"].update(metadata)
        made["packages"][python] = dict(sorted(metadata))
        modules = {path: content for path, content in pure.items() if path.endswith(".py")}
        data = {path: content for path, content in pure.items() if not path.endswith((".py", ".so"))}
        if python in interpreters:
            modules = compiled(modules, interpreter=interpreters[python][0], stripped="all", scratch=scratch)
            del modules["magic"], modules["dataclasses"]
        made["data"][python] = {path: squeezed(data[path]) for path in sorted(data)}
        words = made["words"][python] = modules[TYPICAL][:WORDS_BYTES]
        made["modules"][python] = {path: deflated(modules[path], words=words) for path in sorted(modules)}
    return made


def encoded(files: dict[str, dict[str, bytes]], *, machine: str) -> dict:
    """(version, processor) -> path -> encoded native, of all versions' ``files`` for one processor."""
    shared = {path: content for path, content in files[natives.BASE].items() if path.endswith(".so")}
    bases = {natives.stem(path): (path, content) for path, content in shared.items()}
    return {
        (python, machine): {
            path: natives.encoded(content=content, path=path, bases=bases)
            for path, content in sorted(files[python].items())
            if path.endswith(".so")
        }
        for python in PYTHONS
    }


def read(tree: str) -> tuple[dict[str, bytes], dict[str, bytes], dict[tuple[str, str], bytes]]:
    """(path -> trimmed bytes of what travels, name -> licence, (distribution, version) -> metadata) of one installed tree."""
    files, licences, metadata = {}, {}, {}
    for path in sorted(glob.glob(os.path.join(glob.escape(tree), "**"), recursive=True)):
        inside = os.path.relpath(path, tree)
        if not os.path.isfile(path):
            continue
        if trim.is_licence(inside):
            with open(path, "rb") as file:
                licences[inside.replace(".dist-info/", "/").replace("/licenses/", "/")] = file.read()
        elif inside.endswith(".dist-info/METADATA"):
            name, _, version = inside.split("/")[0][: -len(".dist-info")].rpartition("-")
            with open(path, "rb") as file:
                metadata[name, version] = file.read()
        elif trim.travels(inside):
            with open(path, "rb") as file:
                files[inside] = trim.trimmed(path=inside, content=file.read())
    return files, licences, metadata


def compiled(modules: dict[str, bytes], *, interpreter: str, stripped: str, scratch: str) -> dict[str, bytes]:
    """Path -> marshalled code of ``modules`` (path -> source), by ``interpreter``; ``stripped`` and other keys: see bytecode.py."""
    with tempfile.TemporaryDirectory(dir=scratch) as top:
        tree, out = os.path.join(top, "tree"), os.path.join(top, "out")
        for path, content in modules.items():
            target = os.path.join(tree, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
        # Without the column of every instruction, which 3.11 and newer would keep: a third of their bytes. With a fixed
        # hash seed, since 3.9 and 3.10 write a constant set in the order of its hashes.
        command = [interpreter, "-sS", "-X", "no_debug_ranges", os.path.join(HERE, "bytecode.py"), tree, out, stripped]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["PYTHONHASHSEED"] = "0"
        if subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=environment).returncode:
            raise SystemExit("build stopped: " + interpreter + " cannot compile these sources (above)")
        with open(out, "rb") as file:
            return marshal.load(file)


def deflated(content: bytes, *, words: bytes) -> bytes:
    """One module as a raw deflate stream; ``words`` is the dictionary, since small modules say the same things."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zdict=words)
    return squeezer.compress(content) + squeezer.flush()


def squeezed(content: bytes) -> bytes:
    return zlib.compress(content, 9)
