"""Starts the file on every node that can be had and in every broken surrounding; prints a table and writes packaging/NODES.md.

Exit 1 if anything is not as promised. What cannot be tried here is a row that says why. Takes a few minutes.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit import runs, stores
from tests.nodes import places, rows
from tests.nodes.surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TABLE = Path(__file__).resolve().parent.parent.parent / "packaging" / "NODES.md"
USUAL = (3, 11)
TEXT = """\
# Nodes

What `make test-nodes` saw: `dist/byos-run` started on every Python that could be had, and in every broken surrounding (with
CPython {usual}). "version" is `--version`; "settle" a start with a flag that nobody knows and three keys missing (64, all four
named); "whole run" one with a case from a store, a small solver, outputs proven in the store and the run directory emptied. Each
start had HOME, TMPDIR and a run directory of its own. What is not as promised is **bold**.

{machine}; {size:.2f} MiB; {seconds:.0f} s for all of it; {bad} of {all} rows not as promised.

| | what | what came of it |
|---|---|---|
"""


def all_rows(file: Path, nodes: Sequence[places.Node], usual: places.Node) -> Iterator[rows.Row]:
    """Every row, as it is known."""
    with stores.scratch() as directory, stores.any_store(directory) as store:
        for node in nodes:
            yield rows.python(node, file=file, store=store)
    for number in range(len(surroundings(""))):
        yield rows.in_surrounding(usual, file=file, number=number)
    for count in (8, 32):
        yield rows.at_once(usual, file=file, count=count)
    yield rows.killed(usual, file=file)
    yield from rows.cut(usual, file=file)


def main() -> int:
    """Runs the matrix; returns the exit code."""
    began = time.monotonic()
    file = runs.shipped_file()
    nodes, absent = places.nodes()
    fit = [node for node in nodes if node.fits() and node.root is None]
    usual = next((node for node in fit if node.version == USUAL), fit[-1])
    seen = []
    for row in all_rows(file, nodes, usual):
        print(f"{'ok ' if row.is_good else 'BAD'} {row.group:<13} {row.name:<48} {row.seen}", flush=True)
        seen.append(row)
    seen += [rows.Row("Python", name, f"not tried: {why_not}", is_good=True) for name, why_not in absent]
    bad = [row for row in seen if not row.is_good]
    machine = (
        f"Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores, {' '.join(platform.libc_ver())}"
    )
    text = TEXT.format(
        usual=usual.name,
        machine=machine,
        size=file.stat().st_size / 2**20,
        seconds=time.monotonic() - began,
        bad=len(bad),
        all=len(seen),
    )
    TABLE.write_text(text + "".join(f"| {row.group} | {row.name} | {' '.join(row.seen.split())} |\n" for row in seen))
    print(f"{TABLE}: {len(seen)} rows, {len(bad)} not as promised")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
