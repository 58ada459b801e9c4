"""The file beside shiv and pex, built from the same lock in one run: ``python3 packaging/compare.py [--rounds N]``.

    one Python (this one) -> the locked libraries installed once -> three files of one program, which makes an S3 client
    -> size, first start, later starts (interleaved, so that a busy machine is busy for all), eight first starts at once,
       bytes left on disk after one start, what a start killed in the middle left

Each start has a HOME and a TMPDIR of its own. shiv and pex come into the cache by uv. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import stage

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = ("shiv==1.0.8", "pex==2.99.0")
AT_ONCE = 8
KILLED_AFTER_S = 0.2
PROGRAM = """
import os
def main():
    import boto3, psutil, s3transfer.manager, structlog, zstandard
    from isal import isal_zlib
    boto3.client("s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    return 0
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="compare the file with shiv and pex")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="byos-compare-") as top:
        files = built(top)
        warm, cold, roots = {}, {}, {}
        for name in files:
            roots[name] = os.path.join(top, "kept-" + name)
            started(files[name], roots[name])
        for number in range(options.rounds):
            for name in files:
                warm.setdefault(name, []).append(started(files[name], roots[name]))
                cold.setdefault(name, []).append(started(files[name], os.path.join(top, "cold-%s-%d" % (name, number))))
        print(
            "| file | MiB | first start, s | later starts, s | %d first starts at once, s | left on disk | after a kill |"
            % AT_ONCE
        )
        print("|---|---|---|---|---|---|---|")
        for name in files:
            many = at_once(files[name], os.path.join(top, "many-" + name))
            left = megabytes(roots[name])
            dead = killed(files[name], os.path.join(top, "killed-" + name))
            cells = (name, megabytes(files[name]), spread(cold[name]), spread(warm[name]), "%.2f" % many, left, dead)
            print("| %s |" % " | ".join(cells))


def built(top: str) -> dict[str, str]:
    """Name -> the file, each of the same program and libraries."""
    package = os.path.join(top, "source", "byos_run")
    os.makedirs(package)
    for name, text in (("__init__.py", '__version__ = "0.0.0"\n'), ("cli.py", PROGRAM)):
        with open(os.path.join(package, name), "w", encoding="utf-8") as file:
            file.write(text)
    files = {name: os.path.join(top, name) for name in ("byos-run", "shiv", "shiv-compiled", "pex", "pex-venv")}
    os.makedirs(os.path.join(top, "out"))
    files["byos-run"] = os.path.join(top, "out", "byos-run")
    build = [sys.executable, os.path.join(HERE, "build.py"), "--package", package, "--output", files["byos-run"]]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    tree, tools = os.path.join(top, "tree"), os.path.join(top, "tools")
    lock = ("--require-hashes", "--only-binary", ":all:", "--no-deps", "-r", os.path.join(HERE, "lock"))
    stage.run_uv("pip", "install", "--quiet", "--python", sys.executable, "--target", tree, *lock)
    shutil.copytree(package, os.path.join(tree, "byos_run"))
    stage.run_uv("venv", "--quiet", "--python", sys.executable, tools)
    stage.run_uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        tools + "/bin/python",
        "pip",
        *[each.partition("=")[0] for each in TOOLS],
    )
    shiv = [tools + "/bin/shiv", "--site-packages", tree, "-e", "byos_run.cli:main", "-p", sys.executable]
    run([*shiv, "-o", files["shiv"]])
    run([*shiv, "--compile-pyc", "-o", files["shiv-compiled"]])
    venv = os.path.join(top, "venv-repository")
    stage.run_uv("venv", "--quiet", "--python", sys.executable, venv)
    stage.run_uv("pip", "install", "--quiet", "--python", venv + "/bin/python", *lock)
    names = sorted(packages(venv))
    pex = [tools + "/bin/pex", *names, "--venv-repository", venv, "-P", "byos_run@" + os.path.dirname(package)]
    pex += ["-e", "byos_run.cli:main", "--sh-boot"]
    run([*pex, "-o", files["pex"]])
    run([*pex, "--venv", "prepend", "-o", files["pex-venv"]])
    return files


def packages(venv: str) -> list[str]:
    listed = subprocess.run(
        [stage.uv(), "pip", "freeze", "--python", venv + "/bin/python"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit("%s: exit %d\n%s" % (command[0], done.returncode, done.stderr[-2000:]))


def opened(file: str, root: str) -> subprocess.Popen:
    os.makedirs(root, exist_ok=True)
    search = "%s:%s" % (os.path.dirname(sys.executable), os.environ["PATH"])
    surroundings = {"HOME": root, "TMPDIR": root, "PATH": search, "BYOS_PYTHON": sys.executable}
    return subprocess.Popen(
        [file], env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def started(file: str, root: str) -> float:
    """Seconds of one start with HOME and TMPDIR ``root``."""
    began = time.monotonic()
    process = opened(file, root)
    if process.wait():
        raise SystemExit("%s: exit %d" % (file, process.returncode))
    return time.monotonic() - began


def at_once(file: str, root: str) -> float:
    began = time.monotonic()
    running = [opened(file, root) for _ in range(AT_ONCE)]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("%s: exits %r" % (file, codes))
    return time.monotonic() - began


def killed(file: str, root: str) -> str:
    """What a killed first start left, and what is left after one more start."""
    process = opened(file, root)
    time.sleep(KILLED_AFTER_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    dead = megabytes(root)
    started(file, root)
    return "%s, one more start: %s" % (dead, megabytes(root))


def megabytes(path: str) -> str:
    """MiB of a file, or of all files below a directory."""
    if os.path.isfile(path):
        return "%.1f" % (os.path.getsize(path) / 2**20)
    paths = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = sum(os.lstat(each).st_size for each in paths)
    return "%.1f MiB" % (total / 2**20) if total else "0"


def spread(seconds: list[float]) -> str:
    return "%.2f / %.2f" % (min(seconds), statistics.median(seconds))


if __name__ == "__main__":
    main()
