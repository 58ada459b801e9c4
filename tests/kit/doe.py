"""Runs as byos-run leaves them in a bucket, written straight into it: for what only reads."""

from __future__ import annotations

import base64
import json
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


def ended(bucket: Any, prefix: str, outputs: Mapping[str, bytes], **more: Any) -> dict[str, Any]:
    """A run at `prefix` that has come to its end: outputs, status, manifest, certificate. Returns the manifest.

    `more` replaces parts of the manifest.
    """
    entries = [entry(bucket, f"{prefix}{path}", path, content) for path, content in outputs.items()]
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
