"""In which order outputs leave."""

from __future__ import annotations

from pathlib import Path

from byos_run.model import Identity, Output
from byos_run.steps.worth import in_order

HOUR_NS = 3600 * 10**9


def output(path: str, size: int, *, hours: int = 0) -> Output:
    """Written *hours* after the first."""
    return Output(path, path, Identity(size, 10**18 + hours * HOUR_NS, 0, 1), Path("/case"))


def paths(outputs: list[Output]) -> list[str]:
    return [each.path for each in outputs]


def test_the_newest_restart_then_small_before_large() -> None:
    """Of rotated restart files only the newest generation goes first, whatever its size."""
    found = [
        output("large.h5", 10**9), output("thermo.out", 10**4, hours=3), output("restart.a", 10**8, hours=1),
        output("restart.b.0", 10**8, hours=2), output("restart.b.1", 10**7, hours=2), output("small.out", 10),
    ]  # fmt: skip

    assert paths(in_order(found)) == ["restart.b.1", "restart.b.0", "small.out", "thermo.out", "restart.a", "large.h5"]


def test_what_the_job_asks_for_goes_before() -> None:
    """publish.priority, first to last; the rest as without."""
    found = [output("a.h5", 5), output("b.rst", 5), output("x.out", 9), output("y.out", 3)]

    assert paths(in_order(found, priority=["*.h5", "*.out"])) == ["a.h5", "y.out", "x.out", "b.rst"]


def test_a_solver_may_call_its_restart_files_otherwise() -> None:
    """By the globs of the job."""
    assert paths(in_order([output("a", 1), output("state/7", 9)], restarts=["state/**"])) == ["state/7", "a"]


def test_no_outputs_have_an_order_too() -> None:
    """Nothing in, nothing out."""
    assert in_order([]) == []
