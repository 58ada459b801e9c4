"""A newcomer's terminal, typed for real: `make transcript` writes it into README.

    a store with six cases in a bucket ▶ init, check, rehearse, verify, status, report in the kit ▶ what stood on the screen

The commands run in a terminal window, so the text is what a person would see at the end of each; only the port of the store is
not kept. After each command stands how long it took.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from tests.kit import cache, cases, runs, stores  # noqa: E402  after the path
from tests.kit.window import window  # noqa: E402  after the path

BUCKET = "my-simulation-data"
IN, OUT = f"s3://{BUCKET}/input/", f"s3://{BUCKET}/output/"
FIRST, LAST = "<!-- make transcript -->\n", "<!-- end of the transcript -->\n"
STEPS = 400
COLUMNS = 150
SESSION = (
    f'sh byos-run init {IN} {OUT} --command "mpirun -np {{cores}} lmp -in in.case" --keys-from-profile default',
    "cd byos-doe",
    "cat byos.toml.template",
    "sh byos-run check --table inputs.csv --row 1",
    "sh byos-run rehearse inputs.csv --slots 2 --cores 4",
    f"sh byos-run verify {OUT}",
    f"sh byos-run status {OUT} --table inputs.csv",
    f"sh byos-run report {OUT} --table inputs.csv",
    "ls",
)


def main() -> int:
    cache.surroundings()
    with stores.scratch() as directory, stores.any_store(directory) as store:
        text = FIRST + "```console\n" + typed(directory, store) + "```\n" + LAST
    readme = TOP / "README.md"
    before, found, rest = readme.read_text("utf-8").partition(FIRST)
    _, ended, after = rest.partition(LAST)
    if not (found and ended):
        raise RuntimeError(f"README.md has no {FIRST.strip()} … {LAST.strip()}")
    readme.write_text(before + text + after, "utf-8")
    return 0


def typed(directory: Path, store: stores.Store) -> str:
    """What stood on the screen, command after command, and a last line with the seconds of all."""
    client = store.client()
    client.create_bucket(Bucket=BUCKET)
    for gap in range(1, 7):
        archive = cases.chute(directory / f"hsdi_fb_{gap}mm.zip", steps=STEPS, angle=20.0 + gap)
        client.upload_file(str(archive), BUCKET, f"input/{archive.name}")
    client.close()
    here = directory / "here"
    (here / ".aws").mkdir(parents=True)
    shutil.copy(runs.shipped_file(), here / "byos-run")
    # As somebody has it who uses such a store every day.
    endpoint = f"endpoint_url = {store.endpoint_url}\n"
    (here / ".aws" / "credentials").write_text(runs.config_text(store), "utf-8")
    (here / ".aws" / "config").write_text(f"[default]\n{endpoint}region = {store.region}\n", "utf-8")
    env = {
        "PATH": f"{cache.get('mpich') / 'bin'}:{os.environ['PATH']}", "HOME": str(here), "LANG": "C.UTF-8", "NO_COLOR": "1",
        "TERM": "xterm", "TMPDIR": str(directory), **cases.RANKS_SHARE_CORES,
    }  # fmt: skip
    said, where, started = [], here, time.monotonic()
    for command in SESSION:
        began = time.monotonic()
        lines = screen(command, where=where, env=env)
        took = f"   # {time.monotonic() - began:.1f} s" if command.startswith("sh ") else ""
        said += [f"$ {command}{took}", *lines]
        if command.startswith("cd "):
            where /= command[3:]
    said.append(f"$ # all of it: {time.monotonic() - started:.0f} s, from init to the report")
    text = "\n".join([*said, ""])
    for found, shown in ((f"{cache.get('mpich')}/", "/opt/mpich/"), (f"{here}/", ""), (f"{directory}/", "/tmp/")):
        text = text.replace(found, shown)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:9000", text)


def screen(command: str, *, where: Path, env: dict[str, str]) -> list[str]:
    """The lines that *command* leaves in a window. RuntimeError if it fails."""
    with window(columns=COLUMNS, rows=50) as shown:
        process = subprocess.Popen(
            ["sh", "-c", command], cwd=where, env=env, stdin=subprocess.DEVNULL, stdout=shown.slave, stderr=shown.slave
        )
        while process.poll() is None:
            shown.drain()
            time.sleep(0.02)  # a window has nothing to wait on
        lines = shown.drain()
        lines = [] if lines == [""] else lines
    if process.returncode:
        raise RuntimeError("\n".join([f"exit {process.returncode} of {command}", *lines]))
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
