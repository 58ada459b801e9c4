"""How the shipped file is built: the same bytes everywhere, from a lock of hashes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.kit import cache

TOP = Path(__file__).resolve().parent.parent
ELSEWHERE = [("022", {"TZ": "UTC"}), ("077", {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"})]


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """Another tree, umask, time zone, locale and hash seed make no difference."""
    made = []
    for umask, variables in ELSEWHERE:
        tree = tmp_path / umask
        shutil.copytree(TOP / "packaging", tree / "packaging", ignore=shutil.ignore_patterns("__pycache__"))
        package = tree / "agent" / "byos_run"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('__version__ = "0.0.0"\nNAMES = {"a", "b", "c"} & frozenset(("b", "c"))\n')
        (package / "cli.py").write_text("def main():\n    return 0 if 'x' in {'x', 'y', 'z'} else 1\n")
        subprocess.run(
            ["sh", "-c", f'umask {umask}; exec "$@"', "sh", sys.executable, str(tree / "packaging" / "build.py")],
            env={**cache.surroundings(), **variables},
            capture_output=True,
            check=True,
        )
        made.append(tree / "dist")

    assert made[0].joinpath("byos-run").read_bytes() == made[1].joinpath("byos-run").read_bytes()
    assert made[0].joinpath("SHA256SUMS").read_text() == made[1].joinpath("SHA256SUMS").read_text()


def test_the_lock_is_of_hashes_and_names_no_host() -> None:
    """Every pin carries digests, and where packages come from is left to whoever builds."""
    lock = (TOP / "packaging" / "lock").read_text()

    pins = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert pins
    assert all(line.endswith("\\") for line in pins)
    assert "://" not in lock


def test_licences_travel_with_the_parts(shipped_file: Path) -> None:
    """Every library that is carried has its licence inside, and so have the C libraries and the CA list."""
    with zipfile.ZipFile(shipped_file) as archive:
        assert archive.testzip() is None
        licences = {name.split("/")[1] for name in archive.namelist() if name.startswith("licences/")}

    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", (TOP / "packaging" / "lock").read_text(), re.MULTILINE)
    missing = {f"{name.replace('-', '_')}-{version}" for name, version in pins} - licences
    assert not missing
    assert {"zstd.txt", "cacert.txt", "isal", "byos-run"} <= licences
