"""Runs as byos-run leaves them in a bucket, written straight into it: for what only reads."""

from __future__ import annotations

import base64
import json
import random
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTED_AT = 1_790_000_000.0


def crc_of(content: bytes) -> str:
    """CRC-32 as a manifest has it."""
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def entry(bucket: Any, key: str, path: str, content: bytes) -> dict[str, Any]:
    """Writes one output, with its checksum kept by the store; returns its entry in a manifest."""
    crc = crc_of(content)
    done = bucket.client.put_object(Bucket=bucket.name, Key=key, Body=content, ChecksumCRC32=crc)
    return {
        "path": path, "key": key, "bytes": len(content), "crc32": crc, "etag": done["ETag"], "mtime": STARTED_AT,
        "seconds": 0.1, "attempt": 1,
    }  # fmt: skip


def ended(bucket: Any, prefix: str, files: Mapping[str, bytes], **more: Any) -> dict[str, Any]:
    """A run at `prefix` that has come to its end: its files as outputs, status, manifest, certificate. Returns the manifest.

    `more` replaces parts of the manifest.
    """
    entries = [entry(bucket, f"{prefix}{path}", path, content) for path, content in files.items()]
    manifest = {
        "schema": 1, "run_id": "0" * 32, "attempt": 1, "status": "complete", "exit_code": 0, "output": bucket.url(prefix),
        "outputs": entries, "unpublished": [], **more,
    }  # fmt: skip
    write_status(bucket, prefix, phase="over", exit_code=manifest["exit_code"])
    bucket.put(f"{prefix}_byos/manifest.json", json.dumps(manifest))
    bucket.put(f"{prefix}_byos/purge.json", json.dumps({"complete": True, "exit_code": manifest["exit_code"]}))
    return manifest


def write_status(bucket: Any, prefix: str, **parts: Any) -> dict[str, Any]:
    """A heartbeat; returns it."""
    now = time.time()
    status = {
        "run_id": "0" * 32, "attempt": 1, "phase": "solve", "bytes": 5_000_000, "of_bytes": None, "files": 3,
        "bytes_per_s": 250_000, "eta_s": None, "phases": {"claim": 0.1, "fetch": 2.5}, "host": "node-7",
        "started_at": now - 300, "at": now, "lease_s": 180.0, "last_lines": ["step 100", "step 200"], **parts,
    }  # fmt: skip
    bucket.put(f"{prefix}_byos/status.json", json.dumps(status))
    return status


CAUSES = ("rank 3 was killed by signal 9", "licence server 7788@licence did not answer", "time step fell below 1e-{n}")


def imagined(number: int, *, top: str = "s3://data/output/doe/", size: int = 200) -> dict[str, Any]:
    """The manifest of run `number` of a DOE that never was: 25 nodes of 8 slots, a few failures, a few stragglers."""
    chance = random.Random(number)
    slot, turn = number % min(size, 200), number // min(size, 200)
    fetch, solve, publish = 8 + chance.random() * 6, 900 + chance.gauss(0, 60), 2 + chance.random() * 4
    if number % 41 == 7:
        solve *= 2.4
    started = STARTED_AT + turn * 1150 + chance.random() * 20
    status, code, cause = "complete", 0, None
    if number % 29 == 5:
        status, code, cause = "solver-failed", 137, CAUSES[0]
    elif number % 37 == 11:
        status, code, cause = "solver-failed", 1, CAUSES[2].format(n=number)
    elif number % 71 == 3:
        status, code = "interrupted", 75
    solve = solve * chance.random() if code else solve
    outputs = [
        {"path": f"post/{k:03}.h5", "key": f"output/doe/run-{number}/post/{k:03}.h5", "bytes": 40_000_000 + k * 1000,
         "crc32": "AAAAAA==", "etag": '"e"', "mtime": started + k, "seconds": 0.4, "attempt": 1}
        for k in range(12)
    ]  # fmt: skip
    phases = [("claim", 0.3, 0, 0), ("fetch", fetch, 174_000_000, 1), ("solve", solve, 410_000_000, 10),
              ("publish", publish, 70_066_000, 2)]  # fmt: skip
    at, told = started, []
    for name, seconds, moved, files in phases:
        told.append({"name": name, "started_at": at, "seconds": seconds, "bytes": moved, "files": files})
        at += seconds
    return {
        "schema": 1, "run_id": f"{number:032x}", "attempt": 2 if number % 50 == 9 else 1, "status": status, "exit_code": code,
        "exit_code_is": "the solver's" if status == "solver-failed" else "byos-run's", "error": None, "started_at": started,
        "ended_at": at, "output": f"{top}run-{number}/", "outputs": outputs, "unpublished": [], "phases": told,
        "inputs": [{"url": "s3://data/input/case.zip", "bytes": 174_000_000, "unpacked_bytes": 320_000_000, "members": 2001}],
        "solver": {"seconds": solve, "cores": 8, "cause": cause, "stopped_by": "SIGTERM" if code == 75 else None,
                   "peak_memory_bytes": int(2e9 + chance.random() * 3e8)},
        "host": {"name": f"node-{slot // 8 + 1}"}, "versions": {"byos-run": "0.1.0"}, "warnings": [],
        "results": {"thermo.out:2": 80 + number * 0.1 + chance.gauss(0, 3)}, "price": {"core_hour": 0.04, "gb": 0.023},
    }  # fmt: skip
