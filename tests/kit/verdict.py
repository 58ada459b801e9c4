"""What became of a run of the smoke job, seen from outside: the bucket by a client of its own, processes by /proc."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kit import runs

BUCKET = "my-simulation-data"
RANKS = 8
EXPECTED = {
    "copper": ("log.lammps", "rdf.dat", "restart.a", "restart.b", "dump.0.txt", "dump.100.txt"),
    "chute": (
        "chute/log.lammps",
        "chute/restart.a",
        "chute/restart.b",
        "chute/post/all.txt",
        "chute/post/frame.100.txt",
    ),
}
NOT_EXPECTED = {"copper": ("in.case", "Cu_u3.eam"), "chute": ("chute/in.case", "chute/geometry/data.chute")}


class Seen(NamedTuple):
    """What the run directory looked like from outside while the run went on."""

    at_start: list[str]
    while_running: list[str]
    config_gone_s: float | None
    """Seconds from the start until `config` was gone; None if it never went."""


class Outcome(NamedTuple):
    name: str
    ran: runs.Ran
    seconds: float
    seen: Seen


def check_outputs(client: Any, item: Outcome, objects: Mapping[str, int], *, secret: str) -> list[str]:
    """Compares the bucket with the manifest and with what this solver writes."""
    if item.ran.code:
        tail = "\n    ".join(item.ran.output.splitlines()[-25:])
        return [f"{item.name}: exit {item.ran.code}; it said:\n    {tail}"]
    problems = []
    manifest = read_json(client, f"output/{item.name}/_byos/manifest.json")
    certificate = read_json(client, f"output/{item.name}/_byos/purge.json")
    if manifest.get("status") != "complete":
        problems.append(f"{item.name}: the manifest says {manifest.get('status', 'nothing: there is none')}")
    if certificate.get("exit_code") != 0:
        problems.append(
            f"{item.name}: the purge certificate says {certificate.get('exit_code', 'nothing: there is none')}"
        )
    listed = {output["path"]: output["bytes"] for output in manifest.get("outputs", [])}
    found = {name: size for name, size in objects.items() if not name.startswith("_byos/")}
    if listed != found:
        differing = sorted({*listed.items()} ^ {*found.items()})
        problems.append(f"{item.name}: manifest and bucket differ in {differing[:5]}")
    problems += [f"{item.name}: {name} is missing" for name in EXPECTED[item.name] if not found.get(name)]
    problems += [f"{item.name}: the input {name} came back" for name in NOT_EXPECTED[item.name] if name in found]
    own = {name: body(client, f"output/{item.name}/{name}") for name in objects if name.startswith("_byos/")}
    own["its output"] = item.ran.output.encode()
    problems += [f"{item.name}: the secret key is in {name}" for name, text in own.items() if secret.encode() in text]
    if f"on {RANKS} procs".encode() not in own.get("_byos/solver.log", b""):
        problems.append(f"{item.name}: solver.log does not show {RANKS} ranks")
    return problems


def listing(client: Any, prefix: str) -> dict[str, int]:
    """Size of every object below a prefix, by name relative to it; outputs first."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    found = {item["Key"][len(prefix) :]: item["Size"] for page in pages for item in page.get("Contents", [])}
    return dict(sorted(found.items(), key=lambda item: (item[0].startswith("_byos/"), item[0])))


def read_json(client: Any, key: str) -> dict[str, Any]:
    """The object's document; empty if there is no such object."""
    try:
        document: dict[str, Any] = json.loads(body(client, key))
    except client.exceptions.NoSuchKey:
        return {}
    return document


def body(client: Any, key: str) -> bytes:
    content: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return content


def alive(place: Path) -> list[str]:
    """Command lines of processes that still live in the run directories."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd").startswith(str(place / "run")):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # ended meanwhile, or not ours to look at
    return found
