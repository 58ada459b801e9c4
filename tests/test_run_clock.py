"""A node whose clock is an hour off."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tests.kit import runs
from tests.scenarios.test_whole_run import WRITES, job, outputs

AGENT = Path(__file__).parent.parent / "agent"
SHIFTED = """
import sys, time
sys.path.insert(0, {agent!r})
now = time.time
time.time = lambda: now() + {shift}
from byos_run.cli import main
raise SystemExit(main([]))
"""


@pytest.mark.parametrize(
    ("shift", "said"), [(-3630, "60 min .. s slow"), (3630, "60 min .. s fast")], ids=["slow", "fast"]
)
def test_a_wrong_clock_is_corrected_and_told(shift, said, bucket, minio_store, shipped_file, tmp_path, run_environ):
    """The store's Date is signed with, the run ends well, and one line says how far the node is off."""
    directory = tmp_path / "run"
    runs.lay_out(directory, file=shipped_file, store=minio_store, job=job(bucket, WRITES))
    program = SHIFTED.format(agent=str(AGENT), shift=shift)
    ran = runs.run(directory, command=(sys.executable, "-c", program), env=run_environ())

    assert ran.code == 0, ran.output + ran.error
    assert re.search(f"the node's clock is {said}", ran.output), ran.output
    assert outputs(bucket)["result.dat"] == 7
