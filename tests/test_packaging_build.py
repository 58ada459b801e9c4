"""How the shipped file is built: the same bytes everywhere, from a lock of hashes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import isal
import zstandard
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

    for name in ("byos-run", "byos-run.cdx.json", "SHA256SUMS"):
        assert made[0].joinpath(name).read_bytes() == made[1].joinpath(name).read_bytes(), name


def test_the_lock_is_of_hashes_and_names_no_host() -> None:
    """Every pin carries digests, and where packages come from is left to whoever builds."""
    lock = (TOP / "packaging" / "lock").read_text()

    pins = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert pins
    assert all(line.endswith("\\") for line in pins)
    assert "://" not in lock


def test_the_sizes_add_up(shipped_file: Path) -> None:
    """The list of what is in the file leaves nothing out and counts nothing twice."""
    listed = subprocess.run(
        [sys.executable, "-c", "import sizes, sys; print(sizes.table(sys.argv[1]))", str(shipped_file)],
        env={**cache.surroundings(), "PYTHONPATH": str(TOP / "packaging")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    rows = [float(line.split("|")[3]) for line in listed if line.startswith("| ") and "MiB" not in line]
    head = float(re.findall(r"([0-9.]+) MiB", listed[0])[0])

    assert abs(head - sum(rows)) <= 0.01 * len(rows)


def test_licences_travel_with_the_parts(shipped_file: Path) -> None:
    """Every library that is carried has its licence inside, and so have the C libraries and the CA list."""
    with zipfile.ZipFile(shipped_file) as archive:
        assert archive.testzip() is None
        licences = {name.split("/")[1] for name in archive.namelist() if name.startswith("licences/")}

    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", (TOP / "packaging" / "lock").read_text(), re.MULTILINE)
    missing = {f"{name.replace('-', '_')}-{version}" for name, version in pins} - licences
    assert not missing
    assert {"zstd.txt", "cacert.txt", "isal", "byos-run"} <= licences


def every_component(bill: dict[str, Any]) -> list[dict[str, Any]]:
    """The components of a bill of materials and those within them."""
    return [each for outer in bill["components"] for each in (outer, *outer.get("components", ()))]


def test_the_bill_of_materials_is_well_formed(shipped_file: Path) -> None:
    """What CycloneDX 1.6 requires is there, every reference leads somewhere, and everything has a licence."""
    bill = json.loads(shipped_file.with_name("byos-run.cdx.json").read_text())
    own, components = bill["metadata"]["component"], every_component(bill)
    names = [own["bom-ref"], *(each["bom-ref"] for each in components)]

    assert ("CycloneDX", "1.6", 1) == (bill["bomFormat"], bill["specVersion"], bill["version"])
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", bill["serialNumber"]
    )
    assert "timestamp" not in bill["metadata"]
    assert len(names) == len(set(names))
    assert {each["ref"] for each in bill["dependencies"]} <= set(names)
    assert {other for each in bill["dependencies"] for other in each["dependsOn"]} <= set(names)
    for each in (own, *components):
        assert each["type"] in {"application", "library", "data"}
        assert each["name"]
        assert all(("expression" in one) != ("license" in one) for one in each["licenses"])
        assert each["licenses"], each


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()))
"""


def test_the_bill_of_materials_is_valid(shipped_file: Path) -> None:
    """By CycloneDX's own schema, strictly: no key that it does not know, and every licence one of SPDX's."""
    python = str(cache.get("supply") / "bin" / "python")
    command = [python, "-c", VALIDATE, f"{shipped_file}.cdx.json"]

    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"


def test_the_bill_of_materials_is_of_this_file(shipped_file: Path) -> None:
    """It names the file's digest, every pin of the lock, and the C libraries in the versions that the natives really have."""
    bill = json.loads(shipped_file.with_name("byos-run.cdx.json").read_text())
    components = every_component(bill)
    known = {(each["name"].lower().replace("_", "-"), each.get("version")) for each in components}
    licence = {each["name"]: each["licenses"] for each in components}
    lock = (TOP / "packaging" / "lock").read_text()

    assert (
        f"{bill['metadata']['component']['hashes'][0]['content']}  byos-run\n"
        in (shipped_file.parent / "SHA256SUMS").read_text()
    )
    assert set(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)) <= known
    assert ("zstd", ".".join(str(part) for part in zstandard.ZSTD_VERSION)) in known
    assert ("isa-l", isal.ISAL_VERSION) in known
    assert [{"license": {"id": "MPL-2.0"}}] == licence["cacert.pem"]


def test_the_wheel_gives_the_same_command(tmp_path: Path) -> None:
    """Built and installed as a package it is typed and licensed, and `byos-run` answers as the file does."""
    uv = [str(Path(sys.executable).with_name("uv")), "--no-config", "--quiet"]
    env = {name: value for name, value in cache.surroundings().items() if not name.startswith("PYTHON")}
    source = tmp_path / "source"
    shutil.copytree(TOP / "agent", source / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, source)
    dev = Path(zstandard.__file__).parent.parent
    if env.get("PIP_CERT"):
        env.setdefault("SSL_CERT_FILE", env["PIP_CERT"])

    subprocess.run([*uv, "build", "--wheel", "--out-dir", str(tmp_path), str(source)], env=env, check=True)
    (wheel,) = tmp_path.glob("byos_run-*-py3-none-any.whl")
    subprocess.run([*uv, "venv", "--python", sys.executable, str(tmp_path / "venv")], env=env, check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([*uv, "pip", "install", "--no-deps", "--python", python, str(wheel)], env=env, check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "dev.pth").write_text(f"{dev}\n")

    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {"byos_run/py.typed", "byos_run/cli.py"} <= set(names)
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if not name.startswith(("byos_run/", "byos_run-"))]
    for line in ("License-Expression: Apache-2.0", "Requires-Python: >=3.9", "Classifier: Typing :: Typed"):
        assert f"\n{line}\n" in metadata
    for name in ("boto3", "isal", "psutil", "s3transfer", "structlog", "zstandard"):
        assert f"\nRequires-Dist: {name}>=" in metadata
        assert version(name)
    twine = [str(cache.get("supply") / "bin" / "twine"), "check", "--strict", str(wheel)]
    checked = subprocess.run(twine, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    command = str(tmp_path / "venv" / "bin" / "byos-run")
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert said.stdout == f"byos-run {wheel.name.split('-')[1]}\n"
    refused = subprocess.run([command, "--inptu", "x"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert refused.returncode == 64, refused.stderr
    assert "byos-run | " in refused.stderr + refused.stdout
