"""The table of hostile and odd archives, each against its verdict."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from tests.archives import room, tars, zips

from byos_run.node.stop import Stop

CASES = [*((case, "case.zip") for case in zips.cases()), *((case, case.name) for case in tars.cases())]


@pytest.fixture(scope="module")
def stop():
    return Stop()


@pytest.mark.parametrize(("case", "name"), CASES, ids=[f"{name.split('.')[-1]}-{case.id}" for case, name in CASES])
def test_verdict(case, name, tmp_path, stop):
    """Accepted with the right tree, or refused with the reason named; in bounded time and memory, nothing outside the stage."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    found, what = room.verdict(case.content, tmp_path / "stage", name=name, stop=stop)

    told = found == "ok" or (case.says in what and not what.endswith("()"))
    assert (case.verdict, True) == (found, told), what
    assert set(os.listdir(tmp_path)) <= {"stage"}
    tree = room.tree(tmp_path / "stage") if found == "ok" else {}
    assert case.holds == {path: tree.get(path) for path in case.holds}
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_refusal_names_archive_and_member(tmp_path, stop):
    """A user reads which object, which member, what is wrong and what to do."""
    content = zips.build([zips.member(b"good"), zips.member(b"a/../../\x1b[2Jevil")])

    _, text = room.verdict(content, tmp_path / "stage", stop=stop)

    assert "s3://bucket/in/case.zip" in text
    assert "'a/../../\\x1b[2Jevil'" in text
    assert "pack it again" in text


def test_the_table_is_broad():
    """At least 150 zips and 60 tars, no name used twice; as many as tests/README.md says."""
    of_zips, of_tars = zips.cases(), tars.cases()
    told = Path(__file__).with_name("README.md").read_text(encoding="utf-8")

    assert len({case.id for case in of_zips}) == len(of_zips) >= 150
    assert len({case.id for case in of_tars}) == len(of_tars) >= 60
    assert f"| zips: {len(of_zips)} |" in told
    assert f"| tars: {len(of_tars)} |" in told
