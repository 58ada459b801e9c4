"""Very many small outputs: is the time per file, and the memory, what it is for few?

many    2,000 and 100,000 files of 2 KiB in directories of 500, each a whole run whose command moves them in; the same as bundles
        (not in the default race: four minutes a round, and 100,000 objects in the store)
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.bench import contenders, measure
from tests.bench.scenarios import Scenario, _expect, _fresh, _manifest
from tests.kit import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.contenders import Bench
    from tests.bench.measure import Cost, Figure

FEW, MANY, BUNDLED = "2,000 files", "100,000 files", "in bundles"
_FILES = {FEW: 2_000, MANY: 100_000, BUNDLED: 100_000}
_IN_A_DIRECTORY = 500
_FILE_BYTES = 2048


def once(bench: Bench, name: str, turn: int) -> Cost:
    """A run of nothing but outputs."""
    place, prefix, count = _fresh(bench, f"many-{turn}"), f"out/many/{turn}/{name}/", _FILES[name]
    made = bench.place / "made"
    shutil.rmtree(made, ignore_errors=True)
    for number in range(count):
        at = made / "tree" / f"step{number // _IN_A_DIRECTORY:04d}"
        if number % _IN_A_DIRECTORY == 0:
            at.mkdir(parents=True)
        (at / f"field{number:06d}.dat").write_bytes(b"%08d" % number * (_FILE_BYTES // 8))
    asked = contenders.job(bench, key="tiny.zip", prefix=prefix, command=["mv", str(made / "tree"), "."])
    publish = {"publish": {"bundle": ["**"]}} if name == BUNDLED else {}
    runs.lay_out(place, file=bench.file, store=bench.store, job={**asked, **publish})
    cost = measure.run(["sh", "byos-run"], cwd=place, env=contenders.on_platform(bench), log=bench.place / "log")
    _expect(len(_manifest(bench, prefix)["outputs"]), count, f"{name}: outputs")
    shutil.rmtree(place)
    return cost


SCENARIO = Scenario("many", "very many outputs of 2 KiB", tuple(_FILES), once, ("tiny.zip",))


def told(results: Sequence[tuple[Scenario, Sequence[Figure]]]) -> str:
    """Time per file and memory, for the page; "" if it was not run."""
    figures = {item.name: item for scenario, found in results if scenario.name == SCENARIO.name for item in found}
    if not figures:
        return ""
    rows = [
        f"| {name} | {figures[name].seconds / count * 1000:.2f} ms | {figures[name].peak_bytes / 2**20:.0f} MiB |"
        for name, count in _FILES.items()
    ]
    return "\n".join(
        ["## Very many outputs\n", "| | time per file | peak memory (≤ 256 MiB) |", "|---|---:|---:|", *rows, ""]
    )
