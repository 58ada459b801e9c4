"""Who races, and how each is called: what a user without byos-run has, with the settings of the manuals, and byos-run.

script   `aws s3 cp` and `unzip`, as the original five lines call them: no setting at all
s5cmd    parts of 16 MiB, 8 of a file at once (`--part-size`, `--concurrency`); its 256 workers as they are
rclone   16 files and 8 parts of a file at once, chunks of 16 MiB, no MD5 pass over large files before they leave, no look at
         what the destination has

byos-run is the shipped file, started as on the platform: `sh byos-run` in a run directory with `config` and `byos.toml`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from tests.kit import cache, cases, runs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.kit.stores import Store

SCRIPT, S5CMD, RCLONE, OURS = "script", "s5cmd", "rclone", "byos-run"
BUNDLED = "in bundles"
"""byos-run with `publish.bundle`."""
PEERS = (S5CMD, RCLONE)
ALL = (SCRIPT, S5CMD, RCLONE, OURS)
RCLONE_FLAGS = (
    "--transfers 16 --checkers 16 --multi-thread-streams 8 --multi-thread-chunk-size 16M --s3-chunk-size 16M"
    " --s3-upload-concurrency 8 --s3-disable-checksum --no-check-dest --s3-no-check-bucket"
)
S5CMD_FLAGS = "--concurrency 8 --part-size 16"


class Bench(NamedTuple):
    """What all measurements share."""

    store: Store
    bucket: str
    place: Path
    """A directory on the cache's disk; everything below it is removed at the end."""
    data: Path
    file: Path
    """The shipped file."""


def environment(bench: Bench) -> dict[str, str]:
    """What every contender is started with: keys, the store's address, the tools."""
    store = bench.store
    tools = f"{cache.get('peers') / 'bin'}:{cache.get('mpich') / 'bin'}:{os.environ['PATH']}"
    return {
        "PATH": tools, "HOME": str(bench.place / "home"), "LANG": "C.UTF-8", "TMPDIR": str(bench.place / "tmp"),
        "AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_DEFAULT_REGION": store.region, "AWS_REGION": store.region, "AWS_ENDPOINT_URL": store.endpoint_url,
        "S3_ENDPOINT_URL": store.endpoint_url, "RCLONE_CONFIG": "/dev/null", "RCLONE_S3_PROVIDER": "Minio",
        "RCLONE_S3_ENV_AUTH": "true", "RCLONE_S3_ENDPOINT": store.endpoint_url, "RCLONE_S3_REGION": store.region,
        **cases.RANKS_SHARE_CORES,
    }  # fmt: skip


def on_platform(bench: Bench) -> dict[str, str]:
    """The environment of a run of ours: the keys come from `config`."""
    env = {name: value for name, value in environment(bench).items() if not name.startswith(("AWS_", "RCLONE_", "S3_"))}
    return {**env, **runs.PLATFORM}


def download(bench: Bench, name: str, key: str) -> str:
    """Shell line that brings an object as `case.zip`."""
    source = f"s3://{bench.bucket}/{key}"
    return {
        SCRIPT: f"aws s3 cp {source} case.zip",
        S5CMD: f"s5cmd cp {S5CMD_FLAGS} {source} case.zip",
        RCLONE: f"rclone copyto {RCLONE_FLAGS} :s3:{bench.bucket}/{key} case.zip",
    }[name]


def upload(bench: Bench, name: str, prefix: str) -> str:
    """Shell line that sends all files of the working directory below a prefix."""
    return {
        SCRIPT: f"aws s3 cp . s3://{bench.bucket}/{prefix} --recursive",
        S5CMD: f"s5cmd cp {S5CMD_FLAGS} ./ s3://{bench.bucket}/{prefix}",
        RCLONE: f"rclone copy {RCLONE_FLAGS} . :s3:{bench.bucket}/{prefix}",
    }[name]


def stage_in(bench: Bench, name: str, key: str) -> list[str]:
    """Command that makes the object's files appear in `case/`, the zip gone."""
    if name == OURS:
        flags = ["--store-endpoint-url", bench.store.endpoint_url]
        return ["sh", str(bench.file), "fetch", f"s3://{bench.bucket}/{key}", "case", *flags]
    return ["sh", "-ec", f"mkdir case; cd case; {download(bench, name, key)}; unzip -q case.zip; rm case.zip"]


def job(bench: Bench, *, key: str, prefix: str, command: list[str]) -> Mapping[str, object]:
    """Job file of a run of ours."""
    return {
        "input": f"s3://{bench.bucket}/{key}",
        "output": f"s3://{bench.bucket}/{prefix}",
        "command": command,
    }
