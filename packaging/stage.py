"""Brings what the lock names: every version of Python and every processor has its own installed tree.

uv does the bringing (it evaluates markers for the target, not for the builder). It is itself brought from the package
index into the cache, each step to a name of its own and renamed at the end, so that two builds at once do no harm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from pythons import MACHINES, PYTHONS, tag

UV = "uv==0.13.9"
HERE = os.path.dirname(os.path.abspath(__file__))


def cache() -> str:
    """The builder's cache for this room, outside the checkout."""
    top = os.environ.get("BYOS_DEV_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "byos-run-dev"
    )
    path = os.path.join(os.path.abspath(top), "packaging")
    os.makedirs(path, exist_ok=True)
    return path


def uv() -> str:
    """Path of the pinned uv."""
    kept = os.path.join(cache(), UV.replace("==", "-"))
    path = os.path.join(kept, "bin", "uv")
    if not os.path.isfile(path):
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            new = os.path.join(scratch, "new")
            pip = [*pip_command(scratch), "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
            subprocess.run([*pip, "--no-deps", "--target", new, UV], check=True)
            try:
                os.rename(new, kept)
            except OSError:
                if not os.path.isfile(path):
                    raise
    return path


def pip_command(scratch: str) -> list[str]:
    """A pip: of a fresh environment, else this interpreter's own (Debian packages the two apart)."""
    home = os.path.join(scratch, "venv")
    made = subprocess.run([sys.executable, "-m", "venv", home], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return [os.path.join(home, "bin", "python"), "-m", "pip"]
    own = [sys.executable, "-m", "pip"]
    if subprocess.run([*own, "--version"], capture_output=True, check=False).returncode == 0:
        return own
    raise SystemExit("this python3 has neither venv nor pip: install one (python3-venv)\n" + made.stdout + made.stderr)


def run_uv(*arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PYTHON"))}
    environment.update(UV_CACHE_DIR=os.path.join(cache(), "uv-cache"), UV_PYTHON_DOWNLOADS="never")
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT"):
        environment["SSL_CERT_FILE"] = os.environ.get("SSL_CERT_FILE") or os.environ["PIP_CERT"]
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_NATIVE_TLS", "UV_FIND_LINKS"):
        if name in os.environ:
            environment[name] = os.environ[name]
    subprocess.run([uv(), "--no-config", *arguments], check=True, env=environment)


def relock() -> None:
    """Writes ``lock`` anew from ``requirements.in``: one file of pins with hashes for all versions of Python."""
    run_uv(
        *("pip", "compile", "--quiet", "--universal", "--upgrade", "--python-version", PYTHONS[0]),
        *("--generate-hashes", "--only-binary", ":all:", "--no-header", "--no-annotate"),
        *("--output-file", os.path.join(HERE, "lock"), os.path.join(HERE, "requirements.in")),
    )


def staged(top: str) -> dict[tuple[str, str], str]:
    """Installs the lock below ``top``; (version, processor) -> the tree."""
    trees = {}
    for python in PYTHONS:
        for machine in MACHINES:
            tree = os.path.join(top, "%s-%s" % (tag(python), machine))
            run_uv(
                *("pip", "install", "--quiet", "--python", sys.executable, "--target", tree),
                *("--python-version", python, "--python-platform", machine + "-manylinux2014"),
                *("--require-hashes", "--only-binary", ":all:", "--no-deps", "--link-mode", "hardlink"),
                *("-r", os.path.join(HERE, "lock")),
            )
            trees[python, machine] = tree
    return trees
