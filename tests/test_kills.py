"""A run that is killed at a named point, and started again: half of them in the same directory, half in a fresh one.

`python -m tests.kills` tries each point in both, and random moments.
"""

from __future__ import annotations

import pytest
from tests.kills.points import POINTS
from tests.kills.site import Site
from tests.kit import cache, stores


@pytest.fixture(scope="module")
def site(shipped_file, tmp_path_factory):
    with stores.scratch() as data, stores.any_store(data) as store:
        kept = data / "data" if cache.store().name == "minio" else None
        made = Site(store=store, data=kept, directory=tmp_path_factory.mktemp("kills"), shipped_file=shipped_file)
        yield made
        made.close()


ELSEWHERE = ("mpi, mpirun killed", "mpi, one rank killed")
MISSED = ("end, the journal goes",)
"""Lasts for two system calls, so a look from outside can miss it; HEAD of the certificate is the last event before."""
HERE = [
    each
    for each in POINTS
    if each.when != "passed" and not each.name.endswith("begun") and each.name not in (*ELSEWHERE, *MISSED)
]
"""Without those that lie beside others, are tried in test_steps_solve, or can be missed."""


@pytest.mark.parametrize(
    ("point", "fresh"),
    [(point, index % 2 == 1) for index, point in enumerate(HERE)],
    ids=[point.name for point in HERE],
)
def test_nothing_is_lost_and_nothing_stays(site, point, fresh):
    """The truth in the bucket, no manifest that claims more, no process, file, secret, segment or half upload left."""
    assert [] == site.try_point(point, fresh=fresh)
