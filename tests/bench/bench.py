"""The race: `make bench`, or `python3 tests/bench/bench.py [SCENARIO …] [--rounds N] [--out FILE]`.

    tools -> data (once, in the cache) -> one MinIO -> a round to warm up, then N rounds; in each, every contender of every
    scenario runs once, beginning with another one each time -> RESULTS.md and results.svg, written after each round

All contenders share this machine's cores with the store. Starts on any Python 3.9; goes on in the tools' Python.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP))

from tests.kit import cache, runs  # noqa: E402  the path above comes first, as the script may be started from anywhere

if TYPE_CHECKING:
    from tests.bench.contenders import Bench
    from tests.bench.measure import Cost, Figure
    from tests.bench.scenarios import Scenario

    Costs = dict[str, dict[str, list[Cost]]]

BUCKET = "bench"
INSIDE = "BYOS_BENCH_INSIDE"


def main() -> int:
    """Returns the exit code: 1 if a tool cannot be had or a contender fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: the store stops with us
    if INSIDE not in os.environ:
        bring_tools()
    try:
        race(arguments())
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def bring_tools() -> None:
    """Brings the tools, then becomes their Python."""
    try:
        cache.bring(("minio", "dev", "peers", "mpich"))
        python = cache.get("dev") / "bin" / "python"
    except cache.CacheError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    os.environ[INSIDE] = "1"
    os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


def arguments() -> argparse.Namespace:
    """The command line."""
    from tests.bench import beside, curve, many, scenarios

    names = [scenario.name for scenario in (*scenarios.SCENARIOS, *beside.SCENARIOS, many.SCENARIO, curve.SCENARIO)]
    default = [*scenarios.DEFAULT, *(scenario.name for scenario in beside.SCENARIOS)]
    parser = argparse.ArgumentParser(
        prog="bench.py", description="Race of byos-run against a shell script and its peers."
    )
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(names)}; default: {', '.join(default)}")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, besides the one to warm up (5)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "RESULTS.md",
                        help="the table; the chart goes beside it as .svg")  # fmt: skip
    parser.add_argument(
        "--picture", action="store_true", help="of the scenario tail: draw its last run, and write nothing else"
    )
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.scenario) - set(names))
    if unknown or chosen.rounds < 1:
        parser.error(f"no such scenario: {', '.join(unknown)}" if unknown else "at least one round")
    chosen.scenario = chosen.scenario or default
    return chosen


def race(chosen: argparse.Namespace) -> None:
    """Runs the scenarios and writes the results of the rounds so far after each."""
    from tests.bench import beside, contenders, curve, data, many, report, scenarios
    from tests.kit import stores

    file = runs.shipped_file()
    known = (*scenarios.SCENARIOS, *beside.SCENARIOS, many.SCENARIO, curve.SCENARIO)
    picked = [scenario for scenario in known if scenario.name in chosen.scenario]
    with ExitStack() as stack:
        place = stack.enter_context(stores.scratch())
        for name in ("store", "home", "tmp"):
            (place / name).mkdir()
        # A copy: the file may be built anew by somebody else in the meantime.
        ours = place / "byos-run"
        ours.write_bytes(file.read_bytes())
        store = stack.enter_context(stores.minio(place / "store"))
        bench = contenders.Bench(store=store, bucket=BUCKET, place=place, data=data.directory(), file=ours)
        client = store.client()
        stack.callback(client.close)
        client.create_bucket(Bucket=BUCKET)
        scenarios.bring_inputs(bench, client, {name for scenario in picked for name in scenario.inputs})
        started = time.monotonic()
        costs: Costs = {scenario.name: {name: [] for name in scenario.who} for scenario in picked}
        for turn in range(chosen.rounds + 1):
            print(f"round {turn} of {chosen.rounds}{'' if turn else ', to warm up'}", flush=True)
            for scenario in picked:
                one_round(bench, scenario, turn=turn, costs=costs[scenario.name])
            if turn and chosen.picture:
                beside.draw(bench, chosen.out.with_name("timeline.svg"))
            elif turn:
                results = [(each, figures(costs[each.name])) for each in picked]
                report.write(chosen.out, results, bench=bench, took_s=time.monotonic() - started)
    written = "timeline.svg" if chosen.picture else f"{chosen.out} and {report.chart_beside(chosen.out).name}"
    print(f"\n{written} written", flush=True)


def one_round(bench: Bench, scenario: Scenario, *, turn: int, costs: dict[str, list[Cost]]) -> None:
    """Everybody runs once, beginning with another one each time; the round 0 is thrown away."""
    first = turn % len(scenario.who)
    for name in scenario.who[first:] + scenario.who[:first]:
        cost = scenario.once(bench, name, turn)
        if turn:
            costs[name].append(cost)
    last = "  ".join(f"{name} {seen[-1].seconds:.2f}" for name, seen in costs.items() if seen)
    print(f"  {scenario.name:<9} {last or 'done'}", flush=True)


def figures(costs: dict[str, list[Cost]]) -> list[Figure]:
    """What the rounds so far say of each contender."""
    from tests.bench import measure

    return [measure.figure(name, seen) for name, seen in costs.items()]


if __name__ == "__main__":
    raise SystemExit(main())
